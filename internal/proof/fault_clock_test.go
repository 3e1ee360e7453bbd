package proof

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/internal/redistest"
)

// clockShift makes a redis-server whose clock is by ahead of ours. The clock of the server is
// moved, rather than that of a client: a Go program asks the kernel for the time without
// a library that one could get between, redis-server asks its libc. To the two of
// them it is the same.
func clockShift(tb testing.TB, by time.Duration) []redistest.Option {
	tb.Helper()
	library, err := clockShiftLibrary()
	if err != nil {
		tb.Fatal(err)
	}
	// The name has a slash, so that it is looked for from the server's directory.
	return []redistest.Option{
		redistest.File("clockshift.so", library),
		redistest.Env("LD_PRELOAD", "./clockshift.so"),
		redistest.Env("CLOCKSHIFT_SECONDS", fmt.Sprint(int(by.Seconds()))),
	}
}

var clockShiftLibrary = sync.OnceValues(func() ([]byte, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("a Redis whose clock is wrong can be had on Linux only, not on %s", runtime.GOOS)
	}
	compiler := ""
	for _, name := range []string{"gcc", "cc"} {
		if path, err := exec.LookPath(name); err == nil {
			compiler = path
			break
		}
	}
	if compiler == "" {
		return nil, errors.New("a C compiler is needed for a Redis whose clock is wrong, and neither gcc nor cc is on PATH: install gcc (Debian: apt-get install gcc libc6-dev)")
	}
	dir, err := os.MkdirTemp("", "clockshift-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	library := filepath.Join(dir, "clockshift.so")
	text, err := exec.Command(compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, "testdata/clockshift.c").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s cannot compile testdata/clockshift.c: %w\n%s", compiler, err, text)
	}
	return os.ReadFile(library)
})
