package packed

import (
	"slices"
	"strings"
)

// words is a phrase.
type words struct {
	text string
	odd  bool // it has an odd number of quotes, so it begins or ends inside a string
}

// phrases are what is replaced. The order is part of the form: new ones may only
// be added at the end.
var phrases = makePhrases(
	// The first 24, which cost one byte, are those of most events.
	`{"auth_events":["$`,
	`","$`,
	`"],"content":{"avatar_url":"mxc://`,
	`","displayname":"`,
	`","membership":"join"},"depth":`,
	`,"hashes":{"sha256":"`,
	`"},"origin_server_ts":`,
	`,"prev_events":["$`,
	`"],"room_id":"`,
	`","sender":"`,
	`","signatures":{"`,
	`":{"ed25519:`,
	`"}},"state_key":"`,
	`"}},"type":"m.room.message"}`,
	`"}},"type":"m.room.encrypted"}`,
	`","type":"m.room.member"}`,
	`"],"content":{"body":"`,
	`","msgtype":"m.text"},"depth":`,
	`"],"content":{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"`,
	`","device_id":"`,
	`","session_id":"`,
	`},"depth":`,
	`"],"content":{`,
	`","type":"`,

	// The others cost two.
	`"],"content":{"displayname":"`,
	`"],"content":{"membership":"join"},"depth":`,
	`"],"content":{"membership":"leave"},"depth":`,
	`"},"depth":`,
	`"}},"type":"`,
	`"}`,
	`","membership":"invite"},"depth":`,
	`","membership":"leave"},"depth":`,
	`"membership":"`,
	`"avatar_url":"mxc://`,
	`"avatar_url":null`,
	`"displayname":null`,
	`"displayname":"`,
	`"sender_key":"`,
	`","sender_key":"`,
	`"m.relates_to":{"event_id":"$`,
	`","m.relates_to":{"event_id":"$`,
	`"],"content":{"m.relates_to":{"event_id":"$`,
	`","key":"`,
	`","rel_type":"m.annotation"}},"depth":`,
	`","rel_type":"m.replace"}`,
	`","rel_type":"m.thread"}`,
	`"}},"type":"m.reaction"}`,
	`"}},"type":"m.room.redaction"}`,
	`"m.in_reply_to":{"event_id":"$`,
	`"m.relates_to":{"m.in_reply_to":{"event_id":"$`,
	`","m.relates_to":{"m.in_reply_to":{"event_id":"$`,
	`"is_falling_back":true`,
	`"m.mentions":{}`,
	`"m.mentions":{"user_ids":["`,
	`","m.mentions":{},"msgtype":"m.text"},"depth":`,
	`"m.new_content":{"body":"`,
	`"format":"org.matrix.custom.html","formatted_body":"`,
	`","format":"org.matrix.custom.html","formatted_body":"`,
	`","msgtype":"m.notice"},"depth":`,
	`","msgtype":"m.emote"},"depth":`,
	`","msgtype":"m.image","url":"mxc://`,
	`"msgtype":"m.`,
	`"info":{"`,
	`"mimetype":"image/jpeg"`,
	`"mimetype":"image/png"`,
	`"mimetype":"`,
	`"size":`,
	`"thumbnail_info":{`,
	`"thumbnail_url":"mxc://`,
	`"url":"mxc://`,
	`"filename":"`,
	`"xyz.amorgan.blurhash":"`,
	`"redacts":"$`,
	`"reason":"`,
	`"room_version":"`,
	`"creator":"`,
	`{"auth_events":[],"content":{`,
	`,"prev_events":[],`,
	`"room_id":"`,
	`"sender":"`,
	`","state_key":"`,
	`"state_key":"","type":"m.room.`,
	`"}},"state_key":"","type":"m.room.`,
	`"event_id":"$`,
	`{"sha256":"`,
	`"}],["$`,
	`",{"sha256":"`,
	`{"auth_events":[["$`,
	`,"prev_events":[["$`,
	`"}]],"content":{`,
	`"}]],"room_id":"`,
	`,"origin":"`,
	`":{"key_ops":["decrypt","encrypt"],"kty":"oct"`,
	`"file":{"hashes":{"sha256":"`,
	`"key":{"alg":"A256CTR","ext":true,"k":"`,
	`":"`,
	`","`,
	`":{"`,
	`"},"`,
	`true`,
	`false`,
)

func makePhrases(texts ...string) []words {
	list := make([]words, len(texts))
	for i, t := range texts {
		list[i] = words{t, strings.Count(t, `"`)%2 == 1}
	}
	return list
}

// starts are the numbers of the phrases by their first two bytes, the longest
// first: index gives the place of the list, 0 for none.
var starts, index = func() (lists [][]int, index [1 << 14]uint8) {
	lists = [][]int{nil}
	for i, p := range phrases {
		k := pair(p.text[0], p.text[1])
		if index[k] == 0 {
			index[k] = uint8(len(lists))
			lists = append(lists, nil)
		}
		lists[index[k]] = append(lists[index[k]], i)
	}
	for _, list := range lists {
		slices.SortFunc(list, func(a, b int) int { return len(phrases[b].text) - len(phrases[a].text) })
	}
	return lists, index
}()

// pair is where two bytes of ASCII stand in index.
func pair(a, b byte) int { return int(a&0x7f)<<7 | int(b&0x7f) }

// match finds the longest phrase that text begins with, and its length, 0 if
// there is none.
func match(text []byte) (length, number int) {
	if len(text) < 2 {
		return 0, 0
	}
	for _, i := range starts[index[pair(text[0], text[1])]] {
		if p := phrases[i].text; len(text) >= len(p) && string(text[:len(p)]) == p {
			return len(p), i
		}
	}
	return 0, 0
}
