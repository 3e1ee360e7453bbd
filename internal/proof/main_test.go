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
// The quickest of several counts: others are slow because of what runs beside them, such as a compiler.
func slowToBegin() bool {
	quickest := time.Hour
	for range 20 {
		began := time.Now()
		if exec.Command("true").Run() != nil {
			return false
		}
		quickest = min(quickest, time.Since(began))
	}
	return quickest > 2*time.Millisecond
}
