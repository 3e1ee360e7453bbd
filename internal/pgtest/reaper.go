package pgtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// The reaper removes what a test process leaves behind, also when that process was killed,
// timed out or crashed. It is this same test binary, started a second time with a variable set
// that makes it do nothing but wait for the end of its standard input, which is the end of the
// first process.

const reaperVariable = "LOCKSTEP_PGTEST_REAPER"

func init() {
	if os.Getenv(reaperVariable) == "" {
		return
	}
	var dirs []string
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		dirs = append(dirs, lines.Text())
	}
	for _, dir := range dirs {
		if !strings.Contains(filepath.Base(dir), "pgtest-") {
			continue
		}
		data := filepath.Join(dir, "data")
		if all := processes(data); len(all) > 0 { // stopped ones do not heed the end of their parent
			_ = signalAll(data, all[0], sigKill)
			_ = waitGone(data)
		}
		_ = os.RemoveAll(dir)
	}
	os.Exit(0)
}

var reaper = sync.OnceValues(func() (io.Writer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), reaperVariable+"=1")
	cmd.Dir = os.TempDir() // not the package's directory, which may go away
	detach(cmd)
	// Output goes nowhere: go test waits for everyone who holds the test's own output.
	orders, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("pgtest: starting the process that cleans up: %w", err)
	}
	return orders, nil
})

var reaperMutex sync.Mutex

// removeLater has the directory removed at the end of this process, if nobody has before.
func removeLater(dir string) error {
	w, err := reaper()
	if err != nil {
		return err
	}
	reaperMutex.Lock()
	defer reaperMutex.Unlock()
	_, err = io.WriteString(w, dir+"\n")
	return err
}
