//go:build unix

package command

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lockstep-go/lockstep/internal/redistest"
)

// hold is what the --json of ls, inspect and watch has: the documented fields, by their documented
// names.
type hold struct {
	Event       string    `json:"event"`
	Time        time.Time `json:"time"`
	Key         string    `json:"key"`
	KeyBytes    []byte    `json:"keyBytes"`
	Held        bool      `json:"held"`
	Kind        string    `json:"kind"`
	Identity    string    `json:"identity"`
	Note        string    `json:"note"`
	Owner       string    `json:"owner"`
	Token       uint64    `json:"token"`
	Since       time.Time `json:"since"`
	RemainingMS int64     `json:"remainingMs"`
	Waiters     int       `json:"waiters"`
}

func (p *process) hold() (h hold) {
	p.t.Helper()
	line := p.line()
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		p.t.Fatalf("%v in %s", err, line)
	}
	return h
}

// output is what a lockstep prints that ends with code.
func output(t *testing.T, url string, code int, args ...string) string {
	t.Helper()
	lookedAt()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LOCKSTEP_CONFIG="+url)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, _ := cmd.Output()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("lockstep %q: exit code %d, want %d; stderr:\n%s", args, got, code, errs.String())
	}
	return string(out)
}

func inspect(t *testing.T, url string, code int, key string) (h hold) {
	t.Helper()
	out := output(t, url, code, "inspect", key, "--json")
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return h
}

func TestInspect(t *testing.T) {
	t.Parallel()
	url, key := redisURL(t), newKey()
	if h := inspect(t, url, 1, key); h.Held || h.Key != key {
		t.Errorf("a free key: %+v", h)
	}
	if out := output(t, url, 1, "inspect", key); !strings.Contains(out, "is free") {
		t.Errorf("got %q", out)
	}
	p := start(t, url, sh(key, "echo $LOCKSTEP_TOKEN; exec sleep 60", "--ttl", "30s", "--note", "why"))
	token := p.line()
	h := inspect(t, url, 0, key)
	host, _ := os.Hostname()
	if !h.Held || h.Kind != "lease" || h.Note != "why" || fmt.Sprint(h.Token) != token || h.RemainingMS <= 0 || h.RemainingMS > 30_000 ||
		h.Identity != fmt.Sprintf("%s:%d lockstep", host, p.cmd.Process.Pid) || time.Since(h.Since).Abs() > patience || h.Waiters != 0 {
		t.Errorf("got %+v", h)
	}
	out := output(t, url, 0, "inspect", key)
	for _, want := range []string{"key        " + key, "note       why", "kind       lease", "token      " + token} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
	// Who waits is counted, and is told of by whom.
	waiter := start(t, url, sh(key, ""))
	waiter.hears(`lockstep" ("why")`)
	until(t, "the waiter is counted", func() bool { return inspect(t, url, 0, key).Waiters == 1 })

	// The note is the command's name, without what may be a secret, and the slot's holder has one too.
	other := newKey()
	q := start(t, url, sh(other, "echo; exec sleep 60", "--once-per", "a"))
	q.line()
	if h := inspect(t, url, 0, fmt.Sprintf("once/%d/%s/a", len(other), other)); h.Note != "sh" {
		t.Errorf("the note is %q", h.Note)
	}
}

// hostile are keys and notes that must not reach a terminal as they are.
const hostile = "\x1b[2J\x07\r\nspoofed \u202e \xff\xfe"

func TestList(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	url := srv.URL()
	if out := output(t, url, 0, "ls"); strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "KEY") {
		t.Errorf("with nothing held: %q", out)
	}
	if out := output(t, url, 0, "ls", "--json"); out != "" {
		t.Errorf("with nothing held: %q", out)
	}
	for _, key := range []string{"b/2", "b/1", "a/1", hostile} {
		start(t, url, sh(key, "echo; exec sleep 60", "--note", "note "+hostile)).line()
	}
	out := output(t, url, 0, "ls", "b/")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[1], "b/1 ") || !strings.HasPrefix(lines[2], "b/2 ") {
		t.Errorf("ls b/ is\n%s", out)
	}
	for _, args := range [][]string{{"ls"}, {"ls", "--json"}, {"inspect", hostile}, {"inspect", hostile, "--json"}} {
		out := output(t, url, 0, args...)
		if strings.ContainsAny(out, "\x1b\x07\r\u202e") || !utf8.ValidString(out) {
			t.Errorf("%q lets bytes through that a terminal carries out: %q", args, out)
		}
	}
	// In JSON nothing is lost.
	if h := inspect(t, url, 0, hostile); string(h.KeyBytes) != hostile {
		t.Errorf("the key is %q", h.KeyBytes)
	}
	seen := 0
	for d := json.NewDecoder(strings.NewReader(output(t, url, 0, "ls", "--json"))); ; seen++ {
		var h hold
		if err := d.Decode(&h); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !h.Held || h.Token == 0 || h.Kind != "session" {
			t.Errorf("got %+v", h)
		}
	}
	if seen != 4 {
		t.Errorf("%d holds, want 4", seen)
	}
}

func TestBreak(t *testing.T) {
	t.Parallel()
	url, key := redisURL(t), newKey()
	p := start(t, url, sh(key, "trap 'echo term; exit 0' TERM; echo $LOCKSTEP_TOKEN; while :; do sleep 0.02; done", "--note", "nightly job"))
	token := p.line()
	output(t, url, 123, "break", key)                                        // no token
	wrong := start(t, url, []string{"break", key, "--token", "17", "--yes"}) // another one
	wrong.exits(1)
	wrong.hears("nightly job")                                      // who has it
	output(t, url, 1, "break", newKey(), "--token", token, "--yes") // another key
	q := start(t, url, []string{"break", key, "--token", token}, stdin(""))
	q.exits(123)
	q.hears("give --yes")
	q = start(t, url, []string{"break", key, "--token", token}, stdin("n\n"))
	q.exits(1)
	q.hears("nightly job") // whom it hits
	if !inspect(t, url, 0, key).Held {
		t.Error("it was broken all the same")
	}
	q = start(t, url, []string{"break", key, "--token", token}, stdin("y\n"))
	q.exits(0)
	if got := p.line(); got != "term" {
		t.Errorf("got %q", got)
	}
	p.exits(120)
	p.hears("broke")
	inspect(t, url, 1, key)
	output(t, url, 1, "break", key, "--token", token, "--yes") // twice

	p = start(t, url, sh(key, "echo $LOCKSTEP_TOKEN; exec sleep 60"))
	out := output(t, url, 0, "break", key, "--token", p.line(), "--yes", "--json")
	var broken struct{ Broken hold }
	if err := json.Unmarshal([]byte(out), &broken); err != nil || broken.Broken.Note != "sh" {
		t.Errorf("%v in %s", err, out)
	}
	p.exits(120)
}

func TestWatch(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	url := srv.URL() + "?timeout=2s&dialTimeout=2s" // so that those who watch hear soon that it is silent
	one := start(t, srv.URL(), sh("job/1", "echo; exec sleep 60"))
	one.line()
	all := start(t, url, []string{"watch", "--json", "--prefix", "job/", "--interval", "20ms"})
	single := start(t, url, []string{"watch", "job/2", "--interval", "20ms"})
	if h := all.hold(); h.Event != "held" || h.Key != "job/1" || !h.Held || h.Time.IsZero() {
		t.Errorf("at first: %+v", h)
	}
	two := start(t, srv.URL(), sh("job/2", "echo; exec sleep 60", "--note", hostile))
	two.line()
	if h := all.hold(); h.Event != "acquired" || h.Key != "job/2" {
		t.Errorf("then: %+v", h)
	}
	one.signal(syscall.SIGTERM)
	if h := all.hold(); h.Event != "released" || h.Key != "job/1" || h.Held {
		t.Errorf("then: %+v", h)
	}
	if line := single.line(); !strings.Contains(line, " job/2 by ") || strings.ContainsAny(line, "\x1b\r") || !utf8.ValidString(line) {
		t.Errorf("got %q", line)
	}
	// Another holder between two looks is seen by the token.
	srv.Pause(t)
	all.hears("watching on")
	srv.Resume(t)
	all.hears("answers again")
	two.signal(syscall.SIGTERM)
	if h := all.hold(); h.Event != "released" || h.Key != "job/2" {
		t.Errorf("then: %+v", h)
	}
	all.signal(syscall.SIGINT)
	all.dies(syscall.SIGINT)
	start(t, url, []string{"watch", "a", "--prefix", "b"}).exits(123)
	start(t, url, []string{"watch", "--interval", "1ms"}).exits(123)
}

// What several processes share, and nothing else, can be looked at.
func TestAdminOnMemory(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"ls"}, {"inspect", "k"}, {"break", "k", "--token", "1"}, {"watch"}} {
		p := start(t, "memory://", args)
		p.exits(123)
		p.hears("live within one process")
	}
}
