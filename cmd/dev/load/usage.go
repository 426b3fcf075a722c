package load

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"
)

// Usage is what a process has used so far.
type Usage struct {
	RSS, Peak float64 // MB of memory, now and at most
	CPU       time.Duration
}

// tick is the unit of CPU time in /proc on Linux.
const tick = time.Second / 100

// UsageOf reads the usage of a process from /proc. It is zero where that can
// not be read.
func UsageOf(pid int) Usage {
	var u Usage
	if pid == 0 {
		return u
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(status)) {
		var kB float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kB); err == nil {
			u.RSS = kB / 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kB); err == nil {
			u.Peak = kB / 1024
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u
	}
	// The name of the program, in brackets, may hold spaces. utime and stime are
	// the 12th and 13th field after it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) > 12 {
		var user, system int64
		fmt.Sscan(fields[11], &user)
		fmt.Sscan(fields[12], &system)
		u.CPU = time.Duration(user+system) * tick
	}
	return u
}
