package appservices

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"switchboard/registrations"
)

// watchEvery is how often registration files are looked at.
const watchEvery = 2 * time.Second

// Load reads all registration files and puts them in force. If anything is
// wrong, the error tells all of it, and nothing changes.
func (s *Service) Load(ctx context.Context) error {
	stamp := s.stamp()
	s.mu.Lock()
	s.loaded = stamp // also if something is wrong: it is told once
	s.mu.Unlock()
	names, err := s.fileNames()
	if err != nil {
		return err
	}
	var list []*registrations.Registration
	var errs []error
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("registration: %w", err))
			continue
		}
		reg, err := registrations.Parse(name, b)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(reg.Unknown) > 0 {
			zerolog.Ctx(ctx).Warn().Str("file", name).Strs("keys", reg.Unknown).Msg("the registration has keys that mean nothing here")
		}
		list = append(list, reg)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replace(list, s.attached)
}

// fileNames lists the registration files in a fixed order.
func (s *Service) fileNames() ([]string, error) {
	names := append([]string(nil), s.Files...)
	if s.Folder == "" {
		return names, nil
	}
	entries, err := os.ReadDir(s.Folder) // sorted
	if errors.Is(err, fs.ErrNotExist) {
		return names, nil
	}
	if err != nil {
		return nil, fmt.Errorf("registrations: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || strings.HasPrefix(name, ".") || !strings.HasSuffix(name, ".yaml") && !strings.HasSuffix(name, ".yml") {
			continue
		}
		names = append(names, filepath.Join(s.Folder, name))
	}
	return names, nil
}

// stamp is another text whenever a registration file is another one.
func (s *Service) stamp() string {
	names, err := s.fileNames()
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", name, err)
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", name, info.ModTime().UnixNano(), info.Size())
	}
	return b.String()
}

// watch reads the registration files again when they change. It waits until
// they have been left alone for one look, so that it does not read half a file.
func (s *Service) watch(ctx context.Context) error {
	log := zerolog.Ctx(ctx)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	before := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := s.stamp()
		s.mu.Lock()
		loaded := s.loaded
		s.mu.Unlock()
		if now == loaded || now != before {
			before = now
			continue
		}
		if err := s.Load(ctx); err != nil {
			log.Error().Err(err).Msg("the registrations changed and cannot be used; the old ones stay in force")
			continue
		}
		log.Info().Int("appservices", len(s.Registrations.All())).Msg("registrations read again")
	}
}
