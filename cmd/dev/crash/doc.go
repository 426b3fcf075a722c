// Package crash holds the test that kills the server in the middle of its work
// and checks that it keeps its word: what it acknowledged is there when it runs
// again, once, and in the order in which it was sent. There is nothing in it
// but the test, which uses only the binary and the client API.
package crash
