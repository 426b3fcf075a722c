package federation

import (
	"testing"

	"switchboard/cmd/dev/leaktest"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { leaktest.Main(m) }
