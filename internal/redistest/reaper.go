package redistest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// reaper removes what a test process leaves behind, also when that process was killed, timed out or crashed, so that
// no package needs a TestMain for it. It waits for the end of its standard input, which is the end of the test
// process, and then removes the files and directories whose names it has read there, one a line.
var reaper = sync.OnceValues(func() (io.Writer, error) {
	cmd := exec.Command("/bin/sh", "-c", `while IFS= read -r name; do set -- "$@" "$name"; done; rm -rf -- "$@"`, "reaper")
	cmd.Dir = os.TempDir()                               // not the package's directory, which may go away
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C is for the test and its group
	// Output goes nowhere: go test waits for everyone who holds the test's own output.
	names, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the process that cleans up: %w", err)
	}
	return names, nil
})

var reaperMutex sync.Mutex

// removeLater has the file or directory removed at the end of this process, if nobody has done it before.
func removeLater(name string) error {
	name, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	w, err := reaper()
	if err != nil {
		return err
	}
	reaperMutex.Lock()
	defer reaperMutex.Unlock()
	_, err = io.WriteString(w, name+"\n")
	return err
}
