package redistest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// starter starts child processes, one after the other, on one thread that lives as long as the process.
//
// Pdeathsig makes the kernel kill a child when its parent ends, however it ends. But "parent" is the thread that
// forked, and Go ends a thread when a goroutine that is locked to it returns: a test that uses LockOSThread would
// take the servers of others with it.
var starter = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func startChild(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // Ctrl-C in a terminal is for the test, which then ends the server
	}
	result := make(chan error)
	starter() <- func() { result <- cmd.Start() }
	return <-result
}

// stopChild stops the process and waits until it stands still: the signal is only on its way when the call returns.
func stopChild(ctx context.Context, p *os.Process) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return poll(ctx, "the process stands still", func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
		if err != nil {
			return err
		}
		// The state follows the name, which is in parentheses and may hold any byte.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if string(fields[0]) != "T" {
			return fmt.Errorf("its state is %s", fields[0])
		}
		return nil
	})
}

func continueChild(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
