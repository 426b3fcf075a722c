package client

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"mellium.im/xmpp/jid"
)

// FuzzElement holds: what was read is written so that it reads the same.
func FuzzElement(f *testing.F) {
	f.Add(`<message xmlns="jabber:client" to="a@b" xml:lang="en"><body>x &amp; y</body><x xmlns="jabber:x:oob"><url>u</url></x></message>`)
	f.Add(`<a b="&lt;'&quot;&#10;"> <c/> </a>`)
	f.Add(`<a xmlns:p="q" p:b="1"><p:c>text</p:c>tail</a>`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(e.String())
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, e, err)
		}
		third, err := Parse(again.String())
		if err != nil || !reflect.DeepEqual(again, third) {
			t.Errorf("%q reads as %q, then as %q: %v", text, again, third, err)
		}
	})
}

func TestElementBounds(t *testing.T) {
	for name, text := range map[string]string{
		"deep":  strings.Repeat("<a>", maxDepth+2) + strings.Repeat("</a>", maxDepth+2),
		"big":   "<a>" + strings.Repeat("<b>"+strings.Repeat("x", 1<<16)+"</b>", 70) + "</a>",
		"short": "<a><b></b>",
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// TestMessage reads what clients write.
func TestMessage(t *testing.T) {
	for _, c := range []struct {
		name, xml string
		want      Message
	}{
		{"text", `<body>hi</body><request xmlns="urn:xmpp:receipts"/><active xmlns="http://jabber.org/protocol/chatstates"/>`,
			Message{Body: "hi", WantsEcho: true, State: "active"}},
		{"reply", `<body>&gt; what? ü` + "\n" + `this</body><reply xmlns="urn:xmpp:reply:0" id="q" to="a@b"/><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reply:0"><body start="0" end="10"/></fallback>`,
			Message{Body: "this", ReplyTo: "q"}},
		{"reply with wrong bounds", `<body>this</body><reply xmlns="urn:xmpp:reply:0" id="q"/><fallback xmlns="urn:xmpp:fallback:0" for="urn:xmpp:reply:0"><body start="2" end="99"/></fallback>`,
			Message{Body: "this", ReplyTo: "q"}},
		{"correction", `<body>right</body><replace xmlns="urn:xmpp:message-correct:0" id="w"/>`, Message{Body: "right", Replaces: "w"}},
		{"retraction", `<body>no</body><retract xmlns="urn:xmpp:message-retract:1" id="w"/>`, Message{Retracts: "w"}},
		{"old retraction", `<apply-to xmlns="urn:xmpp:fasten:0" id="w"><retract xmlns="urn:xmpp:message-retract:0"/></apply-to>`, Message{Retracts: "w"}},
		{"moderation", `<retract xmlns="urn:xmpp:message-retract:1" id="w"><moderated xmlns="urn:xmpp:message-moderate:1"/></retract>`,
			Message{Retracts: "w", Moderated: true}},
		{"old moderation", `<apply-to xmlns="urn:xmpp:fasten:0" id="w"><moderated xmlns="urn:xmpp:message-moderate:0"><retract xmlns="urn:xmpp:message-retract:0"/></moderated></apply-to>`,
			Message{Retracts: "w", Moderated: true}},
		{"reactions", `<reactions xmlns="urn:xmpp:reactions:0" id="w"><reaction>👍</reaction><reaction> 🎉 </reaction></reactions>`,
			Message{ReactsTo: "w", Reactions: []string{"👍", "🎉"}}},
		{"file", `<body>u</body><x xmlns="jabber:x:oob"><url>u</url></x>`, Message{Body: "u", URL: "u"}},
		{"marker", `<displayed xmlns="urn:xmpp:chat-markers:0" id="w"/>`, Message{Displayed: "w"}},
		{"receipt", `<received xmlns="urn:xmpp:receipts" id="w"/>`, Message{Received: "w"}},
		{"encrypted", `<body>x</body><encryption xmlns="urn:xmpp:eme:0" namespace="eu.siacs.conversations.axolotl" name="OMEMO"/>`,
			Message{Body: "x", Encryption: "OMEMO"}},
		{"forged archive ID", `<body>x</body><stanza-id xmlns="urn:xmpp:sid:0" id="w" by="eve@b"/>`, Message{Body: "x"}},
		{"archive ID", `<body>x</body><stanza-id xmlns="urn:xmpp:sid:0" id="w" by="me@here"/>`, Message{Body: "x", Archive: "w"}},
	} {
		client := New(Config{JID: jid.MustParse("me@here")}, nil)
		e, err := Parse(`<message xmlns="jabber:client" from="you@there/x" to="me@here" type="chat" id="1">` + c.xml + `</message>`)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := client.parse(e, time.Time{})
		c.want.From, c.want.To, c.want.Type, c.want.ID = jid.MustParse("you@there/x"), jid.MustParse("me@here"), "chat", "1"
		if !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, *got, c.want)
		}
	}
}

// TestForged looks at stanzas that only the account's server may send.
func TestForged(t *testing.T) {
	var told []Event
	c := New(Config{JID: jid.MustParse("me@here")}, func(e Event) { told = append(told, e) })
	inner := `<forwarded xmlns="urn:xmpp:forward:0"><message xmlns="jabber:client" from="me@here/x" to="you@there"><body>x</body></message></forwarded>`
	for from, want := range map[string]int{"eve@there": 0, "me@here": 1} {
		told = nil
		e, err := Parse(`<message xmlns="jabber:client" from="` + from + `"><sent xmlns="urn:xmpp:carbons:2">` + inner + `</sent></message>`)
		if err != nil {
			t.Fatal(err)
		}
		c.onMessage(e)
		if len(told) != want {
			t.Errorf("a copy from %s: %v", from, told)
		}
	}
	for from, want := range map[string]int{"eve@there": 0, "me@here": 1} {
		q := &query{}
		c.queries["q"] = q
		e, err := Parse(`<message xmlns="jabber:client" from="` + from + `"><result xmlns="urn:xmpp:mam:2" queryid="q" id="1">` + inner + `</result></message>`)
		if err != nil {
			t.Fatal(err)
		}
		c.onMessage(e)
		if len(q.results) != want {
			t.Errorf("an archive's message from %s: %v", from, q.results)
		}
	}
}
