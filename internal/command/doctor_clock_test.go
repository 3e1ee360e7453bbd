//go:build linux

package command

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lockstep-go/lockstep/internal/redistest"
)

// wrongClock is a healthy Redis but for its clock, which testdata/clock.c makes wrong as the
// variable says.
func wrongClock(t *testing.T, name, value string) string {
	t.Helper()
	library := filepath.Join(t.TempDir(), "clock.so")
	if text, err := exec.Command("gcc", "-shared", "-fPIC", "-O2", "-o", library, "testdata/clock.c", "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("gcc (Debian: apt-get install gcc libc6-dev): %v\n%s", err, text)
	}
	data, err := os.ReadFile(library)
	if err != nil {
		t.Fatal(err)
	}
	return redistest.Start(t, redistest.File("clock.so", data), redistest.Env("LD_PRELOAD", "./clock.so"), redistest.Env(name, value), with()).URL()
}

func TestDoctorRedisClock(t *testing.T) {
	t.Parallel()
	r := doctor(t, wrongClock(t, "CLOCK_SECONDS", "60"))
	r.wants(t, "clock", "note: it is 1m0")
	r.wants(t, "drift", "")
	for _, percent := range []string{"110", "90"} {
		doctor(t, wrongClock(t, "CLOCK_PERCENT", percent)).wants(t, "drift", "critical: within ")
	}
}
