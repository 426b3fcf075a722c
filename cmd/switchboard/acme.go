package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/rs/zerolog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// acme gets certificates from an authority and renews them.
type acme struct {
	cache   *certmagic.Cache
	config  *certmagic.Config
	issuer  *certmagic.ACMEIssuer
	domains []string
}

// newACME prepares for the section of c. The listener that answers the
// authority on TLS is the first with acme. Stop must be called.
func newACME(c Config, log zerolog.Logger) (*acme, error) {
	roots, err := trustedRoots(c.ACME.RootCA)
	if err != nil {
		return nil, err
	}
	a := &acme{domains: c.acmeDomains()}
	zapLog := zap.New(&zapBridge{log})
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.config, nil },
		Logger:           zapLog,
	})
	a.config = certmagic.New(a.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: filepath.Join(c.DataDir, "acme")},
		Logger:  zapLog,
	})
	a.issuer = certmagic.NewACMEIssuer(a.config, certmagic.ACMEIssuer{
		CA:                   c.ACME.Directory,
		TestCA:               c.ACME.Directory,
		Email:                c.ACME.Email,
		Agreed:               true,
		TrustedRoots:         roots,
		DisableHTTPChallenge: c.ACME.HTTP == "",
		AltHTTPPort:          port(c.ACME.HTTP),
		AltTLSALPNPort:       c.acmePort(),
		Logger:               zapLog,
	})
	a.config.Issuers = []certmagic.Issuer{a.issuer}
	return a, nil
}

// tls is how a listener uses the certificates.
func (a *acme) tls() *tls.Config {
	t := a.config.TLSConfig()
	t.NextProtos = append([]string{"h2", "http/1.1"}, t.NextProtos...)
	return t
}

// start begins to fetch what is missing. It goes on until ctx is done.
func (a *acme) start(ctx context.Context) error {
	if err := a.config.ManageAsync(ctx, a.domains); err != nil {
		return fmt.Errorf("acme: %w", err)
	}
	return nil
}

func (a *acme) stop() { a.cache.Stop() }

// plain answers the authority over plain HTTP and sends everybody else to
// HTTPS.
func (a *acme) plain() http.Handler {
	return a.issuer.HTTPChallengeHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if host == "" || r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "use https", http.StatusBadRequest)
			return
		}
		w.Header().Set("Connection", "close")
		http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusMovedPermanently)
	}))
}

// trustedRoots reads the certificate by which to know the authority; nil means
// those of the system.
func trustedRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("acme.root_ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("acme.root_ca: %s holds no certificate", file)
	}
	return pool, nil
}

// acmeDomains are the names to get certificates for.
func (c Config) acmeDomains() []string {
	if len(c.ACME.Domains) > 0 {
		return c.ACME.Domains
	}
	host := func(s string) string {
		if h, _, err := net.SplitHostPort(s); err == nil {
			return h
		}
		return s
	}
	domains := []string{host(string(c.ServerName))}
	public := host(strings.TrimPrefix(c.BaseURL(), "https://"))
	if public != domains[0] {
		domains = append(domains, public)
	}
	return domains
}

// acmePort is the port of the first listener that uses ACME.
func (c Config) acmePort() int {
	for _, l := range c.listeners() {
		if l.TLS.ACME {
			return port(l.Address)
		}
	}
	return 0
}

func port(address string) int {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		return 0
	}
	return n
}

// zapBridge gives what certmagic logs to our log.
type zapBridge struct{ log zerolog.Logger }

// Enabled implements zapcore.Core.
func (z *zapBridge) Enabled(zapcore.Level) bool { return true }

// With implements zapcore.Core.
func (z *zapBridge) With(fields []zapcore.Field) zapcore.Core {
	return &zapBridge{z.log.With().Fields(zapFields(fields)).Logger()}
}

// Check implements zapcore.Core.
func (z *zapBridge) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return c.AddCore(e, z)
}

// Write implements zapcore.Core. What certmagic finds worth an info is a detail
// here.
func (z *zapBridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := zerolog.DebugLevel
	switch {
	case e.Level >= zapcore.ErrorLevel:
		level = zerolog.ErrorLevel
	case e.Level == zapcore.WarnLevel:
		level = zerolog.WarnLevel
	case strings.Contains(e.Message, "certificate obtained"):
		level = zerolog.InfoLevel
	}
	z.log.WithLevel(level).Fields(zapFields(fields)).Msg("acme: " + e.Message)
	return nil
}

// Sync implements zapcore.Core.
func (z *zapBridge) Sync() error { return nil }

func zapFields(fields []zapcore.Field) map[string]any {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	return enc.Fields
}
