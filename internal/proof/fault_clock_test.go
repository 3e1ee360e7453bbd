package proof

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/internal/redistest"
)

// A shiftedClock is that of a server, ahead of ours. The clock of the server is moved, rather
// than that of a client: a Go program asks the kernel for the time without a library that one
// could get between, a server asks its libc. To the two of them it is the same.
type shiftedClock struct {
	library []byte
	by      *os.File // in seconds
}

// set moves it. The server that is to have it must be started after the first call.
func (c *shiftedClock) set(tb testing.TB, by time.Duration) {
	tb.Helper()
	if c.by == nil {
		var err error
		if c.library, err = clockShiftLibrary(); err != nil {
			tb.Fatal(err)
		}
		if c.by, err = os.CreateTemp("", "clockshift-"); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = c.by.Close(); _ = os.Remove(c.by.Name()) })
		if err := c.by.Chmod(0o644); err != nil { // the server may run as another user
			tb.Fatal(err)
		}
	}
	if _, err := c.by.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(by.Seconds()))), 0); err != nil {
		tb.Fatal(err)
	}
}

// redis is what gives it to a redis-server. The library's name has a slash, so that it is looked
// for from the server's directory.
func (c *shiftedClock) redis() []redistest.Option {
	if c.by == nil {
		return nil
	}
	return []redistest.Option{
		redistest.File("clockshift.so", c.library),
		redistest.Env("LD_PRELOAD", "./clockshift.so"),
		redistest.Env("CLOCKSHIFT_FILE", c.by.Name()),
	}
}

// postgres is what gives it to a postgres.
func (c *shiftedClock) postgres() []pgtest.Option {
	if c.by == nil {
		return nil
	}
	return []pgtest.Option{
		pgtest.File("clockshift.so", c.library),
		pgtest.Env("LD_PRELOAD", "$DIR/clockshift.so"),
		pgtest.Env("CLOCKSHIFT_FILE", c.by.Name()),
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
