//go:build unix

package command

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/internal/redistest"
)

// TestExitCodes has every code of docs/command.md.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	url := redisURL(t)
	notExecutable := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(notExecutable, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	noInterpreter := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(noInterpreter, []byte("#!/nonexistent/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	busy := newKey()
	holder := start(t, url, sh(busy, "echo; exec sleep 60"))
	holder.line()

	for name, test := range map[string]struct {
		url  string
		args []string
		want int
		says string
	}{
		"the command's 0":       {url, sh(newKey(), "exit 0"), 0, ""},
		"the command's 7":       {url, sh(newKey(), "exit 7"), 7, ""},
		"the command's 255":     {url, sh(newKey(), "exit 255"), 255, ""},
		"a signal":              {url, sh(newKey(), "kill -9 $$"), 128 + 9, ""},
		"held":                  {url, sh(busy, "echo", "--no-wait"), 121, busy},
		"held, wait 0":          {url, sh(busy, "echo", "--wait", "0s"), 121, busy},
		"held, wait":            {url, sh(busy, "echo", "--wait", "800ms"), 121, "--wait 800ms is over"},
		"held, skipped":         {url, sh(busy, "echo", "--no-wait", "--skipped", "0"), 0, busy},
		"held, quiet":           {url, sh(busy, "echo", "--no-wait", "-q"), 121, ""},
		"no store":              {"redis://127.0.0.1:1", sh(newKey(), "echo"), 122, "connection refused"},
		"no configuration":      {"", sh(newKey(), "echo"), 123, "no store is configured"},
		"a wrong configuration": {"redis://127.0.0.1:1?validity=5h", sh(newKey(), "echo"), 123, "validity: 5h is not between"},
		"an unknown store":      {"etcd://127.0.0.1", sh(newKey(), "echo"), 123, "etcd"},
		"memory":                {"memory://", sh(newKey(), "echo"), 123, `the locks of type "memory" live within one process`},
		"an unknown flag":       {url, []string{"run", "k", "--nosuch", "--", "true"}, 123, "unknown flag: --nosuch"},
		"an unknown command":    {url, []string{"nosuch"}, 123, "unknown command"},
		"no dashes":             {url, []string{"run", "k", "true"}, 123, "goes after --"},
		"nothing after them":    {url, []string{"run", "k", "--"}, 123, "no command after --"},
		"no key":                {url, []string{"run", "--", "true"}, 123, "one KEY goes before --, not 0"},
		"an empty key":          {url, []string{"run", "", "--", "true"}, 123, "KEY is empty"},
		"a long key":            {url, []string{"run", strings.Repeat("x", 1025), "--", "true"}, 123, "at most 1024"},
		"a ttl of 0":            {url, sh("k", "", "--ttl", "0s"), 123, "--ttl 0s is not above 0"},
		"ttl and session":       {url, sh("k", "", "--ttl", "1s", "--session"), 123, "exclude each other"},
		"wait and no-wait":      {url, sh("k", "", "--wait", "1s", "--no-wait"), 123, "exclude each other"},
		"once and wait":         {url, sh("k", "", "--once-per", "x", "--wait", "1s"), 123, "never waits"},
		"at-least alone":        {url, sh("k", "", "--at-least", "1s"), 123, "is for --once-per"},
		"a long at-least":       {"redis://127.0.0.1:1", sh("k", "", "--once-per", "x", "--at-least", "876001h"), 123, "--at-least 876001h0m0s is above 876000h0m0s"},
		"a long ttl, once":      {"redis://127.0.0.1:1", sh("k", "", "--once-per", "x", "--ttl", "438001h"), 123, "--ttl 438001h0m0s is above 438000h0m0s, the longest with --once-per"},
		"an empty slot":         {url, sh("k", "", "--once-per", ""), 123, "the slot is empty"},
		"skipped 256":           {url, sh("k", "", "--skipped", "256"), 123, "not between 0 and 255"},
		"not executable":        {url, []string{"run", newKey(), "--", notExecutable}, 126, "cannot be executed"},
		"no interpreter":        {url, []string{"run", newKey(), "--", noInterpreter}, 126, "cannot be executed"},
		"not found":             {url, []string{"run", newKey(), "--", "nosuchcommand"}, 127, "there is no such command"},
		"no such path":          {url, []string{"run", newKey(), "--", "/nosuchcommand"}, 127, "there is no such command"},
		"not found, while held": {url, []string{"run", busy, "--", "nosuchcommand"}, 127, "there is no such command"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, test.url, test.args)
			p.exits(test.want)
			if got := p.said(); !strings.Contains(got, test.says) || test.says == "" && got != "" {
				t.Errorf("stderr is %q, want %q in it", got, test.says)
			}
			if got := p.said(); strings.Count(got, "\n") > 1 || strings.Contains(got, "lockstep: lockstep:") {
				t.Errorf("stderr is not one line:\n%s", got)
			}
			if line, ok := <-p.lines; ok {
				t.Errorf("the command ran: %q", line)
			}
		})
	}
	if !held(t, redistest.Single(t), busy) {
		t.Error("the holder has lost its lock meanwhile")
	}
}

func TestConfigFlag(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "locks.json")
	text := fmt.Sprintf(`{"type": "redis", "ttl": "30s", "backend": {"addrs": [%q]}}`, redistest.Single(t).Addr())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	key := newKey()
	p := start(t, "redis://127.0.0.1:1", append([]string{"--config", file}, sh(key, "echo; read x")...), func(c *exec.Cmd) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		c.Stdin = r
	})
	p.line()
	// The ttl of the file counts.
	owner, err := redistest.Single(t).Do(t, "GET", lockOf(key)).ToString()
	if err != nil || !strings.HasPrefix(owner, "lease:") {
		t.Errorf("the lock is %q, %v; want a lease", owner, err)
	}
	p.signal(syscall.SIGTERM)
	p.dies(syscall.SIGTERM)
}

func TestExclusion(t *testing.T) {
	t.Parallel()
	url, key := redisURL(t), newKey()
	file := filepath.Join(t.TempDir(), "inside")
	var all []*process
	for range 8 {
		// mkdir fails if another is inside.
		all = append(all, start(t, url, sh(key, "mkdir "+file+" || exit 9; echo $LOCKSTEP_TOKEN; rmdir "+file)))
	}
	seen := map[string]bool{}
	for _, p := range all {
		p.exits(0)
		seen[p.line()] = true
	}
	if len(seen) != len(all) {
		t.Errorf("%d processes had %d tokens", len(all), len(seen))
	}
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	url, key := redisURL(t), newKey()
	last := uint64(0)
	for range 2 {
		p := start(t, url, sh(key, `echo "$LOCKSTEP_KEY"; echo "$LOCKSTEP_TOKEN"; echo "$MINE"`), setenv("MINE=x"))
		if got := p.line(); got != key {
			t.Errorf("LOCKSTEP_KEY is %q, want %q", got, key)
		}
		token, err := strconv.ParseUint(p.line(), 10, 64)
		if err != nil || token <= last {
			t.Errorf("LOCKSTEP_TOKEN is %d, %v; want one above %d", token, err, last)
		}
		last = token
		if got := p.line(); got != "x" {
			t.Errorf("the environment is not passed on: %q", got)
		}
		p.exits(0)
	}
}

// One lockstep within another: the command sees the inner one's.
func TestNested(t *testing.T) {
	t.Parallel()
	url, outer, inner := redisURL(t), newKey(), newKey()
	// printenv shows a variable as often as it is there; a shell would keep the last of them.
	within := []string{"run", outer, "--once-per", "a", "--", program, "run", inner, "--"}
	p := start(t, url, append(within, "printenv", "LOCKSTEP_KEY"))
	if got := p.line(); got != inner {
		t.Errorf("LOCKSTEP_KEY is %q, want %q", got, inner)
	}
	if line, ok := <-p.lines; ok {
		t.Errorf("LOCKSTEP_KEY is there twice, also as %q", line)
	}
	p.exits(0)
	// The inner one has no slot, and the outer one's is not taken for it.
	p = start(t, url, []string{"run", outer, "--once-per", "b", "--", program, "run", inner, "--", "printenv", "LOCKSTEP_SLOT"})
	p.exits(1)
}

func TestStdin(t *testing.T) {
	t.Parallel()
	p := start(t, redisURL(t), []string{"run", newKey(), "--", "tr", "a-z", "A-Z"}, stdin("one\ntwo\n"))
	if a, b := p.line(), p.line(); a != "ONE" || b != "TWO" {
		t.Errorf("got %q, %q", a, b)
	}
	p.exits(0)
}

// Every signal reaches the command and what it has started.
func TestSignalsReachTheGroup(t *testing.T) {
	t.Parallel()
	url := redisURL(t)
	for sig, name := range map[syscall.Signal]string{
		syscall.SIGHUP: "HUP", syscall.SIGINT: "INT", syscall.SIGQUIT: "QUIT", syscall.SIGTERM: "TERM", syscall.SIGUSR1: "USR1", syscall.SIGUSR2: "USR2",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := newKey()
			// Not sh's &: it has its jobs ignore SIGINT and SIGQUIT.
			inner := `trap "echo inner; exit 0" ` + name + `; echo ready; while :; do sleep 0.02; done`
			p := start(t, url, []string{"run", key, "--", "sh", "-c", `trap "echo outer" ` + name + `; sh -c '` + inner + `'; exit 5`})
			if got := p.line(); got != "ready" {
				t.Fatalf("got %q", got)
			}
			p.signal(sig)
			got := map[string]bool{p.line(): true, p.line(): true}
			if !got["inner"] || !got["outer"] {
				t.Errorf("the group heard %v", got)
			}
			p.exits(5)
			if held(t, redistest.Single(t), key) {
				t.Error("the lock is still held")
			}
		})
	}
}

// A command that a signal ends makes lockstep end by the same signal, where that is possible.
func TestSignalEndsCommand(t *testing.T) {
	t.Parallel()
	url := redisURL(t)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} {
		p := start(t, url, []string{"run", newKey(), "--", "sh", "-c", "echo; exec sleep 60"})
		p.line()
		p.signal(sig)
		p.dies(sig)
	}
	p := start(t, url, []string{"run", newKey(), "--", "sh", "-c", "echo; ulimit -c 0; exec sleep 60"})
	p.line()
	p.signal(syscall.SIGQUIT)
	p.exits(128 + int(syscall.SIGQUIT))
	if strings.Contains(p.said(), "goroutine") {
		t.Errorf("SIGQUIT made lockstep print its stacks:\n%s", p.said())
	}
}

// A signal ends the waiting, and nothing is left of it.
func TestSignalWhileWaiting(t *testing.T) {
	t.Parallel()
	url, srv := redisURL(t), redistest.Single(t)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT} {
		key := newKey()
		holder := start(t, url, sh(key, "echo; exec sleep 60"))
		holder.line()
		p := start(t, url, sh(key, "echo ran"))
		p.hears("waiting for")
		p.signal(syscall.SIGUSR1) // is for a command, and there is none
		p.signal(sig)
		if sig == syscall.SIGQUIT {
			p.exits(128 + int(sig))
		} else {
			p.dies(sig)
		}
		if line, ok := <-p.lines; ok {
			t.Errorf("%s: the command ran: %q", sig, line)
		}
		holder.signal(syscall.SIGTERM)
		holder.dies(syscall.SIGTERM)
		if held(t, srv, key) {
			t.Errorf("%s: the lock has gone to one who waits no more", sig)
		}
	}
}

// A signal that comes while the store is being reached ends it too.
func TestSignalWhileOpening(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	srv.Pause(t)
	p := start(t, srv.URL()+"?openWait=1h", sh(newKey(), "echo ran"))
	time.Sleep(300 * time.Millisecond) // nothing tells that it is dialling
	p.signal(syscall.SIGTERM)
	p.dies(syscall.SIGTERM)
}

func TestSignalsThatAreIgnored(t *testing.T) {
	t.Parallel()
	var stdin *os.File
	p := start(t, redisURL(t), nil, func(c *exec.Cmd) {
		nohup, err := exec.LookPath("nohup")
		if err != nil {
			t.Fatal(err)
		}
		c.Path, c.Args = nohup, []string{"nohup", program, "run", newKey(), "--", "sh", "-c", "echo; kill -HUP $$; read x; echo still"}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		c.Stdin, stdin = r, w
	})
	p.line()
	p.signal(syscall.SIGHUP)
	stdin.Close()
	if got := p.line(); got != "still" {
		t.Errorf("got %q", got)
	}
	p.exits(0)
}

// A reader of lockstep's stderr who goes away ends nothing.
func TestBrokenStderr(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	p := start(t, srv.URL(), sh(key, "exec 2>/dev/null; trap 'echo term; exit 0' TERM; echo; while :; do sleep 0.02; done"), func(c *exec.Cmd) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		t.Cleanup(func() { w.Close() })
		c.Stderr = w
	})
	p.line()
	srv.Do(t, "DEL", lockOf(key))
	if got := p.line(); got != "term" {
		t.Errorf("got %q", got)
	}
	p.exits(120)
}

// The loss is heard of at once, not at the next renewal: the validity is an hour.
func TestLoss(t *testing.T) {
	t.Parallel()
	srv := redistest.Single(t)
	for name, flags := range map[string][]string{"session": nil, "lease": {"--ttl", "1h"}} {
		t.Run(name, func(t *testing.T) {
			key := newKey()
			p := start(t, srv.URL()+"?validity=1h", sh(key, "trap 'echo term; exit 3' TERM; echo; while :; do sleep 0.02; done", flags...))
			p.line()
			began := time.Now()
			srv.Do(t, "DEL", lockOf(key))
			if got := p.line(); got != "term" {
				t.Errorf("got %q", got)
			}
			t.Logf("SIGTERM came %s after the lock was deleted", time.Since(began))
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("that is not at once")
			}
			p.exits(120)
			p.hears(key)
		})
	}
}

// Who holds it now is not disturbed by the end of one who has lost it.
func TestLossToAnother(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	p := start(t, srv.URL(), sh(key, "trap 'exit 3' TERM; echo; while :; do sleep 0.02; done"))
	p.line()
	srv.Do(t, "SET", lockOf(key), "maintenance")
	p.exits(120)
	if got, err := srv.Do(t, "GET", lockOf(key)).ToString(); err != nil || got != "maintenance" {
		t.Errorf("the lock is %q, %v", got, err)
	}
	srv.Do(t, "DEL", lockOf(key))
}

// A command, and its children, that do not heed SIGTERM are killed after the grace, and not before.
func TestLossOfWhoIgnoresSIGTERM(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	const grace = 700 * time.Millisecond
	p := start(t, srv.URL(), sh(key, "trap '' TERM; sleep 61 & echo $!; echo $$; wait; sleep 62", "--grace", grace.String()))
	inner, outer := p.number(), p.number()
	began := time.Now()
	srv.Do(t, "DEL", lockOf(key))
	p.exits(120)
	if took := time.Since(began); took < grace {
		t.Errorf("it was killed after %s", took)
	}
	if alive(inner) || alive(outer) {
		t.Errorf("processes of the command go on: %v, %v", alive(inner), alive(outer))
	}
	p.hears("SIGKILL")
}

// A command that ends by itself at the loss may leave children that do not: they are killed too.
func TestLossOfGrandchildren(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	p := start(t, srv.URL(), sh(key, "(trap '' TERM; exec sleep 63) & echo $!; echo $$; exec sleep 64", "--grace", "300ms"))
	inner, outer := p.number(), p.number()
	srv.Do(t, "DEL", lockOf(key))
	p.exits(120)
	if alive(inner) || alive(outer) {
		t.Errorf("processes of the command go on: %v, %v", alive(inner), alive(outer))
	}
}

// A stopped command does not hear SIGTERM unless it is continued.
func TestLossOfAStoppedCommand(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	p := start(t, srv.URL(), sh(key, "trap 'echo term; exit 3' TERM; echo $$; while :; do sleep 0.02; done", "--grace", "1h"))
	pid := p.number()
	if err := syscall.Kill(-pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "the lock is kept while the command is stopped", func() bool { return held(t, srv, key) })
	srv.Do(t, "DEL", lockOf(key))
	if got := p.line(); got != "term" {
		t.Errorf("got %q", got)
	}
	p.exits(120)
}

// A store that falls silent takes the lock away when its time is up.
func TestLossOfTheStore(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{"session": nil, "lease": {"--ttl", "700ms"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t)
			p := start(t, srv.URL()+"?validity=700ms", sh(newKey(), "trap 'echo term; exit 3' TERM; echo; while :; do sleep 0.02; done", flags...))
			p.line()
			srv.Pause(t)
			if got := p.line(); got != "term" {
				t.Errorf("got %q", got)
			}
			p.exits(120)
		})
	}
}

func TestKeptLease(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	p := start(t, srv.URL(), sh(key, "sleep 4.5; echo", "--ttl", "2s"))
	p.line()
	p.exits(0)
	if held(t, srv, key) {
		t.Error("it is still held")
	}
	if p.said() != "" {
		t.Errorf("stderr is %q", p.said())
	}
}

// What a store that cannot be reached means, before the command is started and after.
func TestStoreUnavailable(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Start(t), newKey()
	holder := start(t, srv.URL(), sh(key, "echo; exec sleep 60"))
	holder.line()
	waiter := start(t, srv.URL()+"?timeout=200ms", sh(key, "echo ran", "--wait", "4s"))
	waiter.hears("waiting for")
	srv.Pause(t)
	waiter.exits(122)
	start(t, srv.URL()+"?dialTimeout=200ms&timeout=200ms", sh(key, "echo ran", "--no-wait")).exits(122)
	srv.Resume(t)

	// A command that ends while the store is silent has ended, whatever becomes of the lock.
	key = newKey()
	var stdin *os.File
	p := start(t, srv.URL()+"?validity=30s&timeout=2s", sh(key, "echo; read x; exit 4"), func(c *exec.Cmd) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		c.Stdin, stdin = r, w
	})
	p.line()
	srv.Pause(t)
	stdin.Close()
	p.exits(4)
	p.hears("was not released, but ends by itself")
}

// SIGKILL of lockstep: the kernel takes the command with it, on Linux, though not what the command
// has started, and the store frees the lock in its time.
func TestSIGKILL(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells the command that lockstep died; elsewhere it goes on, as the docs say")
	}
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	p := start(t, srv.URL()+"?validity=1s", sh(key, "sleep 65 >/dev/null 2>&1 & echo $!; echo $$; trap '' TERM; wait"))
	inner, outer := p.number(), p.number()
	p.signal(syscall.SIGKILL)
	p.dies(syscall.SIGKILL)
	until(t, "the command is dead", func() bool { return !alive(outer) })
	if !alive(inner) {
		t.Error("what the command has started is dead too: the docs say that it is not")
	}
	_ = syscall.Kill(inner, syscall.SIGKILL)
	until(t, "the lock is free", func() bool { return !held(t, srv, key) })
}

// The lock is not given away while those who were asked to end are still about it.
func TestReleaseAfterTheGroup(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	var atWork *os.File
	p := start(t, srv.URL(), sh(key, `
		sh -c 'trap "echo cleaning; read x </proc/self/fd/3; exit 0" TERM; echo ready; while :; do sleep 0.02; done' &
		trap "exit 0" TERM; while :; do sleep 0.02; done`), func(c *exec.Cmd) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		c.ExtraFiles, atWork = []*os.File{r}, w
	})
	p.line()
	p.signal(syscall.SIGTERM)
	if got := p.line(); got != "cleaning" {
		t.Fatalf("got %q", got)
	}
	if !held(t, srv, key) {
		t.Error("the lock is free while the command's child is still at work")
	}
	atWork.Close()
	p.exits(0)
	if held(t, srv, key) {
		t.Error("the lock is held after the end")
	}
}

// What a command leaves behind by itself is not waited for, and is told of.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	srv, key := redistest.Single(t), newKey()
	p := start(t, srv.URL(), sh(key, "sleep 66 >/dev/null 2>&1 & echo $!"))
	pid := p.number()
	p.exits(0)
	p.hears("left processes behind")
	if !alive(pid) || held(t, srv, key) {
		t.Errorf("alive: %v, held: %v", alive(pid), held(t, srv, key))
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

func TestProgress(t *testing.T) {
	t.Parallel()
	url, key := redisURL(t), newKey()+"\x1b[31m"
	holder := start(t, url, sh(key, "echo; exec sleep 60"))
	holder.line()
	p := start(t, url, sh(key, "echo ran"))
	p.hears("waiting for")
	p.hears("held by")
	if strings.Contains(p.said(), "\x1b") {
		t.Errorf("stderr has an escape sequence: %q", p.said())
	}
	quiet := start(t, url, sh(key, "echo ran", "-q", "--wait", "1500ms"))
	quiet.exits(121)
	if quiet.said() != "" {
		t.Errorf("-q says %q", quiet.said())
	}
	holder.signal(syscall.SIGTERM)
	if got := p.line(); got != "ran" {
		t.Errorf("got %q", got)
	}
	p.exits(0)
}

func TestOncePer(t *testing.T) {
	t.Parallel()
	url := redisURL(t)
	t.Run("once of many", func(t *testing.T) {
		key := newKey()
		file := filepath.Join(t.TempDir(), "runs")
		var wg sync.WaitGroup
		for range 6 {
			p := start(t, url, sh(key, "echo x >>"+file+"; sleep 0.3", "--once-per", "2026-11-25"))
			wg.Go(func() { p.exits(0) })
		}
		wg.Wait()
		p := start(t, url, sh(key, "echo x >>"+file, "--once-per", "2026-11-25", "--skipped", "77"))
		p.exits(77)
		p.hears("has been done")
		start(t, url, sh(key, `echo "$LOCKSTEP_SLOT" >>`+file, "--once-per", "2026-11-26")).exits(0)
		if got, err := os.ReadFile(file); string(got) != "x\n2026-11-26\n" {
			t.Errorf("it ran as %q, %v", got, err)
		}
	})
	t.Run("failed is not done", func(t *testing.T) {
		key := newKey()
		start(t, url, sh(key, "exit 3", "--once-per", "a")).exits(3)
		p := start(t, url, sh(key, "echo again", "--once-per", "a"))
		p.line()
		p.exits(0)
	})
	t.Run("at least", func(t *testing.T) {
		key := newKey()
		start(t, url, sh(key, "", "--once-per", "a", "--at-least", "5s")).exits(0)
		start(t, url, sh(key, "echo", "--once-per", "a", "--skipped", "9")).exits(9)
		until(t, "it can be done again", func() bool {
			p := start(t, url, sh(key, "echo again", "--once-per", "a"))
			p.exits(0)
			_, ok := <-p.lines
			return ok
		})
	})
	t.Run("running", func(t *testing.T) {
		key := newKey()
		p := start(t, url, sh(key, "echo; exec sleep 60", "--once-per", "a"))
		p.line()
		other := start(t, url, sh(key, "echo ran", "--once-per", "a", "--skipped", "9"))
		other.exits(9)
		other.hears("by another")
		p.signal(syscall.SIGTERM)
		p.dies(syscall.SIGTERM)
		// What a signal ended is not done.
		again := start(t, url, sh(key, "echo again", "--once-per", "a"))
		again.line()
		again.exits(0)
	})
	t.Run("lost", func(t *testing.T) {
		srv, key := redistest.Single(t), newKey()
		p := start(t, url, sh(key, "trap 'exit 0' TERM; echo; while :; do sleep 0.02; done", "--once-per", "a"))
		p.line()
		srv.Do(t, "DEL", lockOf(fmt.Sprintf("once-run/%d/%s/a", len(key), key)))
		p.exits(120)
	})
}
