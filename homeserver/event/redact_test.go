package event

import (
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
)

// TestRedactContent checks what redaction leaves of each type's content in each
// room version.
func TestRedactContent(t *testing.T) {
	const levels = `{"ban":1,"events":{"a":1},"events_default":2,"invite":3,"kick":4,"notifications":{"room":5},"redact":6,"state_default":7,"users":{"@a:b":8},"users_default":9,"x":1}`
	const levelsLeft = `{"ban":1,"events":{"a":1},"events_default":2,"kick":4,"redact":6,"state_default":7,"users":{"@a:b":8},"users_default":9}`
	const member = `{"displayname":"A","join_authorised_via_users_server":"@c:d","membership":"join","reason":"x","third_party_invite":{"display_name":"x","signed":{"mxid":"@a:b","token":"t"}}}`
	tests := []struct {
		name, typ, content string
		from               int // version from which want holds
		want               string
	}{
		{"message", "m.room.message", `{"body":"x","membership":"join","msgtype":"m.text"}`, 1, `{}`},
		{"name", "m.room.name", `{"name":"x"}`, 1, `{}`},
		{"empty", "m.room.name", `{}`, 1, `{}`},

		{"member", TypeMember, member, 1, `{"membership":"join"}`},
		{"member", TypeMember, member, 9, `{"join_authorised_via_users_server":"@c:d","membership":"join"}`},
		{"member", TypeMember, member, 11, `{"join_authorised_via_users_server":"@c:d","membership":"join","third_party_invite":{"signed":{"mxid":"@a:b","token":"t"}}}`},
		{"unsigned invite", TypeMember, `{"membership":"invite","third_party_invite":{"display_name":"x"}}`, 1, `{"membership":"invite"}`},
		{"unsigned invite", TypeMember, `{"membership":"invite","third_party_invite":{"display_name":"x"}}`, 11, `{"membership":"invite","third_party_invite":{}}`},
		{"odd invite", TypeMember, `{"membership":"invite","third_party_invite":["signed"]}`, 1, `{"membership":"invite"}`},
		{"odd membership", TypeMember, `{"membership":{"signed":1}}`, 1, `{"membership":{"signed":1}}`},

		{"create", TypeCreate, `{"creator":"@a:b","m.federate":false,"room_version":"5"}`, 1, `{"creator":"@a:b"}`},
		{"create", TypeCreate, `{"creator":"@a:b","m.federate":false,"room_version":"5"}`, 11, `{"creator":"@a:b","m.federate":false,"room_version":"5"}`},

		{"join rules", TypeJoinRules, `{"allow":[{"a":1}],"join_rule":"restricted","x":1}`, 1, `{"join_rule":"restricted"}`},
		{"join rules", TypeJoinRules, `{"allow":[{"a":1}],"join_rule":"restricted","x":1}`, 8, `{"allow":[{"a":1}],"join_rule":"restricted"}`},

		{"power levels", TypePowerLevels, levels, 1, levelsLeft},
		{"power levels", TypePowerLevels, levels, 11, strings.Replace(levelsLeft, `"kick"`, `"invite":3,"kick"`, 1)},

		{"aliases", TypeAliases, `{"aliases":["#a:b"],"x":1}`, 1, `{"aliases":["#a:b"]}`},
		{"aliases", TypeAliases, `{"aliases":["#a:b"],"x":1}`, 6, `{}`},

		{"history visibility", TypeHistoryVisibility, `{"history_visibility":"joined","x":1}`, 1, `{"history_visibility":"joined"}`},

		{"redaction", TypeRedaction, `{"reason":"x","redacts":"$a"}`, 1, `{}`},
		{"redaction", TypeRedaction, `{"reason":"x","redacts":"$a"}`, 11, `{"redacts":"$a"}`},
	}
	for i, tt := range tests {
		until := len(matrix.Versions())
		if i+1 < len(tests) && tests[i+1].name == tt.name {
			until = tests[i+1].from - 1
		}
		for _, v := range matrix.Versions()[tt.from-1 : until] {
			if got := redactContent(v, tt.typ, []byte(tt.content)); string(got) != tt.want {
				t.Errorf("version %s, %s: got %s, want %s", v.ID, tt.name, got, tt.want)
			}
		}
	}
}

func TestRedact(t *testing.T) {
	const raw = ` {"unsigned":{"a":1},"type":"m.x","state_key":"k","signatures":{"s":{}},"sender":"@a:b","room_id":"!r:b","redacts":"$r",
		"prev_state":[],"prev_events":[],"origin_server_ts":1,"origin":"b","membership":"join","hashes":{"sha256":"x"},"event_id":"$e",
		"depth":1,"content":{"a":1},"auth_events":[],"age_ts":1,"Type":"x"} `
	const left = `{"auth_events":[],"content":{},"depth":1,"event_id":"$e","hashes":{"sha256":"x"},"origin_server_ts":1,` +
		`"prev_events":[],"room_id":"!r:b","sender":"@a:b","signatures":{"s":{}},"state_key":"k","type":"m.x"}`
	old := strings.NewReplacer(`"origin_server_ts"`, `"membership":"join","origin":"b","origin_server_ts"`,
		`"room_id"`, `"prev_state":[],"room_id"`).Replace(left)
	for i, v := range matrix.Versions() {
		want := old
		if i+1 >= 11 {
			want = left
		}
		got, err := Redact(v, []byte(raw))
		if err != nil || string(got) != want {
			t.Errorf("version %s: got %s, %v\nwant %s", v.ID, got, err, want)
		}
		if again, err := Redact(v, got); err != nil || string(again) != string(got) {
			t.Errorf("version %s: redacted twice: %s, %v", v.ID, again, err)
		}
	}
	for _, bad := range []string{``, `[]`, `{}`, `{"type":1}`, `{"type":"a","type":"a"}`} {
		if got, err := Redact(version(t, "11"), []byte(bad)); err == nil {
			t.Errorf("Redact(%s) = %s", bad, got)
		}
	}
}
