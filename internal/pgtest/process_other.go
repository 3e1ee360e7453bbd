//go:build !linux

package pgtest

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"syscall"
)

const (
	sigKill     = syscall.Signal(9)
	sigStop     = syscall.Signal(0)
	sigContinue = syscall.Signal(0)
)

var errLinux = errors.New("to find a server's processes takes Linux")

func become(_ *exec.Cmd, _ *user.User) error {
	if os.Getuid() == 0 {
		return errors.New("pgtest: postgres does not run as root; run the tests as another user")
	}
	return nil
}

func startChild(cmd *exec.Cmd) error { return cmd.Start() }

func processes(string) []int { return nil }

// signalAll ends the first process; its children follow when they see that it is gone.
func signalAll(_ string, first int, sig syscall.Signal) error {
	if sig != sigKill {
		return errLinux
	}
	p, err := os.FindProcess(first)
	if err != nil {
		return err
	}
	return p.Kill()
}

func waitGone(string) error { return nil }

func mainMemory() string { return "" }

func detach(*exec.Cmd) {}
