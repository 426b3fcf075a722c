// Package calltest lets people find out whether calls work, and why not: an
// examination of the relay from the server itself (Examine), a page for the
// user's browser (Page), and a bot that answers calls and sends the voice back
// (Bot). The far end of every test is a peer of this process.
//
// A peer talks only with whoever made the test, sends back only what came from
// there, and lives for minutes; there are never more of them than the
// configuration allows. The package does not relay, does not know how the
// relay works, and keeps nothing: what a test found is shown to who made it.
package calltest
