package proof

import (
	"flag"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestMain lets many cases run side by side even on few processors: with a server at the
// other end they mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		n := "12"
		if slowToBegin() {
			n = "6"
		}
		_ = flag.Set("test.parallel", n)
	}
	os.Exit(m.Run())
}

// slowToBegin says that this machine takes long to begin a process. Each connection to a PostgreSQL begins
// one: where that takes 20 ms instead of 3, twelve cases at a time keep each other waiting beyond their bounds.
func slowToBegin() bool {
	const times = 20
	began := time.Now()
	for range times {
		if exec.Command("true").Run() != nil {
			return false
		}
	}
	return time.Since(began) > times*1600*time.Microsecond
}
