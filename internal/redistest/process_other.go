//go:build !linux

package redistest

import (
	"context"
	"errors"
	"os"
	"os/exec"
)

// There is no Pdeathsig here: servers that all tests share outlive the test process.

func startChild(cmd *exec.Cmd) error { return cmd.Start() }

func stopChild(context.Context, *os.Process) error {
	return errors.New("pausing a process needs Linux; use a container")
}

func continueChild(*os.Process) error {
	return errors.New("resuming a process needs Linux; use a container")
}
