package event

import (
	"encoding/json"
	"testing"

	"switchboard/homeserver/matrix"
)

func TestLocal(t *testing.T) {
	d := Draft{Room: "!r:a.test", Type: "m.room.message", Sender: "@x:a.test", OriginServerTS: 5, Content: json.RawMessage(`{"body":"hi"}`)}
	for _, v := range matrix.Versions() {
		for _, silent := range []bool{false, true} {
			p, err := Local(v, d, "$x:net.test", silent)
			if err != nil {
				t.Fatal(v.ID, err)
			}
			again, err := Load(v, p.ID, p.JSON)
			if err != nil {
				t.Fatal(v.ID, err)
			}
			if !again.Local || again.Silent != silent || again.ID != "$x:net.test" || again.ContentString("body") != "hi" || again.OriginServerTS != 5 {
				t.Errorf("%s: got %+v", v.ID, again)
			}
			gone, err := again.Redacted()
			if err != nil || !gone.Local || gone.ContentString("body") != "" || gone.ID != p.ID {
				t.Errorf("%s: redacted: %+v, %v", v.ID, gone, err)
			}
			if _, err := Parse(v, p.JSON); err == nil {
				t.Errorf("%s: another server's event may pass for a local one", v.ID)
			}
		}
	}
}

// An event of another server is not local, whatever it says of itself.
func TestNotLocal(t *testing.T) {
	v, _ := matrix.Version("11")
	p, err := Load(v, "$x", []byte(`{"auth_events":[],"content":{},"sender":"@x:b.test","silent":true,"type":"m.room.message"}`))
	if err != nil || p.Local || p.Silent {
		t.Errorf("got %+v, %v", p, err)
	}
}
