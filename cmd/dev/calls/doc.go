// Package calls places calls between two browsers through the whole program:
// Chromium with its fake camera and microphone, matrix-js-sdk, and media that
// only relays may carry, over each way to them, or from behind two NATs.
//
// It holds tests alone, which run where SWITCHBOARD_TEST_CALLS is set, as "make
// calls" does.
package calls
