// Package hostile holds the test that sends malformed requests to the running
// server, over the whole route table of the client API: text that is no JSON,
// identifiers that are none, broken headers, percent-encodings and bodies. The
// requests are made from a seed, so that a failure can be repeated. There is
// nothing in it but the test.
package hostile
