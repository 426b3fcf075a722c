// Package complement pins the version of Complement, and with it everything
// that its tests import.
package complement

import (
	_ "github.com/matrix-org/complement"
	_ "github.com/matrix-org/complement/federation"
	_ "github.com/matrix-org/complement/should"
)
