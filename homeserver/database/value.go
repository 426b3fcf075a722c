package database

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
)

// ErrNoRows is returned by Row.Scan when the query found nothing.
var ErrNoRows = errors.New("no rows")

// kind says which field of a value is in use.
type kind uint8

const (
	null kind = iota
	integer
	boolean
	float
	text  // in s
	bytes // in b
)

// value is one column of one row, the same for both databases.
type value struct {
	kind kind
	n    int64 // integer, boolean (0, 1), bits of a float
	s    string
	b    []byte // owned by the value
}

func (v value) String() string {
	switch v.kind {
	case null:
		return "NULL"
	case integer:
		return "an integer"
	case boolean:
		return "a boolean"
	case float:
		return "a floating point number"
	case text:
		return "text"
	default:
		return "bytes"
	}
}

// assign stores v in what dest points to.
func assign(dest any, v value) error {
	switch d := dest.(type) {
	case *string:
		if v.kind == text || v.kind == bytes {
			*d = v.str()
			return nil
		}
	case *int64:
		if v.kind == integer {
			*d = v.n
			return nil
		}
	case *bool:
		if v.kind == integer || v.kind == boolean {
			*d = v.n != 0
			return nil
		}
	case *[]byte:
		if b, ok := v.raw(); ok {
			*d = b
			return nil
		}
	case *json.RawMessage:
		if b, ok := v.raw(); ok {
			*d = b
			return nil
		}
	case *any:
		*d = v.any()
		return nil
	}
	p := reflect.ValueOf(dest)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("cannot scan into %T, need a pointer", dest)
	}
	return assignKind(p.Elem(), v)
}

// assignKind is assign for named types and pointers.
func assignKind(d reflect.Value, v value) error {
	switch d.Kind() {
	case reflect.Pointer:
		if v.kind == null {
			d.SetZero()
			return nil
		}
		p := reflect.New(d.Type().Elem())
		if err := assignKind(p.Elem(), v); err != nil {
			return err
		}
		d.Set(p)
		return nil
	case reflect.String:
		if v.kind == text || v.kind == bytes {
			d.SetString(v.str())
			return nil
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if v.kind == integer && !d.OverflowInt(v.n) {
			d.SetInt(v.n)
			return nil
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.kind == integer && v.n >= 0 && !d.OverflowUint(uint64(v.n)) {
			d.SetUint(uint64(v.n))
			return nil
		}
	case reflect.Bool:
		if v.kind == integer || v.kind == boolean {
			d.SetBool(v.n != 0)
			return nil
		}
	case reflect.Float32, reflect.Float64:
		switch v.kind {
		case float:
			d.SetFloat(math.Float64frombits(uint64(v.n)))
			return nil
		case integer:
			d.SetFloat(float64(v.n))
			return nil
		}
	case reflect.Slice:
		if d.Type().Elem().Kind() == reflect.Uint8 {
			if b, ok := v.raw(); ok {
				d.SetBytes(b)
				return nil
			}
		}
	}
	return fmt.Errorf("cannot scan %s into %s", v, d.Type())
}

func (v value) str() string {
	if v.kind == bytes {
		return string(v.b)
	}
	return v.s
}

// raw returns text and bytes as bytes of the caller's own; NULL is nil.
func (v value) raw() ([]byte, bool) {
	switch v.kind {
	case null:
		return nil, true
	case text:
		return []byte(v.s), true
	case bytes:
		if v.b == nil {
			return []byte{}, true
		}
		return v.b, true
	}
	return nil, false
}

func (v value) any() any {
	switch v.kind {
	case integer:
		return v.n
	case boolean:
		return v.n != 0
	case float:
		return math.Float64frombits(uint64(v.n))
	case text:
		return v.s
	case bytes:
		b, _ := v.raw()
		return b
	}
	return nil
}
