package main

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// TestAnchors reads a small specification that has every way of making an
// anchor.
func TestAnchors(t *testing.T) {
	spec := fstest.MapFS{
		"content/client-server-api/_index.md": {Data: []byte(`---
title: "Client-Server API"
---

# Login & logout: the ` + "`m.login`" + ` types
## Login {id="legacy-login"}
## Ends {{% added-in v="1.2" %}}
## Knocking {#knocking-rooms}
~~~
# not a heading
~~~
{{% http-api spec="client-server" api="login" %}}
{{% http-api spec="client-server" api="peek" anchor_base="peeking" %}}
{{% event event="m.room.power_levels" %}}
{{% event-group group_name="m.call" %}}
{{% msgtypes %}}
{{% definition path="api/definitions/one" %}}
{{% cs-module name="Typing" filename="typing" %}}
## Client behaviour
text <a id="mrule"></a>
`)},
		"content/client-server-api/modules/typing.md":        {Data: []byte("---\ntitle: Typing\n---\n### Typing\n#### Client behaviour\nSee [login](#legacy-login), [rules](/rooms/v12#nothing).\n")},
		"content/rooms/v12.md":                               {Data: []byte("# Rules\n{{% rver-fragment name=\"auth\" %}}\n")},
		"content/rooms/fragments/auth.md":                    {Data: []byte("## Order\n")},
		"content/changelog/v1.1.md":                          {Data: []byte("# Changes\n")},
		"data/api/client-server/login.yaml":                  {Data: []byte("servers:\n- variables:\n    basePath:\n      default: /_matrix/client/v3\npaths:\n  /login/{flow_id}:\n    get:\n      responses:\n        '200':\n          content:\n            application/json:\n              schema:\n                properties:\n                  flows:\n                    items:\n                      title: Login Flow\n    post:\n      requestBody:\n        content:\n          application/json:\n            schema:\n              $ref: ../definitions/one.yaml\n")},
		"data/api/client-server/peek.yaml":                   {Data: []byte("paths:\n  '/.well-known/peek ':\n    get: {}\n")},
		"data/event-schemas/schema/m.call.invite.yaml":       {Data: []byte("")},
		"data/event-schemas/schema/m.room.message$m.te.yaml": {Data: []byte("")},
		"data/api/definitions/one.yaml":                      {Data: []byte("title: Public Room\nallOf:\n- patternProperties:\n    x:\n      title: Inner\n      additionalProperties:\n        $ref: one.yaml#/allOf\n")},
	}
	b, err := readBook(spec)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"client-server-api": {
			"client-behaviour", "client-behaviour-1", "definition-public-room",
			"definition-public-room_inner", "definition-public-room_public-room", "ends", "get_matrixclientv3loginflow_id",
			"get_matrixclientv3loginflow_id_response-200_login-flow", "knocking-rooms", "legacy-login", "login--logout-the-mlogin-types", "mcallinvite", "mroompower_levels", "mrule", "mte",
			"peeking_getwell-knownpeek", "post_matrixclientv3loginflow_id", "post_matrixclientv3loginflow_id_request_inner",
			"post_matrixclientv3loginflow_id_request_public-room", "typing",
		},
		"rooms/v12": {"order", "rules"},
	}
	if len(b) != len(want) {
		t.Errorf("%d pages, want %d", len(b), len(want))
	}
	for _, p := range b {
		got := slices.Sorted(slices.Values(p.anchors))
		if !slices.Equal(got, want[p.name]) {
			t.Errorf("%s: got\n%q, want\n%q", p.name, got, want[p.name])
		}
	}
	var out strings.Builder
	if err := b.checkLinks(&out); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "client-server-api: /rooms/v12#nothing\n1 of 2 links have no anchor\n"; got != want {
		t.Errorf("links: %q, want %q", got, want)
	}
}
