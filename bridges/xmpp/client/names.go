package client

import (
	"maps"
	"slices"
)

// The name spaces of what the bridge speaks, by the number of the XEP where it
// has one.
const (
	nsClient    = "jabber:client"
	nsStanzas   = "urn:ietf:params:xml:ns:xmpp-stanzas"
	nsRoster    = "jabber:iq:roster"
	nsDisco     = "http://jabber.org/protocol/disco#info"  // 0030
	nsItems     = "http://jabber.org/protocol/disco#items" // 0030
	nsForms     = "jabber:x:data"                          // 0004
	nsMUC       = "http://jabber.org/protocol/muc"         // 0045
	nsMUCUser   = nsMUC + "#user"
	nsMUCAdmin  = nsMUC + "#admin"
	nsMUCOwner  = nsMUC + "#owner"
	nsBookmark  = "urn:xmpp:bookmarks:1" // 0402
	nsPubSub    = "http://jabber.org/protocol/pubsub"
	nsPubEvent  = nsPubSub + "#event"
	nsPubOpts   = nsPubSub + "#publish-options"
	nsVCard     = "vcard-temp"                            // 0054
	nsVCardX    = "vcard-temp:x:update"                   // 0153
	nsAvatar    = "urn:xmpp:avatar:data"                  // 0084
	nsAvatarM   = "urn:xmpp:avatar:metadata"              // 0084
	nsNick      = "http://jabber.org/protocol/nick"       // 0172
	nsStates    = "http://jabber.org/protocol/chatstates" // 0085
	nsReceipts  = "urn:xmpp:receipts"                     // 0184
	nsMarkers   = "urn:xmpp:chat-markers:0"               // 0333
	nsCorrect   = "urn:xmpp:message-correct:0"            // 0308
	nsIDs       = "urn:xmpp:sid:0"                        // 0359
	nsReply     = "urn:xmpp:reply:0"                      // 0461
	nsFallback  = "urn:xmpp:fallback:0"                   // 0428
	nsReact     = "urn:xmpp:reactions:0"                  // 0444
	nsRetract   = "urn:xmpp:message-retract:1"            // 0424
	nsRetract0  = "urn:xmpp:message-retract:0"            // 0424 until 2023
	nsFasten    = "urn:xmpp:fasten:0"                     // 0422, in which that one is
	nsModerate  = "urn:xmpp:message-moderate:1"           // 0425
	nsModerate0 = "urn:xmpp:message-moderate:0"           // 0425 until 2023
	nsPrivate   = "jabber:iq:private"                     // 0049
	nsStorage   = "storage:bookmarks"                     // 0048
	nsOOB       = "jabber:x:oob"                          // 0066
	nsUpload    = "urn:xmpp:http:upload:0"                // 0363
	nsCarbons   = "urn:xmpp:carbons:2"                    // 0280
	nsForward   = "urn:xmpp:forward:0"                    // 0297
	nsDelay     = "urn:xmpp:delay"                        // 0203
	nsMAM       = "urn:xmpp:mam:2"                        // 0313
	nsRSM       = "http://jabber.org/protocol/rsm"        // 0059
	nsSM        = "urn:xmpp:sm:3"                         // 0198
	nsPing      = "urn:xmpp:ping"                         // 0199
	nsOccupant  = "urn:xmpp:occupant-id:0"                // 0421
	nsHints     = "urn:xmpp:hints"                        // 0334
	nsCaps      = "http://jabber.org/protocol/caps"       // 0115
	nsVersion   = "jabber:iq:version"                     // 0092
	nsConfInv   = "jabber:x:conference"                   // 0249
	nsEncrypt   = "urn:xmpp:eme:0"                        // 0380
)

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
