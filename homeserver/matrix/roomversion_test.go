package matrix

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestRoomVersions writes down the feature table of the versions, against the
// history that makeVersions tells.
//
// Spec: https://spec.matrix.org/v1.19/rooms/#feature-matrix
func TestRoomVersions(t *testing.T) {
	want := map[string]string{ // the versions in which each field is true
		"Stable":              "1 2 3 4 5 6 7 8 9 10 11 12",
		"EventIDInEvent":      "1 2",
		"URLSafeEventID":      "4 5 6 7 8 9 10 11 12",
		"RoomIDFromCreate":    "12",
		"CreatorFromSender":   "11 12",
		"RedactsInContent":    "11 12",
		"AliasesAuth":         "1 2 3 4 5",
		"StrictCanonicalJSON": "6 7 8 9 10 11 12",
		"NotificationsAuth":   "6 7 8 9 10 11 12",
		"KnockRule":           "7 8 9 10 11 12",
		"RestrictedRule":      "8 9 10 11 12",
		"RestrictedRedaction": "9 10 11 12",
		"KnockRestrictedRule": "10 11 12",
		"IntegerPowerLevels":  "10 11 12",
		"UpdatedRedaction":    "11 12",
		"CreatorsInfinite":    "12",
		"SignatureValidity":   "5 6 7 8 9 10 11 12",
		"RedactionAuth":       "1 2",
	}
	resolution := map[StateRes]string{StateResV1: "1", StateResV2: "2 3 4 5 6 7 8 9 10 11", StateResV21: "12"}
	got, algorithm := map[string][]string{}, map[StateRes][]string{}
	for i, v := range Versions() {
		if v.ID != fmt.Sprint(i+1) {
			t.Errorf("version %d is called %s", i+1, v.ID)
		}
		if found, ok := Version(v.ID); !ok || found != v {
			t.Errorf("Version(%s) is another value", v.ID)
		}
		algorithm[v.StateRes] = append(algorithm[v.StateRes], v.ID)
		fields := reflect.ValueOf(*v)
		for i := range fields.NumField() {
			name := fields.Type().Field(i).Name
			if fields.Field(i).Kind() != reflect.Bool {
				continue
			}
			if _, ok := want[name]; !ok {
				t.Fatalf("field %s is not in the table", name)
			}
			if fields.Field(i).Bool() {
				got[name] = append(got[name], v.ID)
			}
		}
	}
	for name, versions := range want {
		if have := strings.Join(got[name], " "); have != versions {
			t.Errorf("%s in versions %s, want %s", name, have, versions)
		}
	}
	for name, versions := range resolution {
		if have := strings.Join(algorithm[name], " "); have != versions {
			t.Errorf("state resolution %s in versions %s, want %s", name, have, versions)
		}
	}
	if _, ok := Version(DefaultRoomVersion); !ok {
		t.Error("the default version is unknown")
	}
	for _, id := range []string{"", "0", "13", "01", "1 "} {
		if _, ok := Version(id); ok {
			t.Errorf("Version(%q) is known", id)
		}
	}
}
