package federate

import "encoding/json"

// value is something in JSON; what is missing is a value with nothing in it.
type value struct{ v any }

// UnmarshalJSON implements json.Unmarshaler.
func (v *value) UnmarshalJSON(text []byte) error { return json.Unmarshal(text, &v.v) }

// MarshalJSON implements json.Marshaler.
func (v value) MarshalJSON() ([]byte, error) { return json.Marshal(v.v) }

func (v value) String() string {
	text, err := json.Marshal(v.v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// at follows keys of objects.
func (v value) at(path ...string) value {
	for _, key := range path {
		object, _ := v.v.(map[string]any)
		v = value{object[key]}
	}
	return v
}

// text is a string, "" for anything else.
func (v value) text() string {
	s, _ := v.v.(string)
	return s
}

// list is the elements of an array, none for anything else.
func (v value) list() []value {
	elements, _ := v.v.([]any)
	list := make([]value, len(elements))
	for i, e := range elements {
		list[i].v = e
	}
	return list
}

// texts are the strings of an array.
func (v value) texts() []string {
	var list []string
	for _, e := range v.list() {
		list = append(list, e.text())
	}
	return list
}

// exists reports whether there is anything but null.
func (v value) exists() bool { return v.v != nil }
