//go:build unix

package redistest

import (
	"os/exec"
	"syscall"
)

// detach keeps a signal that is meant for the test and its whole group, such as Ctrl-C, from cmd.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
