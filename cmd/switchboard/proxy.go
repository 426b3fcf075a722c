package main

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// behindProxies sets RemoteAddr to the client's address where a trusted proxy
// tells it. A connection through a socket of this computer counts as one from
// a proxy.
func behindProxies(trusted []netip.Prefix, h http.Handler) http.Handler {
	isTrusted := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err == nil && !isTrusted(peer.Addr().Unmap()) {
			h.ServeHTTP(w, r)
			return
		}
		if client, ok := forwardedFor(r.Header.Values("X-Forwarded-For"), isTrusted); ok {
			r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
		}
		h.ServeHTTP(w, r)
	})
}

// forwardedFor finds the client in the headers: the last address that is not a
// trusted proxy's. What stands before it was written by the client and may be
// a lie. If all are proxies, it is the first one.
func forwardedFor(headers []string, isTrusted func(netip.Addr) bool) (client netip.Addr, ok bool) {
	list := strings.Split(strings.Join(headers, ","), ",")
	for _, word := range slices.Backward(list) {
		a, valid := parseForwarded(strings.TrimSpace(word))
		if !valid {
			return client, ok
		}
		client, ok = a, true
		if !isTrusted(a) {
			return client, true
		}
	}
	return client, ok
}

// parseForwarded reads an address as proxies write it, some with a port.
func parseForwarded(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap().WithZone(""), err == nil
}
