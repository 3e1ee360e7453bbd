//go:build !linux

package redistest

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// There is no Pdeathsig here: servers that all tests share outlive a test process that is killed.

func startChild(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}

func stateOf(pid int) (string, error) {
	state, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	return fmt.Sprintf("%.1s", strings.TrimSpace(string(state))), err // T, and marks
}
