package scaffold

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/internal/packaging"
)

// An edit is what an author does to one place of the module. The old text must be there
// exactly once, so that a template that has moved on is noticed.
type edit struct{ file, old, new string }

// prepared is what makes the suite of the module quick: a store in memory, a new one for each
// case, and virtual time.
var prepared = []edit{
	{"backend.go", "\tconfig Config // whole and checked\n", "\tconfig Config // whole and checked\n\tstore *store\n\tsessions sessions\n"},
	{"backend.go", "b := &backend{config: c}\n", "b := &backend{config: c, store: connect(c.Addr)}\n\tb.sessions.timers = map[driver.Owner]*time.Timer{}\n"},
	{"proof/proof_test.go", "\t\tconformance.Parallel(),", "\t\tconformance.Synctest(),"},
	{"proof/proof_test.go", "\treturn \"localhost:7000\"\n", "\treturn fmt.Sprintf(\"localhost:%d\", stores.Add(1))\n"},
	{"proof/proof_test.go", "// startStore", "var stores atomic.Int32\n\n// startStore"},
	{"proof/proof_test.go", "import (\n", "import (\n\t\"fmt\"\n\t\"sync/atomic\"\n"},
}

// written is what an author writes, in this order.
var written = []struct {
	what  string
	edits []edit
}{
	{"Acquire (backend.go)", []edit{
		{"backend.go", "\t\t_ = life\n\t\treturn unwritten(\"Acquire\")\n", "\t\tvar err error\n\t\ttoken, err = b.store.acquire(r.Key, r.Owner, life)\n\t\treturn err\n"},
	}},
	{"Release (backend.go)", []edit{
		{"backend.go", "return unwritten(\"Release\")", "return b.store.release(h)"},
	}},
	{"Extend (backend.go)", []edit{
		{"backend.go", "return unwritten(\"Extend\")", "return b.store.extend(h, ttl)"},
	}},
	{"keep and forget, for sessions (session.go)", []edit{
		{"session.go", "return unwritten(\"keep\")", "return b.renew(driver.Holder{Key: r.Key, Owner: r.Owner, Token: token, Session: true}, r.Hold)"},
		{"session.go", "forget(driver.Owner) {\n\t// TODO\n", "forget(owner driver.Owner) {\n\tb.sessions.mu.Lock()\n\tdefer b.sessions.mu.Unlock()\n\tb.forgetLocked(owner)\n"},
		{"backend.go", "\tb.close()\n", "\tb.close()\n\tb.endSessions()\n"},
	}},
	{"driver.Notifier, or polling is accepted: conformance.Known", []edit{
		{"backend.go", "var _ driver.Backend = (*backend)(nil)\n", "var _ driver.Notifier = (*backend)(nil)\n\nfunc (b *backend) Notify(key string, wake func()) (stop func()) { return b.store.notify(key, wake) }\n"},
	}},
}

// A workshop is a module in which an author works.
type workshop struct{ dir string }

func newWorkshop(t *testing.T) workshop {
	t.Helper()
	root, err := packaging.Root()
	if err != nil {
		t.Fatal(err)
	}
	w := workshop{filepath.Join(t.TempDir(), "etcd")}
	lockgen := exec.CommandContext(t.Context(), "go", "run", "./gen/cmd/lockgen", "backend", "etcd", "-out", w.dir)
	lockgen.Dir = root
	if out, err := lockgen.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	store, err := os.ReadFile(filepath.Join("testdata", "store.go"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "store.go"), store, 0o644); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w workshop) edit(t *testing.T, edits []edit) {
	t.Helper()
	for _, e := range edits {
		name := filepath.Join(w.dir, e.file)
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(data), e.old); n != 1 {
			t.Fatalf("%s has this %d times, and not once:\n%s", e.file, n, e.old)
		}
		if err := os.WriteFile(name, []byte(strings.Replace(string(data), e.old, e.new, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// failing are the cases that fail in the module as it is.
func (w workshop) failing(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-v", "-vet=off", ".")
	cmd.Dir = filepath.Join(w.dir, "proof")
	cmd.Env = append(os.Environ(), "GOWORK=off", "PWD="+cmd.Dir)
	out, err := cmd.CombinedOutput()
	ids := failedCases(string(out))
	if (err == nil) != (len(ids) == 0) {
		t.Fatalf("%v\n%s", err, out)
	}
	return ids
}

// TestSteps writes one step after the other: each lets more cases pass and no other one fail,
// with the last all pass, and the record says so.
func TestSteps(t *testing.T) {
	w := newWorkshop(t)
	w.edit(t, prepared)
	var list strings.Builder
	before := w.failing(t)
	for _, step := range written {
		w.edit(t, step.edits)
		after := w.failing(t)
		// One that had parts which failed was not listed itself.
		known := slices.DeleteFunc(slices.Clone(after), func(id string) bool {
			return slices.ContainsFunc(before, func(b string) bool { return strings.HasPrefix(b, id+"/") })
		})
		if broken := compare(before, slices.Concat(before, known)); broken != "" {
			t.Errorf("with %s written, %s", step.what, broken)
		}
		passing := slices.DeleteFunc(before, func(id string) bool { return slices.Contains(after, id) })
		if len(passing) == 0 {
			t.Errorf("with %s written, nothing changes", step.what)
		}
		fmt.Fprintf(&list, "# %s\n%s\n", step.what, strings.Join(passing, "\n"))
		before = after
	}
	if len(before) > 0 {
		t.Errorf("with everything written, these fail: %v", before)
	}

	root, err := packaging.Root()
	if err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(root, "gen", "internal", "scaffold", "unwritten.txt")
	if *update && !t.Failed() {
		if err := os.WriteFile(record, []byte(list.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(record); err != nil || string(data) != list.String() {
		t.Errorf("%s is stale (%v); write it with -update. It should be\n%s", record, err, list.String())
	}
}
