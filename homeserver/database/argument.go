package database

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// ErrText is returned for text that is not valid UTF-8 or holds U+0000.
// PostgreSQL can store neither; SQLite could, but a server must not depend on
// which of the two its operator chose.
var ErrText = errors.New("text with U+0000 or invalid UTF-8 cannot be stored")

// argument makes one of nil, int64, float64, bool, string, []byte,
// json.RawMessage, []string or []int64 of a.
func argument(a any) (any, error) {
	switch x := a.(type) {
	case nil, int64, bool, float64:
		return a, nil
	case string:
		return a, checkText(x)
	case []byte:
		if x == nil {
			return nil, nil
		}
		return a, nil
	case json.RawMessage:
		if x == nil {
			return nil, nil
		}
		return a, checkText(string(x))
	case int:
		return int64(x), nil
	case []string:
		if x == nil {
			return []string{}, nil // NULL would not be an empty list
		}
		return a, checkTexts(x)
	case []int64:
		if x == nil {
			return []int64{}, nil
		}
		return a, nil
	}
	return argumentKind(reflect.ValueOf(a))
}

// argumentKind is argument for named types, pointers and smaller integers.
func argumentKind(v reflect.Value) (any, error) {
	switch v.Kind() {
	case reflect.String:
		return v.String(), checkText(v.String())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n := v.Uint()
		if int64(n) < 0 {
			return nil, fmt.Errorf("%d does not fit into a BIGINT", n)
		}
		return int64(n), nil
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Pointer:
		if v.IsNil() {
			return nil, nil
		}
		return argument(v.Elem().Interface())
	case reflect.Slice, reflect.Array:
		return argumentList(v)
	}
	return nil, fmt.Errorf("cannot use %s as an argument", v.Type())
}

func argumentList(v reflect.Value) (any, error) {
	switch v.Type().Elem().Kind() {
	case reflect.Uint8:
		if v.Kind() == reflect.Slice && v.IsNil() {
			return nil, nil
		}
		b := make([]byte, v.Len())
		reflect.Copy(reflect.ValueOf(b), v)
		return b, nil
	case reflect.String:
		s := make([]string, v.Len())
		for i := range s {
			s[i] = v.Index(i).String()
		}
		return s, checkTexts(s)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n := make([]int64, v.Len())
		for i := range n {
			n[i] = v.Index(i).Int()
		}
		return n, nil
	}
	return nil, fmt.Errorf("cannot use %s as an argument", v.Type())
}

func checkText(s string) error {
	if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
		return ErrText
	}
	return nil
}

func checkTexts(list []string) error {
	for _, s := range list {
		if err := checkText(s); err != nil {
			return err
		}
	}
	return nil
}

// arguments returns the arguments of st in the order of its placeholders.
func (st *statement) arguments(args []any) ([]any, error) {
	if len(args) != st.args {
		return nil, fmt.Errorf("%d arguments for %d placeholders", len(args), st.args)
	}
	out := make([]any, len(st.order))
	for i, p := range st.order {
		a, err := argument(args[p.arg])
		if err != nil {
			return nil, fmt.Errorf("argument $%d: %w", p.arg+1, err)
		}
		switch a.(type) {
		case []string, []int64:
			if !p.list {
				return nil, fmt.Errorf("argument $%d is a list, which needs LIST($%d)", p.arg+1, p.arg+1)
			}
		default:
			if p.list {
				return nil, fmt.Errorf("argument $%d of LIST is %T, not a list of strings or integers", p.arg+1, args[p.arg])
			}
		}
		out[i] = a
	}
	return out, nil
}
