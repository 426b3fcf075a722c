// Package statetree is the immutable tree that holds the state of a room: a
// hash-array-mapped trie from the number of a (type, state key) to the number
// of an event. It knows the shape of the tree and the bytes of its nodes; it
// does no I/O (a Loader does) and does not know what the numbers mean.
//
// A change makes a few new nodes and shares all others, so that the states of
// a room at all its events together are small, and two states are compared by
// walking only the nodes that differ. Nodes are stored once, under the hash of
// their content.
//
// # Shape
//
// A key is mixed by a bijection of 64 bits, so that two keys never collide;
// each level uses three bits of it, from the top. A node has up to eight
// slots; each is empty, an entry, or a child, and a child always holds at least two
// entries. The shape thus depends on the entries alone: equal states have
// equal IDs, in whatever order they came about.
//
// # Node encoding
//
// One byte with a bit for each slot with an entry, one for each with a child;
// then the entries in the order of their slots, each the key and the value as
// shortest unsigned varints; then the children's IDs, 8 bytes each, big
// endian.
package statetree
