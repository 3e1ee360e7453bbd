package redistest

import (
	"bytes"
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

// stateOf returns the process's state, T when it stands still.
func stateOf(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The state follows the name, which is in parentheses and may hold any byte.
	return string(bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])[0]), nil
}
