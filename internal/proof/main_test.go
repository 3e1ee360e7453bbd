package proof

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets many cases run side by side even on few processors: with a server at the
// other end they mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", "12")
	}
	os.Exit(m.Run())
}
