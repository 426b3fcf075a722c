// Command toybridge is a bridge as its authors would make one who know nothing of
// this server: the main program of mautrix with a connector for a network that
// exists only in a test. It is a module of its own, so that it is built as bridges
// are: with cgo, which mautrix wants for SQLite and encryption.
package main

import (
	"maunium.net/go/mautrix/bridgev2/matrix/mxmain"
)

func main() {
	m := mxmain.BridgeMain{
		Name:        "toybridge",
		Description: "A bridge to a network that a test makes up",
		URL:         "https://toy.invalid",
		Version:     "26.01",
		Connector:   &connector{},
	}
	m.InitVersion("", "", "")
	m.Run()
}
