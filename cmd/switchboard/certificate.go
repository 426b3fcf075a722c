package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// certificate is a certificate from files that are read again when they
// change.
type certificate struct {
	cert, key string
	current   atomic.Pointer[tls.Certificate]
	stamp     string // of the files when they were read; used by one goroutine
}

// loadCertificate reads the files.
func loadCertificate(cert, key string) (*certificate, error) {
	c := &certificate{cert: cert, key: key}
	if _, err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// reload reads the files if they changed. If they are not right, the
// certificate stays what it is, and they are read again the next time.
func (c *certificate) reload() (changed bool, err error) {
	stamp, err := fileStamp(c.cert, c.key)
	if err != nil {
		return false, fmt.Errorf("certificate: %w", err)
	}
	if stamp == c.stamp {
		return false, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return false, fmt.Errorf("certificate %s: %w", c.cert, err)
	}
	c.current.Store(&pair)
	c.stamp = stamp
	return true, nil
}

// fileStamp is another text whenever one of the files is another one.
func fileStamp(files ...string) (string, error) {
	stamp := ""
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return "", err
		}
		stamp += fmt.Sprintf("%s %d %d\n", f, info.ModTime().UnixNano(), info.Size())
	}
	return stamp, nil
}

// config is how a listener uses the certificate.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}

// Run looks after the files until ctx is done.
func (c *certificate) Run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		changed, err := c.reload()
		switch {
		case err != nil && err.Error() != told:
			told = err.Error()
			zerolog.Ctx(ctx).Warn().Err(err).Msg("the certificate changed but cannot be used; the old one stays")
		case changed:
			told = ""
			zerolog.Ctx(ctx).Info().Str("cert", c.cert).Msg("certificate read again")
		}
	}
}
