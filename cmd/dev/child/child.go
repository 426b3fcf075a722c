// Package child runs programs that must not outlive this one: servers for tests
// and measurements. It knows nothing of what they do.
package child

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Process is a program that was started.
type Process struct {
	PID int

	cmd    *exec.Cmd
	exited chan struct{}
	err    error // how it ended; read once exited is closed
}

// Start starts cmd in a process group of its own, away from the terminal's
// Ctrl-C. The kernel sends it the signal last should this process end without
// having stopped it.
func Start(cmd *exec.Cmd, last syscall.Signal) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = last
	p := &Process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The death signal is tied to the thread that starts the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.PID = cmd.Process.Pid
	return p, nil
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err returns how the process ended, nil for success. Call it when Exited is
// closed.
func (p *Process) Err() error { return p.err }

// Stop sends a signal and waits. A process that has not ended when patience is
// over is killed, which is an error.
func (p *Process) Stop(s syscall.Signal, patience time.Duration) error {
	p.cmd.Process.Signal(s) // an error means that it has ended
	select {
	case <-p.exited:
		return nil
	case <-time.After(patience):
		p.cmd.Process.Kill()
		<-p.exited
		return errors.New("did not stop in time and was killed")
	}
}

// Output keeps what programs print. The zero value is ready; several goroutines
// may use it.
type Output struct {
	mu  sync.Mutex // tier 1; guards buf
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

// String is everything so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// FreePort returns a port of the loopback interface where nobody listens now, over
// TCP or UDP. Until somebody does, seconds later, no connection gets it by chance:
// those have ports above 32767. As long as this process lives no other one gets it
// from here, nor this one again.
func FreePort() (int, error) {
	var err error
	for range 1000 {
		port := 10_000 + rand.IntN(22_000) //nolint:gosec // no secret
		if err = reserve(port); err != nil {
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		var l net.Listener
		if l, err = net.Listen("tcp4", address); err != nil {
			continue
		}
		var p net.PacketConn
		if p, err = net.ListenPacket("udp4", address); err == nil {
			err = p.Close()
		}
		l.Close()
		if err == nil {
			return l.Addr().(*net.TCPAddr).Port, nil
		}
	}
	return 0, fmt.Errorf("no port is free: %w", err)
}

// reserve marks a port for FreePort of all processes by an abstract address of a
// Unix socket, until this one ends.
func reserve(port int) error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: fmt.Sprintf("@switchboard port %d", port)}); err != nil {
		syscall.Close(fd)
		return err
	}
	return nil // the socket stays open
}
