package scaffold

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"

	_ "github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/packaging"
	"github.com/lockstep-go/lockstep/locker"
)

var update = flag.Bool("update", false, "write the list of the failing cases")

const (
	prefix = "github.com/lockstep-go/lockstep"
	// release is a version that will not be tagged.
	release = "v0.999.0"
)

// TestModule makes a module with a released lockgen, and runs the suite in it.
func TestModule(t *testing.T) {
	app := released(t)
	goIn := func(args ...string) string {
		t.Helper()
		out, err := app.Go(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	told := goIn("run", prefix+"/gen/cmd/lockgen@"+release, "backend", "etcd", "-out", "etcd")
	app.Offline()

	for _, folder := range []string{"etcd", "etcd/proof"} {
		goIn("-C", folder, "build", "./...")
		goIn("-C", folder, "vet", "./...")
	}
	goIn("-C", "etcd", "test", "./...")
	for _, name := range []string{"etcd/go.mod", "etcd/proof/go.mod"} {
		data, err := os.ReadFile(filepath.Join(app.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "replace "+prefix) || !strings.Contains(string(data), prefix+"/locker "+release) {
			t.Errorf("%s does not require the release as it is:\n%s", name, data)
		}
	}
	if got, want := goIn("-C", "etcd", "list", "-m", "all"), "example.com/locks/etcd\n"+prefix+"/locker "+release+"\n"; got != want {
		t.Errorf("who gets the module gets\n%swant\n%s", got, want)
	}

	_, err := app.Go(t.Context(), "-C", "etcd/proof", "test", "-count=1", "-v", "-parallel=8", ".")
	if err == nil {
		t.Fatal("the suite passes on a backend that does nothing")
	}
	failed, listed := failedCases(err.Error()), listedCases(told)
	if diff := compare(listed, failed); diff != "" {
		t.Errorf("%sthe list is %v\nand the suite said\n%v", diff, listed, err)
	}
	readme, err := os.ReadFile(filepath.Join(app.Dir, "etcd", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := compare(listed, listedCases(string(readme))); diff != "" {
		t.Errorf("README.md has another list: %s", diff)
	}

	// The controls: one id too few, and one too many.
	if diff := compare(listed[1:], failed); diff != listed[0]+" fails, and is not listed\n" {
		t.Errorf("the comparison with a list that lacks %s says %q", listed[0], diff)
	}
	if diff := compare(append(slices.Clone(listed), "ERR-003"), failed); diff != "ERR-003 is listed, and does not fail\n" {
		t.Errorf("the comparison with a list that has ERR-003 as well says %q", diff)
	}
}

// released is a module beside which lockgen runs, with a proxy that has all modules as a
// release would publish them.
func released(t *testing.T) *packaging.App {
	t.Helper()
	root, err := packaging.Root()
	if err != nil {
		t.Fatal(err)
	}
	all, err := packaging.Modules(root)
	if err != nil {
		t.Fatal(err)
	}
	proxy := t.TempDir()
	err = packaging.WriteProxy(proxy, release, all, func(f *modfile.File) error { return packaging.Pin(f, all, release) })
	if err != nil {
		t.Fatal(err)
	}
	var sums []string
	for _, m := range all {
		sums = append(sums, filepath.Join(m.Dir, "go.sum"))
	}
	// Of the new module's go.sum nothing is known before it is made. What it gets has been
	// verified on its way into the module cache of this machine.
	t.Setenv("GONOSUMDB", "*")
	app, err := packaging.NewApp(t.Context(), t.TempDir(), proxy, []string{prefix}, sums)
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// compare says what is in one of the two only.
func compare(listed, failed []string) string {
	var b strings.Builder
	for _, id := range failed {
		if !slices.Contains(listed, id) {
			fmt.Fprintf(&b, "%s fails, and is not listed\n", id)
		}
	}
	for _, id := range listed {
		// One with parts that fail is not among failed itself; its own turn comes after theirs.
		if !slices.ContainsFunc(failed, func(f string) bool { return f == id || strings.HasPrefix(f, id+"/") }) {
			fmt.Fprintf(&b, "%s is listed, and does not fail\n", id)
		}
	}
	return b.String()
}

var failLine = regexp.MustCompile(`(?m)^\s*--- FAIL: Test\w+/(\S+)`)

// failedCases are the subtests that failed, in the order of the output, without those that
// only contain others.
func failedCases(out string) []string {
	var all []string
	for _, m := range failLine.FindAllStringSubmatch(out, -1) {
		all = append(all, m[1])
	}
	return slices.DeleteFunc(slices.Clone(all), func(id string) bool {
		return slices.ContainsFunc(all, func(other string) bool { return strings.HasPrefix(other, id+"/") })
	})
}

var caseLine = regexp.MustCompile(`(?m)^ *[A-Z]+-\d{3}.*$`)

// listedCases are the ids in lines that begin with one.
func listedCases(text string) (ids []string) {
	for _, line := range caseLine.FindAllString(text, -1) {
		ids = append(ids, strings.Fields(line)...)
	}
	return ids
}

// TestTakenNames: lockgen refuses what is registered already. It requires no backend, and
// so has a list of its own.
func TestTakenNames(t *testing.T) {
	root, err := packaging.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lockgen := filepath.Join(dir, "lockgen")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", lockgen, "./gen/cmd/lockgen")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	registered := locker.Backends()
	if !slices.Contains(registered, "redis") {
		t.Errorf("only %v are registered here", registered)
	}
	for _, name := range append(registered, "rediss", "unix", "env") { // and schemes
		cmd := exec.CommandContext(t.Context(), lockgen, "backend", name, "-out", filepath.Join(dir, name))
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "the name "+name+" is taken") {
			t.Errorf("lockgen backend %s: %v\n%s", name, err, out)
		}
	}
}
