package signing

import (
	"iter"
	"strings"

	"switchboard/homeserver/canonjson"
)

// Signatures iterates over the ed25519 signatures of one entity in a canonical
// signatures object: key IDs and signatures in base64. Those of other algorithms
// are left out.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature
func Signatures(signatures []byte, entity string) iter.Seq2[string, string] {
	return func(yield func(keyID, signature string) bool) {
		for name, keys := range canonjson.Fields(signatures) {
			if canonjson.Key(name) != entity {
				continue
			}
			for id, value := range canonjson.Fields(keys) {
				keyID := canonjson.Key(id)
				if !strings.HasPrefix(keyID, Algorithm+":") {
					continue
				}
				if sig, ok := canonjson.Text(value); ok && !yield(keyID, sig) {
					return
				}
			}
			return
		}
	}
}

// Entities lists who signed: the keys of a canonical signatures object.
func Entities(signatures []byte) []string {
	var names []string
	for name := range canonjson.Fields(signatures) {
		names = append(names, canonjson.Key(name))
	}
	return names
}
