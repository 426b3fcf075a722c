// Package toybridge tests that a bridge which is made with mautrix and knows
// nothing of this server works beside it: a process of its own, with the main
// program of mautrix, over HTTP. The program is in the folder bridge; the network
// to which it leads is here, and so is the person who uses it.
package toybridge
