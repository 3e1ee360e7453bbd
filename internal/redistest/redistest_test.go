package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// took logs how long a start took; the numbers in the documentation come from here.
func took(t *testing.T, what string, since time.Time) {
	t.Helper()
	t.Logf("%s: %s", what, time.Since(since).Round(100*time.Microsecond))
}

func TestSingleIsShared(t *testing.T) {
	begin := time.Now()
	srv := Single(t)
	took(t, "first use", begin)
	if again := Single(t); again != srv {
		t.Error("Single returned two servers")
	}
	key := t.Name()
	srv.Do(t, "SET", key, "value")
	t.Cleanup(func() { srv.Do(t, "DEL", key) })
	if got, err := srv.Do(t, "GET", key).ToString(); got != "value" {
		t.Errorf("GET = %q, %v", got, err)
	}
	if err := srv.Do(t, "GET", key+" missing").Error(); !rueidis.IsRedisNil(err) {
		t.Errorf("GET of a missing key: %v", err)
	}
}

func TestStart(t *testing.T) {
	begin := time.Now()
	srv := Start(t)
	took(t, "start", begin)
	if !srv.Owned() || !strings.Contains(srv.URL(), srv.Addr()) || srv.Version(t) == "" {
		t.Errorf("owned %v, URL %s, address %s, version %q", srv.Owned(), srv.URL(), srv.Addr(), srv.Version(t))
	}
	before := srv.CommandStats(t)
	srv.Do(t, "SET", "a", "1")
	srv.Do(t, "EVAL", "return redis.call('INCR', KEYS[1])", "1", "a")
	diff := srv.CommandStats(t).Since(before)
	for _, command := range []string{"set", "eval", "incr"} {
		if diff[command] != 1 {
			t.Errorf("%d calls of %s, want 1; all: %v", diff[command], command, diff)
		}
	}
	srv.Flush(t)
	if n, err := srv.Do(t, "DBSIZE").AsInt64(); n != 0 || err != nil {
		t.Errorf("%d keys after Flush, %v", n, err)
	}
}

func TestOptions(t *testing.T) {
	srv := Start(t, Password("p@ss:word"), TLS(),
		File("users.acl", []byte("user default on >p@ss:word ~* &* +@all\nuser alice on >wonder ~* &* +@all\n")),
		Args("--aclfile", "users.acl", "--rename-command", "FLUSHALL", ""))
	if err := srv.Cmd(t.Context(), "FLUSHALL").Error(); err == nil {
		t.Error("the renamed command is there")
	}
	srv.Do(t, "SET", "a", "1")

	option := srv.ClientOption()
	option.Username, option.Password, option.DisableCache = "alice", "wonder", true
	alice, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Close()
	if who, err := alice.Do(t.Context(), alice.B().AclWhoami().Build()).ToString(); who != "alice" {
		t.Errorf("WHOAMI = %q, %v", who, err)
	}

	parsed, err := rueidis.ParseURL(srv.URL())
	if err != nil || parsed.Password != "p@ss:word" || parsed.TLSConfig == nil {
		t.Errorf("%s: password %q, TLS %v, %v", srv.URL(), parsed.Password, parsed.TLSConfig != nil, err)
	}
	if pem, err := os.ReadFile(srv.CAFile()); err != nil || !strings.Contains(string(pem), "CERTIFICATE") {
		t.Errorf("%s: %v", srv.CAFile(), err)
	}
}

func TestWithoutHELLO(t *testing.T) {
	srv := Start(t, Args("--rename-command", "HELLO", ""))
	srv.Do(t, "SET", "a", "1")
}

func TestBadArgumentQuotesTheLog(t *testing.T) {
	_, err := start(t.Context(), spec{args: []string{"--no-such-setting", "1"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-setting") {
		t.Errorf("error does not quote Redis: %v", err)
	}
}

func TestKillAndRestart(t *testing.T) {
	srv := Start(t)
	addr := srv.Addr()
	srv.Do(t, "SET", "a", "1")
	srv.Kill(t)
	if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		c.Close()
		t.Error("a killed server's address takes connections")
	}
	begin := time.Now()
	srv.Restart(t)
	took(t, "restart", begin)
	if srv.Addr() != addr {
		t.Errorf("the address was %s and is %s", addr, srv.Addr())
	}
	if n, err := srv.Do(t, "DBSIZE").AsInt64(); n != 0 || err != nil {
		t.Errorf("%d keys after a restart, %v", n, err)
	}
}

func TestPause(t *testing.T) {
	srv := Start(t)
	srv.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := srv.Cmd(ctx, "PING").Error(); err == nil {
		t.Error("a paused server answered")
	} else if time.Since(begin) < 150*time.Millisecond {
		t.Errorf("a paused server refused instead of hanging: %v", err)
	}
	srv.Resume(t)
	srv.Do(t, "PING")

	srv.Pause(t)
	srv.Kill(t) // of a paused one
	srv.Restart(t)
}

// TestSharedServerIsNotBroken: a fault is for a server of the test's own.
func TestSharedServerIsNotBroken(t *testing.T) {
	out, err := helper(t, "LOCKSTEP_REDISTEST_HELPER=kill")
	if err == nil || !strings.Contains(out, "cannot kill 127.0.0.1:") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestURL(t *testing.T) {
	own := Start(t)
	srv, err := openURL(t.Context(), own.URL()+"/3")
	if err != nil {
		t.Fatal(err)
	}
	if srv.URL() != own.URL()+"/3" || srv.Addr() != own.Addr() || srv.Owned() {
		t.Errorf("URL %s, address %s, owned %v", srv.URL(), srv.Addr(), srv.Owned())
	}
	own.Do(t, "SET", "other database", "1")
	srv.Do(t, "SET", "a", "1")
	srv.Flush(t)
	if n, err := own.Do(t, "DBSIZE").AsInt64(); n != 1 || err != nil {
		t.Errorf("Flush of a URL's database left %d keys in another, want 1; %v", n, err)
	}

	own.Kill(t)
	if _, err := openURL(t.Context(), own.URL()); err == nil || !strings.Contains(err.Error(), urlVariable) {
		t.Errorf("a URL that does not answer is a failure that names the variable; got %v", err)
	}
}

// What a killed test process leaves is removed without it.
func TestKilledTestLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelper$", "-test.v")
	cmd.Env = append(os.Environ(), "LOCKSTEP_REDISTEST_HELPER=hang", "TMPDIR="+dir, urlVariable+"=")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	var addr string
	for lines := bufio.NewScanner(out); addr == "" && lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "started "); ok {
			addr = rest
		}
	}
	if addr == "" {
		t.Fatal("the helper started nothing")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	begin := time.Now()
	err = poll(ctx, "nothing is left", func() error {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return errors.New("the server runs")
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "redistest-*")); len(left) > 0 {
			return errors.New("left: " + strings.Join(left, ", "))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	took(t, "cleaning up after a killed process", begin)
}

// TestSingleByURL: what the variable names is used, and where it does not answer nothing else is tried.
func TestSingleByURL(t *testing.T) {
	own := Start(t)
	url := own.URL() + "/3"
	if out, err := helper(t, urlVariable+"="+url); err != nil || !strings.Contains(out, "started "+own.Addr()) {
		t.Errorf("%v\n%s", err, out)
	}
	own.Kill(t)
	out, err := helper(t, urlVariable+"="+url)
	if err == nil || !strings.Contains(out, urlVariable+": "+own.Addr()+" does not answer") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestNamedServer: the program that the variable names is run, and where it is not there nothing else is tried.
func TestNamedServer(t *testing.T) {
	found, err := findServer()
	if err != nil {
		t.Fatal(err)
	}
	named := filepath.Join(t.TempDir(), "redis-server")
	if err := os.Symlink(found, named); err != nil {
		t.Fatal(err)
	}
	if out, err := helper(t, serverVariable+"="+named, "PATH="); err != nil || !strings.Contains(out, "started ") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := helper(t, serverVariable+"="+named+"-9")
	if err == nil || !strings.Contains(out, "--- FAIL: TestHelper") || !strings.Contains(out, serverVariable) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestNothingToBeHad: on a machine that has nothing, a test fails. It does not skip, and it says what to do.
func TestNothingToBeHad(t *testing.T) {
	out, err := helper(t, "PATH="+t.TempDir())
	if err == nil {
		t.Error("the test did not fail")
	}
	for _, part := range []string{"--- FAIL: TestHelper", "neither redis-server nor", "apt-get install", urlVariable, serverVariable} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is not in the output:\n%s", part, out)
		}
	}
}

// helper runs TestHelper in a process of its own, which asks for the shared Redis.
func helper(t *testing.T, env ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelper$", "-test.v")
	cmd.Env = append(append(os.Environ(), urlVariable+"=", serverVariable+"=", "LOCKSTEP_REDISTEST_HELPER=start"), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestHelper is what other tests run in a process of their own.
func TestHelper(t *testing.T) {
	how := os.Getenv("LOCKSTEP_REDISTEST_HELPER")
	if how == "" {
		return
	}
	srv := Single(t)
	fmt.Printf("\nstarted %s\n", srv.Addr())
	switch how {
	case "hang":
		select {}
	case "kill":
		srv.Kill(t)
	}
}
