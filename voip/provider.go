package voip

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Service tells clients which TURN server to use. Its methods may be called from
// several goroutines.
type Service struct {
	Config Config
	Relay  *Relay       // the one of this process, or nil
	Client *http.Client // for the requests to Cloudflare

	mu     sync.Mutex // tier 3; guards what follows; held while Cloudflare is asked, so that it is asked once
	theirs Credentials
	until  time.Time // when theirs end
}

// Credentials are what a user needs for a TURN server; nil if there is none.
func (s *Service) Credentials(ctx context.Context, user string) (*Credentials, error) {
	switch {
	case s.Relay != nil:
		c := s.Relay.Issue(user)
		if len(c.URIs) == 0 { // it has no certificate for the only ways to it
			return nil, nil
		}
		return &c, nil
	case s.Config.Provider == "external":
		e := s.Config.External
		c := Credentials{Username: e.Username, Password: e.Password, URIs: e.URIs, TTL: s.Config.Lifetime}
		if e.Secret != "" {
			c.Username = restUsername(user, time.Now().Add(c.TTL))
			c.Password = restPassword([]byte(e.Secret), c.Username)
		}
		return &c, nil
	case s.Config.Provider == "cloudflare":
		return s.cloudflare(ctx)
	}
	return nil, nil
}

// cloudflare gives credentials of Cloudflare's service. All users share them for
// half of their life.
func (s *Service) cloudflare(ctx context.Context) (*Credentials, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Until(s.until) < s.Config.Lifetime/2 {
		fresh, err := s.askCloudflare(ctx)
		if err == nil {
			s.theirs, s.until = *fresh, time.Now().Add(s.Config.Lifetime)
		} else if time.Until(s.until) < time.Minute {
			return nil, fmt.Errorf("turn credentials of cloudflare: %w", err)
		}
	}
	c := s.theirs
	c.TTL = time.Until(s.until).Truncate(time.Second)
	return &c, nil
}

// askCloudflare makes new credentials.
func (s *Service) askCloudflare(ctx context.Context) (*Credentials, error) {
	c := s.Config.Cloudflare
	body, err := json.Marshal(map[string]int64{"ttl": int64(s.Config.Lifetime / time.Second)})
	if err != nil {
		return nil, err
	}
	url := strings.TrimSuffix(c.API, "/") + "/turn/keys/" + c.KeyID + "/credentials/generate-ice-servers"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s; voip.cloudflare.key_id and token must be those of one TURN key", resp.Status)
	}
	var answer struct {
		Servers []struct {
			URLs       []string `json:"urls"`
			Username   string   `json:"username"`
			Credential string   `json:"credential"`
		} `json:"iceServers"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("it answers with something else: %w", err)
	}
	for _, server := range answer.Servers {
		// Browsers do not connect to port 53.
		uris := slices.DeleteFunc(server.URLs, func(u string) bool { return !strings.HasPrefix(u, "turn") || strings.Contains(u, ":53?") })
		if len(uris) > 0 && server.Username != "" {
			return &Credentials{Username: server.Username, Password: server.Credential, URIs: uris}, nil
		}
	}
	return nil, fmt.Errorf("it names no TURN server")
}
