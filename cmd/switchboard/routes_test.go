package main

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"switchboard/appservices"
	"switchboard/homeserver/clientapi"
	"switchboard/homeserver/fedapi"
)

// shrink rewrites testdata/absent.txt without the operations that are there
// now. It never adds one.
var shrink = flag.Bool("shrink", false, "strike operations that have a route from testdata/absent.txt")

// absentFile lists the specification's operations that have no route yet.
const absentFile = "testdata/absent.txt"

// operation is one operation of the specification's OpenAPI.
type operation struct {
	API    string `json:"api"`
	Method string `json:"method"`
	Path   string `json:"path"`
	ID     string `json:"op"`
}

// String is the operation's line in absentFile.
func (o operation) String() string { return o.API + " " + o.ID + " " + o.Method + " " + o.Path }

// served returns the routes of all edges. Which API an operation belongs to, its
// path says.
func served() []operation {
	var list []operation
	for _, r := range clientapi.Routes() {
		list = append(list, operation{Method: r.Method, Path: r.Path, ID: r.Operation})
	}
	for _, r := range fedapi.Routes() {
		list = append(list, operation{Method: r.Method, Path: r.Path, ID: r.Operation})
	}
	for _, r := range appservices.Routes() { // these we call
		list = append(list, operation{Method: r.Method, Path: r.Path, ID: r.Operation})
	}
	return list
}

// specified returns all operations of the specification.
func specified(t *testing.T) []operation {
	t.Helper()
	text, err := os.ReadFile("testdata/endpoints.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []operation
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	// Two operations may share a method and a path: the specification tells them
	// apart by a space at the end.
	for i := range list {
		list[i].Path = strings.TrimSpace(list[i].Path)
	}
	return list
}

// plain writes a path of net/http.ServeMux as the specification does.
func plain(path string) string {
	path = strings.TrimSuffix(path, "{$}")
	return strings.ReplaceAll(path, "...}", "}")
}

// TestRoutes compares the route tables with the specification: every route
// that bears an operation's name has its method and path, every operation has
// a route or stands in the list of absent ones, and that list only shrinks.
func TestRoutes(t *testing.T) {
	spec := specified(t)
	present := map[operation]bool{}
	for _, r := range served() {
		r.Path = plain(r.Path)
		var there []operation // what the specification has at this place
		for _, o := range spec {
			if o.Method == r.Method && o.Path == r.Path {
				there = append(there, o)
			}
		}
		switch {
		case len(there) == 0 && r.ID == "":
		case len(there) == 0:
			t.Errorf("%s has the route %s %s, which is not the specification's", r.ID, r.Method, r.Path)
		case !slices.ContainsFunc(there, func(o operation) bool { return o.ID == r.ID }):
			t.Errorf("%s %s is called %q, and the specification calls it %s", r.Method, r.Path, r.ID, there[0].ID)
		case present[there[0]]:
			t.Errorf("%s %s has two routes", r.Method, r.Path)
		default:
			for _, o := range there {
				present[o] = true
			}
		}
	}
	var missing []string
	for _, o := range spec {
		if !present[o] {
			missing = append(missing, o.String())
		}
	}
	slices.Sort(missing)
	compareAbsent(t, missing, len(present), len(spec))
}

// compareAbsent compares the operations without a route with the list of those
// that may be without.
func compareAbsent(t *testing.T, missing []string, present, all int) {
	t.Helper()
	text, err := os.ReadFile(absentFile)
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
	if *shrink {
		listed = slices.DeleteFunc(listed, func(line string) bool { return !slices.Contains(missing, line) })
		slices.Sort(listed)
		if err := os.WriteFile(absentFile, []byte(strings.Join(append(listed, ""), "\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var there []string // listed, and there
	for _, line := range listed {
		if !slices.Contains(missing, line) {
			there = append(there, line)
		}
	}
	if len(there) > 0 {
		t.Errorf("these are there now, or not in the specification. Strike them from %s with\n\tgo test ./cmd/switchboard -run TestRoutes -shrink\n%s", absentFile, strings.Join(there, "\n"))
	}
	for _, line := range missing {
		if !slices.Contains(listed, line) {
			t.Errorf("%s has no route", line)
		}
	}
	t.Logf("%d of %d operations have a route", present, all)
}
