package packaging

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

var (
	update       = flag.Bool("update", false, "write the records in testdata")
	incompatible = flag.Bool("incompatible", false, "with -update: also remove lines from the records of an API")
)

// release is greater than any version that will be tagged, so that a plain go get
// takes it, and nobody takes it for a real one.
const release = "v0.999.0"

// prefix begins the paths of all modules of this repository.
const prefix = "github.com/lockstep-go/lockstep"

func modules(t *testing.T) []Module {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	all, err := Modules(root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func find(t *testing.T, all []Module, folder string) Module {
	t.Helper()
	for _, m := range all {
		if m.Folder == folder {
			return m
		}
	}
	t.Fatalf("go.work does not use ./%s", folder)
	return Module{}
}

// releaseProxy is a module proxy with all modules as a release would publish them.
func releaseProxy(t *testing.T, all []Module) string {
	t.Helper()
	dir := t.TempDir()
	err := WriteProxy(dir, release, all, func(f *modfile.File) error { return Pin(f, all, release) })
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func newApp(t *testing.T, proxy string, all []Module) *App {
	t.Helper()
	var sums []string
	for _, m := range all {
		sums = append(sums, filepath.Join(m.Dir, "go.sum"))
	}
	app, err := NewApp(t.Context(), t.TempDir(), proxy, []string{prefix, "heavy.invalid"}, sums)
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// goCommand runs the go command in app, which must succeed.
func goCommand(t *testing.T, app *App, args ...string) string {
	t.Helper()
	out, err := app.Go(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// program copies testdata/use/name into app.
func program(t *testing.T, app *App, name string) {
	t.Helper()
	dir := filepath.Join("testdata", "use", name)
	if err := os.CopyFS(app.Dir, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
}

func indent(lines []string) string { return "\n\t" + strings.Join(lines, "\n\t") }
