package dirlock

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets some cases run side by side even on few processors: they mostly wait for a time to
// be up. With more of them the crowds of WAIT-001 wait for the processor instead, and are late.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", "4")
	}
	os.Exit(m.Run())
}
