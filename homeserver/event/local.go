package event

import (
	"strconv"

	"switchboard/homeserver/matrix"
)

// Local makes an event that only this server knows. It stands in a room's timeline
// beside those that servers exchange: no other event follows on it, it has no
// hashes, signatures or references, and so its ID may be anything. Other servers
// must not get it. References and depth of the draft are not looked at. A silent
// one notifies nobody. The errors are those of Build.
func Local(v *matrix.RoomVersion, d Draft, id matrix.EventID, silent bool) (*PDU, error) {
	content, err := draftContent(v, d)
	if err != nil {
		return nil, err
	}
	parts, err := d.parts(v)
	if err != nil {
		return nil, err
	}
	json := append(make([]byte, 0, 256+len(content)), `{"content":`...)
	json = append(json, content...)
	json = append(json, `,"origin_server_ts":`...)
	json = strconv.AppendInt(json, d.OriginServerTS, 10)
	json = append(json, parts.sender...)
	if silent {
		json = append(json, `,"silent":true`...)
	}
	json = append(append(json, parts.typ...), '}')
	if len(json) > MaxSize {
		return nil, tooLarge("the event", len(json), MaxSize)
	}
	p := &PDU{Version: v, ID: id, JSON: json}
	if err := p.fill(nil); err != nil {
		return nil, badEvent(err)
	}
	return p, p.check()
}
