//go:build unix

package command

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	// What the command is made of. Without them go test would take its last result for this one.
	_ "github.com/lockstep-go/lockstep/backends/memory"
	_ "github.com/lockstep-go/lockstep/backends/postgres"
	_ "github.com/lockstep-go/lockstep/backends/redis"
	_ "github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/internal/redistest"
)

// lookedAt has go test know that its result depends on the command's sources.
var lookedAt = sync.OnceFunc(func() {
	names, _ := filepath.Glob("../../cmd/lockstep/*")
	for _, name := range names {
		_, _ = os.ReadFile(name)
	}
})

// program is the command, built once.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "lockstep-command-")
	if err == nil {
		program = filepath.Join(dir, "lockstep")
		build := exec.Command("go", "build", "-o", program, ".")
		build.Dir = filepath.Join("..", "..", "cmd", "lockstep")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "building cmd/lockstep:", err)
		os.Exit(1)
	}
	for _, v := range os.Environ() { // what the machine says of a store is not meant for tests
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "LOCKSTEP_") && !strings.HasPrefix(name, "LOCKSTEP_REDIS_SERVER") && name != "LOCKSTEP_REDIS_URL" {
			os.Unsetenv(name)
		}
	}
	if signal.Ignored(syscall.SIGHUP) {
		// Under nohup: children inherit what is ignored, but not what is caught.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// patience is for what takes milliseconds on an idle machine.
const patience = 20 * time.Second

// process is a lockstep that runs.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of stdout
	gone  chan struct{}

	mu     sync.Mutex
	stderr bytes.Buffer
	news   chan struct{} // stderr has grown
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	p.stderr.Write(b)
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

type change func(*exec.Cmd)

func stdin(text string) change { return func(c *exec.Cmd) { c.Stdin = strings.NewReader(text) } }

func setenv(kv ...string) change { return func(c *exec.Cmd) { c.Env = append(c.Env, kv...) } }

// start starts lockstep with the store that url names.
func start(t *testing.T, url string, args []string, changes ...change) *process {
	t.Helper()
	lookedAt()
	p := &process{t: t, lines: make(chan string, 1000), gone: make(chan struct{}), news: make(chan struct{}, 1)}
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), "LOCKSTEP_CONFIG="+url)
	p.cmd.Stderr = p
	for _, c := range changes {
		c(p.cmd)
	}
	// Not a pipe of package exec's: its Wait would wait for grandchildren that keep it open.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = w
	p.cmd.WaitDelay = patience
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		for s := bufio.NewScanner(r); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
	}()
	go func() {
		_ = p.cmd.Wait()
		close(p.gone)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.gone
		r.Close()
	})
	return p
}

// line is the next line of the command's stdout.
func (p *process) line() string {
	p.t.Helper()
	select {
	case l, ok := <-p.lines:
		if !ok {
			p.t.Fatalf("stdout has ended; stderr:\n%s", p.said())
		}
		return l
	case <-time.After(patience):
		p.t.Fatalf("no line in %s; stderr:\n%s", patience, p.said())
	}
	return ""
}

// number is the next line, a process number.
func (p *process) number() int {
	p.t.Helper()
	n, err := strconv.Atoi(p.line())
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// hears waits until stderr has text.
func (p *process) hears(text string) {
	p.t.Helper()
	for end := time.After(patience); !strings.Contains(p.said(), text); {
		select {
		case <-p.news:
		case <-end:
			p.t.Fatalf("stderr has no %q:\n%s", text, p.said())
		}
	}
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// wait returns how it ended.
func (p *process) wait() syscall.WaitStatus {
	p.t.Helper()
	select {
	case <-p.gone:
	case <-time.After(patience):
		p.t.Fatalf("it has not ended in %s; stderr:\n%s", patience, p.said())
	}
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// exits checks the exit code.
func (p *process) exits(want int) {
	p.t.Helper()
	if got := p.wait(); !got.Exited() || got.ExitStatus() != want {
		p.t.Fatalf("it ended with %s, want exit code %d; stderr:\n%s", p.cmd.ProcessState, want, p.said())
	}
}

// dies checks that a signal ended it.
func (p *process) dies(want syscall.Signal) {
	p.t.Helper()
	if got := p.wait(); !got.Signaled() || got.Signal() != want {
		p.t.Fatalf("it ended with %s, want the signal %s; stderr:\n%s", p.cmd.ProcessState, want, p.said())
	}
}

// sh are the arguments of a run of a shell script under key, with flags.
func sh(key, script string, flags ...string) []string {
	return append(append([]string{"run", key}, flags...), "--", "sh", "-c", script)
}

var keys struct {
	mu sync.Mutex
	n  int
}

// newKey is one that no other test uses.
func newKey() string {
	keys.mu.Lock()
	defer keys.mu.Unlock()
	keys.n++
	return fmt.Sprintf("command/%d/%d", os.Getpid(), keys.n)
}

func redisURL(t *testing.T) string { return redistest.Single(t).URL() }

// lockOf is the Redis key of a lock.
func lockOf(key string) string { return "lockstep:0:{:" + key + "}" }

// held says whether somebody holds the key.
func held(t *testing.T, srv *redistest.Server, key string) bool {
	t.Helper()
	n, err := srv.Do(t, "EXISTS", lockOf(key)).AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

// until polls for what no event tells.
func until(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !check(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %s: %s", patience, what)
		}
	}
}

// alive says whether the process is there, and no zombie.
func alive(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	out, err := exec.CommandContext(context.Background(), "ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}
