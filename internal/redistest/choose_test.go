package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name      string
		forced    string
		order     []means
		fail      map[means]error
		want      means
		wantError []string // parts of the message
		wantLog   bool
	}{
		{name: "url first", order: sharedOrder, want: byURL},
		{name: "unset url is no failure", order: sharedOrder, fail: map[means]error{byURL: errUnset}, want: byContainer},
		{name: "no docker", order: sharedOrder, fail: map[means]error{byURL: errUnset, byContainer: broken}, want: byProcess, wantLog: true},
		{name: "process first", order: processFirst, want: byProcess},
		{name: "bad url is final", order: sharedOrder, fail: map[means]error{byURL: errStop{broken}}, wantError: []string{"broken"}},
		{name: "nothing", order: sharedOrder, fail: map[means]error{byURL: errUnset, byContainer: errors.New("no daemon"), byProcess: errors.New("no server")},
			wantError: []string{"container: no daemon", "process: no server", "docker.io", "redis-tools", "build.sh", urlVariable}},
		{name: "forced container", forced: "container", order: sharedOrder, fail: map[means]error{byContainer: broken},
			wantError: []string{"container: broken", "LOCKSTEP_REDISTEST=container"}},
		{name: "forced process", forced: "process", order: privateOrder, want: byProcess},
		{name: "forced url unset", forced: "url", order: sharedOrder, fail: map[means]error{byURL: errUnset}, wantError: []string{"not set"}},
		{name: "forced nonsense", forced: "podman", order: sharedOrder, wantError: []string{`"podman"`, "url, container or process"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(meansVariable, c.forced)
			by := make(ways[means])
			for _, how := range sharedOrder {
				by[how] = func(context.Context) (means, error) { return how, c.fail[how] }
			}
			logged := false
			got, err := choose(t.Context(), func(format string, args ...any) { logged = true; t.Logf(format, args...) }, "a Redis", c.order, by)
			if c.wantError == nil {
				if err != nil || got != c.want {
					t.Errorf("got %q, %v; want %q", got, err, c.want)
				}
				if logged != c.wantLog {
					t.Errorf("logged %v, want %v", logged, c.wantLog)
				}
				return
			}
			if err == nil {
				t.Fatalf("got %q, want an error", got)
			}
			for _, part := range c.wantError {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in the message:\n%v", part, err)
				}
			}
		})
	}
}

func TestPrivateServersUnderForcedURL(t *testing.T) {
	t.Setenv(meansVariable, "url")
	if srv := Start(t, Process()); !srv.Owned() {
		t.Error("a private server is not owned")
	}
}

// On a machine that has nothing, a test fails. It does not skip, and it says what to do.
func TestNothingToBeHad(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelper$", "-test.v")
	cmd.Env = []string{"LOCKSTEP_REDISTEST_HELPER=start", "PATH=" + t.TempDir(), "HOME=" + t.TempDir(), "DOCKER_HOST=tcp://127.0.0.1:1"}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Errorf("the test did not fail: %v", err)
	}
	for _, part := range []string{"--- FAIL: TestHelper", "none can be had", "DOCKER_HOST=tcp://127.0.0.1:1", "neither redis-server nor", "apt-get install", urlVariable} {
		if !strings.Contains(string(out), part) {
			t.Errorf("%q is not in the output:\n%s", part, out)
		}
	}
}

// An image that the user named and that cannot be had ends the search, and soon.
func TestNamedImageCannotBeHad(t *testing.T) {
	if _, err := dockerEngine(); err != nil {
		t.Logf("there is no Docker, which is as good a reason: %v", err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelper$", "-test.v")
	cmd.Env = append(os.Environ(), "LOCKSTEP_REDISTEST_HELPER=start", urlVariable+"=", meansVariable+"=", imageVariable+"=localhost:1/none:1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--- FAIL: TestHelper") || strings.Contains(string(out), "process:") {
		t.Errorf("a process was tried instead, or nothing failed: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// TestHelper is what other tests run in a process of their own.
func TestHelper(t *testing.T) {
	switch os.Getenv("LOCKSTEP_REDISTEST_HELPER") {
	case "start":
		Single(t)
	case "hang":
		srv := Single(t)
		session := ""
		if srv.means == byContainer {
			e, err := dockerEngine()
			if err != nil {
				t.Fatal(err)
			}
			session = e.session
		}
		fmt.Printf("\nstarted %s %s\n", srv.Addr(), session)
		select {}
	}
}
