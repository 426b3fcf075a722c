package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	"github.com/rs/zerolog"
)

// TestMux serves HTTPS and TURN on one port: each connection goes to whom it is
// for, whether or not it says so.
func TestMux(t *testing.T) {
	c, err := loadCertificate(pair(t, t.TempDir(), "localhost"))
	if err != nil {
		t.Fatal(err)
	}
	config := c.config()
	config.NextProtos = []string{"h2", "http/1.1", alpnTURN}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	turn := func(conn net.Conn) {
		defer conn.Close()
		b := make([]byte, 20)
		if _, err := io.ReadFull(conn, b); err == nil {
			conn.Write(append([]byte("TURN "), b...))
		}
	}
	server := newServer(zerolog.Nop(), defaultConfig().HTTP, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	server.TLSConfig = config
	l := &listener{name: "test", net: newMux(raw, config, time.Minute, turn), server: server, tls: true}
	served := make(chan error, 1)
	go func() { served <- l.serve() }()
	address := raw.Addr().String()
	trust := func(protocols ...string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}
	}

	question := stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw
	for name, dial := range map[string]func() (net.Conn, error){
		"TLS":           func() (net.Conn, error) { return tls.Dial("tcp", address, trust()) },
		"TLS that says": func() (net.Conn, error) { return tls.Dial("tcp", address, trust(alpnTURN)) },
		"no TLS":        func() (net.Conn, error) { return net.Dial("tcp", address) },
	} {
		conn, err := dial()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := conn.Write(question); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(conn); !bytes.Equal(got, append([]byte("TURN "), question...)) {
			t.Errorf("%s: %q", name, got)
		}
		conn.Close()
	}
	for name, transport := range map[string]*http.Transport{
		"HTTP/1.1": {TLSClientConfig: trust("http/1.1")},
		"HTTP/2.0": {TLSClientConfig: trust("h2"), ForceAttemptHTTP2: true},
	} {
		resp, err := (&http.Client{Transport: transport}).Get("https://" + address)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != name {
			t.Errorf("%s: %s", name, got)
		}
		transport.CloseIdleConnections()
	}
	conn, err := tls.Dial("tcp", address, trust()) // HTTP without ALPN
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	if got, _ := io.ReadAll(conn); !bytes.HasSuffix(got, []byte("HTTP/1.0")) {
		t.Errorf("without ALPN: %q", got)
	}
	conn.Close()

	silent, err := net.Dial("tcp", address) // it is closed with the listener
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	silent.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives its listener")
	}
}
