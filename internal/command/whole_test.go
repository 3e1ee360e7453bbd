//go:build unix

package command

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/internal/redistest"
)

func TestBench(t *testing.T) {
	t.Parallel()
	url := redistest.Start(t).URL()
	out := output(t, url, 0, "bench", "--time", "20ms", "--json")
	var tasks []string
	for line := range strings.Lines(out) {
		var m struct {
			Task, Operation       string
			Count, NsPerOp, Least int
			PerSecond, RoundTrips float64
		}
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&m); err != nil || m.Count == 0 || m.NsPerOp == 0 || m.PerSecond == 0 || m.RoundTrips == 0 || m.Operation == "" {
			t.Errorf("%v in %s", err, line)
		}
		tasks = append(tasks, m.Task)
	}
	if want := []string{"lease", "session", "parallel", "contended/client", "contended/peer"}; !slices.Equal(tasks, want) {
		t.Errorf("got %q, want %q", tasks, want)
	}
	if out := output(t, url, 0, "bench", "--time", "20ms"); !strings.Contains(out, "a bare round trip") || !strings.Contains(out, "(at least 2)") {
		t.Errorf("got\n%s", out)
	}
	output(t, url, 123, "bench", "--time", "1ms")
	output(t, "redis://127.0.0.1:1", 122, "bench")
}

// Shells accept what completion prints, and offer keys that are held.
func TestCompletion(t *testing.T) {
	t.Parallel()
	url, key := redisURL(t), newKey()
	for _, name := range []string{"bash", "zsh", "fish"} {
		script := output(t, "", 0, "completion", name)
		shell, err := exec.LookPath(name)
		if err != nil {
			t.Logf("%s is not installed: its script is not looked at by itself", name)
			continue
		}
		check := exec.Command(shell, "-n")
		check.Stdin = strings.NewReader(script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	p := start(t, url, sh(key, "echo; exec sleep 60"))
	p.line()
	for _, command := range []string{"inspect", "break", "watch", "ls"} {
		if out := output(t, url, 0, "__complete", command, key[:len(key)-1]); !strings.Contains(out, key+"\t") {
			t.Errorf("%s: got %q", command, out)
		}
	}
	// A store that is not there offers nothing, and complains of nothing.
	if out := output(t, "redis://127.0.0.1:1", 0, "__complete", "inspect", ""); strings.TrimSpace(out) != ":4" {
		t.Errorf("got %q", out)
	}
}

// The man pages in docs are those of the program; make generate writes them.
func TestManPages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	output(t, "", 0, "man", dir)
	fresh, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(fresh) < 8 {
		t.Fatalf("%d pages, %v", len(fresh), err)
	}
	old, err := filepath.Glob("../../docs/man/*")
	if err != nil || len(old) != len(fresh) {
		t.Errorf("docs/man has %d pages, and there are %d: make generate", len(old), len(fresh))
	}
	for _, name := range fresh {
		is, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		was, err := os.ReadFile(filepath.Join("../../docs/man", filepath.Base(name)))
		if err != nil || string(was) != string(is) {
			t.Errorf("docs/man/%s is stale, %v: make generate", filepath.Base(name), err)
		}
	}
}

// Every command explains itself with examples, and the page on the command has every command, flag
// and exit code.
func TestHelpAndPage(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/command.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	commands := regexp.MustCompile(`(?m)^  ([a-z]+) +[A-Z]`).FindAllStringSubmatch(output(t, "", 0, "--help"), -1)
	if len(commands) < 9 {
		t.Fatalf("only %d commands", len(commands))
	}
	for _, m := range commands {
		name := m[1]
		if name == "help" || name == "completion" {
			continue
		}
		help := output(t, "", 0, name, "--help")
		if !strings.Contains(help, "Examples:\n  lockstep "+name) {
			t.Errorf("the help of %s has no example", name)
		}
		if !strings.Contains(page, "lockstep "+name) {
			t.Errorf("docs/command.md has no %s", name)
		}
		for _, flag := range regexp.MustCompile(`(?m)^ +(?:-., )?(--[a-z-]+)`).FindAllStringSubmatch(help, -1) {
			if flag[1] != "--help" && !strings.Contains(page, "`"+flag[1]) {
				t.Errorf("docs/command.md has no %s of %s", flag[1], name)
			}
		}
		for _, code := range regexp.MustCompile(`(?m)^ +(\d+)  `).FindAllStringSubmatch(help, -1) {
			if !strings.Contains(page, "| "+code[1]+" |") {
				t.Errorf("docs/command.md has no exit code %s, of %s", code[1], name)
			}
		}
	}
}
