package packaging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

// TestGetRoot shows where somebody is led who takes the repository's path for that of a
// package: go get warns, and go doc shows where to go.
func TestGetRoot(t *testing.T) {
	all := modules(t)
	app := newApp(t, releaseProxy(t, append(all, rootModule(t))), all)
	app.Offline()
	out, err := app.Notices(t.Context(), "get", prefix)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "deprecated") || !strings.Contains(out, prefix+"/locker") {
		t.Errorf("go get %s does not lead to locker:\n%s", prefix, out)
	}
	out = goCommand(t, app, "doc", prefix)
	if !strings.Contains(out, "go get "+prefix+"/locker") {
		t.Errorf("go doc %s does not lead to locker:\n%s", prefix, out)
	}

	// And whoever asks for locker gets it from its own module, although the root module would
	// be looked at too.
	app = newApp(t, releaseProxy(t, append(all, rootModule(t))), all)
	app.Offline()
	goCommand(t, app, "get", prefix+"/locker")
	if out = goCommand(t, app, "list", "-m", "all"); strings.Contains(out, prefix+" ") {
		t.Errorf("go get %s/locker brings the root module:\n%s", prefix, out)
	}
}

// rootModule is the root module without what it requires, which is for its tests, and of which
// a user of the package needs nothing.
func rootModule(t *testing.T) Module {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.SetRequire(nil)
	for _, r := range f.Replace {
		if err := f.DropReplace(r.Old.Path, r.Old.Version); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range f.Tool {
		if err := f.DropTool(tool.Path); err != nil {
			t.Fatal(err)
		}
	}
	f.Cleanup()
	mod, err := f.Format()
	if err != nil {
		t.Fatal(err)
	}
	m := Module{Path: prefix, Folder: ".", Dir: t.TempDir(), Mod: mod}
	for _, name := range []string{"doc.go", "generate.go", "LICENSE"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(m.Dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return m
}
