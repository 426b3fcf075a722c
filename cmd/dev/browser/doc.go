// Package browser lets people talk with the application that most of them use:
// the code of Element Web (matrix-react-sdk) as it is on npm, built here, in
// Chromium, with the whole program as the homeserver. That code is under the AGPL
// or the GPL: it is downloaded for the test and is no part of what is released.
//
// It holds tests alone, which run where SWITCHBOARD_TEST_BROWSER is set, as "make
// browser" does.
package browser
