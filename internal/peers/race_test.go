//go:build race

package peers

import (
	"os/exec"
	"testing"
)

// elsewhere runs the test in a build without the race detector, whose sync.Pool throws things
// away at random, and says that it has.
func elsewhere(t *testing.T) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^"+t.Name()+"$", "-v", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("without the race detector: %v\n%s", err, out)
	}
	t.Logf("without the race detector:\n%s", out)
	return true
}
