package fedapi

import (
	"flag"
	"testing"

	"switchboard/cmd/dev/leaktest"
)

// TestMain fails if a goroutine outlives the tests. More of those run beside each
// other than there are cores, since they wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	leaktest.Main(m)
}
