package main

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	byteUnits    = []struct {
		names []string
		size  int64
	}{
		{[]string{"T", "TB", "TIB"}, 1 << 40},
		{[]string{"G", "GB", "GIB"}, 1 << 30},
		{[]string{"M", "MB", "MIB"}, 1 << 20},
		{[]string{"K", "KB", "KIB"}, 1 << 10},
		{[]string{"", "B"}, 1},
	}
)

// setText puts a word into v. The error says what is allowed.
func setText(v reflect.Value, tag reflect.StructTag, s string) error {
	wrong := func() error { return fmt.Errorf("must be %s", expected(v, tag)) }
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("must be %s: %w", expected(v, tag), err)
		}
		return nil
	}
	if allowed := tag.Get("oneof"); allowed != "" && !contains(allowed, s) {
		return errors.New(wrong().Error() + ", not " + strconv.Quote(s) + didYouMean(s, strings.Fields(allowed)))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		if s != "true" && s != "false" {
			return wrong()
		}
		v.SetBool(s == "true")
	case reflect.Int, reflect.Int32, reflect.Int64:
		n, err := parseInt(v.Type(), tag, s)
		if err != nil || v.OverflowInt(n) {
			return wrong()
		}
		v.SetInt(n)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		n, err := parseInt(v.Type(), tag, s)
		if err != nil || n < 0 || v.OverflowUint(uint64(n)) {
			return wrong()
		}
		v.SetUint(uint64(n))
	case reflect.Float64:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return wrong()
		}
		v.SetFloat(x)
	default:
		return fmt.Errorf("cannot be set (%s)", v.Type())
	}
	return nil
}

func contains(words, s string) bool {
	for _, w := range strings.Fields(words) {
		if w == s {
			return true
		}
	}
	return false
}

func parseInt(t reflect.Type, tag reflect.StructTag, s string) (int64, error) {
	switch {
	case t == durationType:
		d, err := parseDuration(s)
		return int64(d), err
	case tag.Get("unit") == "bytes":
		return parseBytes(s)
	}
	return strconv.ParseInt(s, 10, 64)
}

// expected says what a value must look like.
func expected(v reflect.Value, tag reflect.StructTag) string {
	if allowed := tag.Get("oneof"); allowed != "" {
		return "one of " + strings.Join(strings.Fields(allowed), ", ")
	}
	switch v.Type().String() {
	case "netip.Addr":
		return "an IP address"
	case "netip.Prefix":
		return "a network, such as 10.0.0.0/8"
	case "netip.AddrPort":
		return "an address with a port, such as 127.0.0.1:8008"
	}
	switch {
	case v.Type() == durationType:
		return "a time, such as 30s, 5m, 12h or 7d"
	case tag.Get("unit") == "bytes":
		return "a number of bytes, such as 512K, 50M or 2G"
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	case reflect.Uint16:
		return "a whole number from 0 to 65535"
	case reflect.Uint8, reflect.Uint32, reflect.Uint64, reflect.Uint:
		return "a whole number that is not negative"
	}
	return "a whole number"
}

// parseBytes reads "50M". K, M, G and T are powers of 1024.
func parseBytes(s string) (int64, error) {
	text := strings.ToUpper(strings.ReplaceAll(s, " ", ""))
	end := len(strings.TrimRight(text, "BIKMGT"))
	n, err := strconv.ParseInt(text[:end], 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a number of bytes", s)
	}
	for _, unit := range byteUnits {
		for _, name := range unit.names {
			if text[end:] == name {
				if n > math.MaxInt64/unit.size {
					return 0, fmt.Errorf("%q is too large", s)
				}
				return n * unit.size, nil
			}
		}
	}
	return 0, fmt.Errorf("%q has an unknown unit", s)
}

// formatBytes writes what parseBytes reads.
func formatBytes(n int64) string {
	for _, unit := range byteUnits {
		if n != 0 && n%unit.size == 0 {
			return strconv.FormatInt(n/unit.size, 10) + unit.names[0]
		}
	}
	return strconv.FormatInt(n, 10)
}

// parseDuration reads what time.ParseDuration reads, and also days and weeks,
// such as "7d" and "2w".
func parseDuration(s string) (time.Duration, error) {
	for suffix, unit := range map[string]time.Duration{"d": 24 * time.Hour, "w": 7 * 24 * time.Hour} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			n, err := strconv.ParseInt(number, 10, 32)
			if err != nil || time.Duration(n) > math.MaxInt64/unit || n < 0 {
				return 0, fmt.Errorf("%q is not a time", s)
			}
			return time.Duration(n) * unit, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a time", s)
	}
	return d, nil
}

// formatDuration writes what parseDuration reads, as short as it goes.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String() // 1h0m0s
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// text is a value as it stands in the file.
func text(v reflect.Value, tag reflect.StructTag) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := m.MarshalText()
		if err != nil {
			return ""
		}
		return string(b)
	}
	switch {
	case v.Type() == durationType:
		return formatDuration(time.Duration(v.Int()))
	case tag.Get("unit") == "bytes":
		return formatBytes(v.Int())
	}
	return fmt.Sprint(v.Interface())
}
