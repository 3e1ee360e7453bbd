package packaging

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

func graphRecord(m Module) string { return filepath.Join("testdata", "graph", m.Name()+".txt") }

// checkGraph compares what go get of m brought into app with the record, and says what
// is wrong.
func checkGraph(t *testing.T, app *App, m Module) (complaint string) {
	t.Helper()
	record, err := ReadRecord(graphRecord(m))
	if err != nil {
		t.Fatal(err)
	}
	now, err := app.Graph(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	removed, added := Compare(record, now)
	if len(removed)+len(added) == 0 {
		return ""
	}
	complaint = "go get " + m.Path + " does not bring what is on record.\n"
	if len(removed) > 0 {
		complaint += "missing:" + indent(removed) + "\n"
	}
	if len(added) > 0 {
		complaint += "not on record:" + indent(added) + "\n"
	}
	return complaint
}

// TestGet is the proof: each published module resolves in an empty module, brings what
// is on record, and works there.
func TestGet(t *testing.T) {
	all := modules(t)
	proxy := releaseProxy(t, all)

	// adapter runs the program of an adapter, which needs a backend beside it.
	adapter := func(name, want string) func(t *testing.T, app *App) {
		return func(t *testing.T, app *App) {
			goCommand(t, app, "get", prefix+"/backends/memory")
			program(t, app, "adapters-"+name)
			wantOutput(t, app, want)
		}
	}
	use := map[string]func(t *testing.T, app *App){
		"adapters/certmagic": adapter("certmagic", "true <nil>\nfalse <nil>\n"),
		"adapters/cron":      adapter("cron", "reporting\n"),
		"adapters/gocron":    adapter("gocron", "ran with a token: true\n"),
		"adapters/goose":     adapter("goose", "<nil> <nil>\n"),
		"adapters/otel":      adapter("otel", "released: <nil>\n"),
		"locker": func(t *testing.T, app *App) {
			program(t, app, "locker")
			wantOutput(t, app, "no backend: true\n")
		},
		"backends/memory": func(t *testing.T, app *App) {
			program(t, app, "backends-memory")
			wantOutput(t, app, "held by another: true\nreleased: <nil>\n")
		},
		"backends/postgres": func(t *testing.T, app *App) {
			program(t, app, "backends-postgres")
			wantOutput(t, app, "unavailable: true\n")
		},
		"backends/redis": func(t *testing.T, app *App) {
			program(t, app, "backends-redis")
			wantOutput(t, app, "unavailable: true\n")
		},
		"cmd/lockstep": func(t *testing.T, app *App) {
			// As the README says; refused for a module with replace lines, which Pin takes off.
			goCommand(t, app, "install", prefix+"/cmd/lockstep@"+release)
			out, err := exec.CommandContext(t.Context(), filepath.Join(app.Bin(), "lockstep"), "--version").Output()
			if want := "lockstep version " + release + "\n"; err != nil || string(out) != want {
				t.Errorf("the program printed %q, %v, want %q", out, err, want)
			}
		},
		"conformance": func(t *testing.T, app *App) {
			// The suite needs a backend to be run on; one comes along from here on.
			goCommand(t, app, "get", prefix+"/backends/memory")
			program(t, app, "conformance")
			if out := goCommand(t, app, "test", "-v", "."); !strings.Contains(out, "--- PASS: TestConformance/MX-001") {
				t.Errorf("go test did not run MX-001:\n%s", out)
			}
		},
		"gen": func(t *testing.T, app *App) {
			// Refused for a module with replace lines, which is why gen has none.
			goCommand(t, app, "install", prefix+"/gen/cmd/lockgen@"+release)
		},
	}

	for _, m := range all {
		t.Run(m.Name(), func(t *testing.T) {
			t.Parallel()
			app := newApp(t, proxy, all)
			goCommand(t, app, "get", m.Path)
			if *update {
				now, err := app.Graph(t.Context())
				if err == nil {
					err = WriteRecord(graphRecord(m), "What go get "+m.Path+" brings, and the least Go version.", now)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if complaint := checkGraph(t, app, m); complaint != "" {
				t.Errorf("%sIf users should get this, record it: go test ./internal/packaging -run TestGet -update", complaint)
			}
			if use[m.Folder] == nil {
				t.Fatalf("no program uses %s: add one to testdata/use and to this test", m.Folder)
			}
			use[m.Folder](t, app)
		})
	}
}

func wantOutput(t *testing.T, app *App, want string) {
	t.Helper()
	if got := goCommand(t, app, "run", "."); got != want {
		t.Errorf("the program printed %q, want %q", got, want)
	}
}

// TestGetMinimal holds the one record that must not be updated away: memory is for
// those who want nothing else.
func TestGetMinimal(t *testing.T) {
	all := modules(t)
	for folder, want := range map[string][]string{
		"locker":          {prefix + "/locker " + release},
		"backends/memory": {prefix + "/backends/memory " + release, prefix + "/locker " + release},
	} {
		record, err := ReadRecord(graphRecord(find(t, all, folder)))
		if err != nil {
			t.Fatal(err)
		}
		if len(record) == 0 {
			t.Fatalf("%s: nothing is on record", folder)
		}
		removed, added := Compare(record[1:], want)
		if len(removed)+len(added) > 0 {
			t.Errorf("%s: the record is\n\t%s\nbut users may get only%s", folder, strings.Join(record, "\n\t"), indent(want))
		}
	}
}

// TestGetWithoutAdapters: who takes locker, a backend or the suite gets no module that only an
// adapter requires.
func TestGetWithoutAdapters(t *testing.T) {
	all := modules(t)
	adapters := 0
	for _, a := range all {
		if !strings.HasPrefix(a.Folder, "adapters/") {
			continue
		}
		adapters++
		f, err := a.File()
		if err != nil {
			t.Fatal(err)
		}
		bring := []string{a.Path}
		for _, r := range f.Require {
			if !r.Indirect && !strings.HasPrefix(r.Mod.Path, prefix) {
				bring = append(bring, r.Mod.Path)
			}
		}
		for _, m := range all {
			if strings.HasPrefix(m.Folder, "adapters/") {
				continue
			}
			record, err := ReadRecord(graphRecord(m))
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range record {
				for _, path := range bring {
					if strings.HasPrefix(line, path+" ") {
						t.Errorf("go get %s brings %s, which is for %s", m.Path, line, a.Path)
					}
				}
			}
		}
	}
	if adapters == 0 {
		t.Error("go.work has no adapters; did their folder move?")
	}
}

// TestGetHeavy is the control: a requirement that nothing imports, such as one for
// tests, reaches the user all the same, and the comparison must see it.
func TestGetHeavy(t *testing.T) {
	t.Parallel()
	all := modules(t)
	memory := find(t, all, "backends/memory")
	heavy := Module{Path: "heavy.invalid/heavy", Dir: t.TempDir(), Mod: []byte("module heavy.invalid/heavy\n\ngo 1.21\n")}

	proxy := t.TempDir()
	err := WriteProxy(proxy, release, append(all, heavy), func(f *modfile.File) error {
		if f.Module.Mod.Path == memory.Path {
			if err := f.AddRequire(heavy.Path, release); err != nil {
				return err
			}
		}
		return Pin(f, all, release)
	})
	if err != nil {
		t.Fatal(err)
	}
	app := newApp(t, proxy, all)
	app.Offline()
	goCommand(t, app, "get", memory.Path)
	if complaint := checkGraph(t, app, memory); !strings.Contains(complaint, heavy.Path+" "+release) {
		t.Errorf("memory requires %s, and the check says only %q", heavy.Path, complaint)
	}
}

// TestGetUnpinned is the second control: without Pin, users get nothing at all.
func TestGetUnpinned(t *testing.T) {
	t.Parallel()
	all := modules(t)
	proxy := t.TempDir()
	err := WriteProxy(proxy, release, all, func(f *modfile.File) error { return Pin(f, all, "v0.0.0") })
	if err != nil {
		t.Fatal(err)
	}
	app := newApp(t, proxy, all)
	app.Offline()
	_, err = app.Go(t.Context(), "get", prefix+"/backends/memory")
	if err == nil || !strings.Contains(err.Error(), prefix+"/locker@v0.0.0") {
		t.Errorf("go get of a module that requires a sibling at a version that does not exist: %v", err)
	}
}

// TestGetLight holds what a backend's users must never get, whatever is on record: what the command,
// and the modules for authors, need.
func TestGetLight(t *testing.T) {
	for _, m := range modules(t) {
		if m.Folder != "locker" && !strings.HasPrefix(m.Folder, "backends/") {
			continue
		}
		record, err := ReadRecord(graphRecord(m))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range record {
			for _, heavy := range []string{"github.com/spf13/", "github.com/cpuguy83/", "github.com/russross/", "github.com/anishathalye/", "github.com/creack/", prefix + "/cmd/", prefix + "/conformance"} {
				if strings.HasPrefix(line, heavy) {
					t.Errorf("go get of %s brings %s", m.Folder, line)
				}
			}
		}
	}
}
