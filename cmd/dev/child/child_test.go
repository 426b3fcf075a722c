package child

import (
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestStop ends programs that listen to a signal, that do not, and that are
// gone already.
func TestStop(t *testing.T) {
	tests := []struct {
		name, script string
		patience     time.Duration
		refused      bool
	}{
		{"obeys", "echo up; exec sleep 3600", time.Minute, false},
		{"ignores", "trap '' TERM; echo up; while :; do sleep 0.05; done", 200 * time.Millisecond, true},
		{"gone", "exit 3", time.Minute, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out Output
			cmd := exec.Command("sh", "-c", tt.script)
			cmd.Stdout = &out
			p, err := Start(cmd, syscall.SIGKILL)
			if err != nil {
				t.Fatal(err)
			}
			if tt.name == "gone" {
				<-p.Exited()
			} else {
				for out.String() == "" { // until its trap is set
					time.Sleep(time.Millisecond)
				}
			}
			if err := p.Stop(syscall.SIGTERM, tt.patience); (err != nil) != tt.refused {
				t.Errorf("Stop: %v", err)
			}
			<-p.Exited()
			if p.Err() == nil {
				t.Error("a stopped program counts as successful")
			}
			if err := syscall.Kill(p.PID, 0); err == nil {
				t.Error("the process is still there")
			}
		})
	}
	if _, err := Start(exec.Command("/nonexistent"), syscall.SIGKILL); err == nil {
		t.Error("a program that does not exist was started")
	}
}

// TestFreePort gives each port once, however many are asked for.
func TestFreePort(t *testing.T) {
	seen := map[int]bool{}
	for range 500 { // by chance alone, two of them would most likely be the same
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d was given twice", port)
		}
		seen[port] = true
	}
}
