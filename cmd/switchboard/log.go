package main

import (
	"bytes"
	"io"
	stdlog "log"
	"os"
	"time"

	"github.com/rs/zerolog"
)

// newLogger makes the log of the server, which goes to w.
func newLogger(c LogConfig, w io.Writer) zerolog.Logger {
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil {
		level = zerolog.InfoLevel
	}
	if c.Format == "console" || c.Format == "auto" && isTerminal(w) {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !isTerminal(w)}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// quietLog takes what net/http logs. Nearly all of it is about connections
// that strangers broke off, so only panics are told by default.
func quietLog(log zerolog.Logger) *stdlog.Logger { return stdlog.New(&lineWriter{log}, "", 0) }

type lineWriter struct{ log zerolog.Logger }

// Write implements io.Writer.
func (w *lineWriter) Write(p []byte) (int, error) {
	level := zerolog.DebugLevel
	if bytes.Contains(p, []byte("panic")) {
		level = zerolog.ErrorLevel
	}
	w.log.WithLevel(level).Msg(string(bytes.TrimSpace(p)))
	return len(p), nil
}
