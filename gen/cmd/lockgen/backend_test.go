package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// lockgenIn runs the command with base as its directory.
func lockgenIn(base string, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(base, args, &out, &errs)
	return status, out.String(), errs.String()
}

func readText(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func writeText(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// fakeClone is as much of a clone as lockgen looks at.
func fakeClone(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, module := range []string{"locker", "conformance"} {
		writeText(t, filepath.Join(dir, module, "go.mod"), "module github.com/lockstep-go/lockstep/"+module+"\n\ngo 1.25.0\n")
	}
	return dir
}

// archive is what is in dir.
func archive(t *testing.T, comment, dir string) string {
	t.Helper()
	a := &txtar.Archive{Comment: []byte(comment)}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(readText(t, filepath.Join(dir, name)))})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(txtar.Format(a))
}

func TestBackend(t *testing.T) {
	clone := fakeClone(t)
	args := []string{"backend", "etcd", "-out", "backends/etcd", "-tidy=false"}
	status, stdout, stderr := lockgenIn(clone, args...)
	if status != 0 || stderr != "" {
		t.Fatalf("status %d, %s", status, stderr)
	}
	dir := filepath.Join(clone, "backends", "etcd")
	got := archive(t, stdout, dir)
	golden := filepath.Join("testdata", "backend", "etcd.txtar")
	if *rewrite {
		writeText(t, golden, got)
	}
	if want := readText(t, golden); got != want {
		t.Errorf("write %s with -update; got\n%s", golden, got)
	}

	// A file of the author's is never written over.
	for _, file := range []string{"open.go", "other"} {
		writeText(t, filepath.Join(dir, file), "package etcd\n")
		before := archive(t, "", dir)
		s, stdout, stderr := lockgenIn(clone, args...)
		if want := "etcd is not empty; nothing was written\n"; s != 2 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("status %d, %s%s\nwant 2, and %s", s, stdout, stderr, want)
		}
		if archive(t, "", dir) != before {
			t.Error("something was written")
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// Where a module is put beside the clone, its go.mod names the clone by its path; and below a
// workspace lockgen says what hides it.
func TestBackendOutside(t *testing.T) {
	clone, elsewhere := fakeClone(t), t.TempDir()
	writeText(t, filepath.Join(elsewhere, "go.work"), "go 1.25.0\n")
	status, stdout, stderr := lockgenIn(elsewhere, "backend", "-replace", clone, "-out", "locks-zk", "-module", "example.com/a/locks-zk/v2", "-tidy=false", "zk")
	if status != 0 || !strings.Contains(stdout, "go work use locks-zk "+filepath.Join("locks-zk", "proof")) {
		t.Fatalf("status %d, %s%s", status, stdout, stderr)
	}
	dir := filepath.Join(elsewhere, "locks-zk")
	for name, wants := range map[string][]string{
		"go.mod":              {"module example.com/a/locks-zk/v2\n", "/locker => " + clone + "/locker\n"},
		"proof/go.mod":        {"module example.com/a/locks-zk/v2/proof\n", "example.com/a/locks-zk/v2 v2.0.0\n", "replace example.com/a/locks-zk/v2 => ../\n", "/conformance => " + clone + "/conformance\n"},
		"proof/proof_test.go": {"\tzk \"example.com/a/locks-zk/v2\"\n"},
	} {
		for _, want := range wants {
			if text := readText(t, filepath.Join(dir, name)); !strings.Contains(text, want) {
				t.Errorf("%s lacks %q:\n%s", name, want, text)
			}
		}
	}
}

func TestBackendTidyFails(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOFLAGS", "-mod=mod")
	clone := fakeClone(t) // no package is in its modules
	status, _, stderr := lockgenIn(clone, "backend", "etcd", "-out", "new")
	if status != 2 || !strings.Contains(stderr, "lockgen: the files are in new, but go mod tidy failed in ") || !strings.Contains(stderr, "does not contain package github.com/lockstep-go/lockstep/locker") {
		t.Errorf("status %d, %s", status, stderr)
	}
	if _, err := os.Stat(filepath.Join(clone, "new", "open.go")); err != nil {
		t.Error(err)
	}
}

func TestBackendErrors(t *testing.T) {
	for _, c := range []struct {
		what, want string
		args       []string
	}{
		{"no name", "wrong usage: backend: NAME and -out are needed\nusage:", []string{"-out", "new"}},
		{"no directory", "NAME and -out are needed", []string{"etcd"}},
		{"two names", `"zk" is not a flag`, []string{"etcd", "zk"}},
		{"an unknown flag", "flag provided but not defined: -force", []string{"etcd", "-force"}},
		{"an empty name", "NAME and -out are needed", []string{"", "-out", "new"}},
		{"capitals", `the name "Etcd" is no Go package name`, []string{"Etcd", "-out", "new"}},
		{"an underscore", `the name "my_etcd" is no Go package name`, []string{"my_etcd", "-out", "new"}},
		{"one letter", `the name "e" is no Go package name`, []string{"e", "-out", "new"}},
		{"a path", `the name "../etcd" is no Go package name`, []string{"../etcd", "-out", "new"}},
		{"code", `the name "x\"\n\nfunc init() {}" is no Go package name`, []string{"x\"\n\nfunc init() {}", "-out", "new"}},
		{"no UTF-8", `the name "\xff\xfe" is no Go package name`, []string{"\xff\xfe", "-out", "new"}},
		{"a long name", "is no Go package name", []string{strings.Repeat("a", 1<<16), "-out", "new"}},
		{"a keyword", "the name select has a meaning in Go", []string{"select", "-out", "new"}},
		{"a predeclared name", "the name error has a meaning in Go", []string{"error", "-out", "new"}},
		{"a registered name", "the name redis is taken", []string{"redis", "-out", "new"}},
		{"a source of configuration", "the name env is taken", []string{"env", "-out", "new"}},
		{"no library", "the name main is for packages of another kind", []string{"main", "-out", "new"}},
		{"an imported package", "the name context is that of something else in the generated code", []string{"context", "-out", "new"}},
		{"a variable of the example", "the name lease is that of something else in the generated code", []string{"lease", "-out", "new"}},
		{"a module that is none", `the module path "example.com/x\nreplace a => b" is none`, []string{"etcd", "-out", "new", "-module", "example.com/x\nreplace a => b"}},
		{"a module above", `the module path "../etcd" is none`, []string{"etcd", "-out", "new", "-module", "../etcd"}},
		{"a module of Lockstep's", "is Lockstep's own", []string{"etcd", "-out", "new", "-module", "github.com/lockstep-go/lockstep/locker"}},
		{"no clone", "-replace locker: this is no clone of Lockstep: ", []string{"etcd", "-out", "new", "-replace", "locker"}},
		{"another clone", "go.mod is not that of github.com/lockstep-go/lockstep/conformance", []string{"etcd", "-out", "new", "-replace", "other"}},
		{"a file", "go.mod: not a directory", []string{"etcd", "-out", "locker/go.mod"}},
		{"a full directory", "locker is not empty; nothing was written", []string{"etcd", "-out", "locker"}},
		{"the clone itself", "is not empty; nothing was written", []string{"etcd", "-out", "."}},
	} {
		t.Run(c.what, func(t *testing.T) {
			clone := fakeClone(t)
			writeText(t, filepath.Join(clone, "other", "locker", "go.mod"), readText(t, filepath.Join(clone, "locker", "go.mod")))
			writeText(t, filepath.Join(clone, "other", "conformance", "go.mod"), "module example.com/fork/conformance\n")
			before := archive(t, "", clone)
			status, stdout, stderr := lockgenIn(clone, append([]string{"backend"}, c.args...)...)
			if status != 2 || stdout != "" || !strings.Contains(stderr, c.want) || len(stderr) > 1000 {
				t.Errorf("status %d, %s%s\nwant 2, and %s", status, stdout, stderr, c.want)
			}
			if archive(t, "", clone) != before {
				t.Error("something was written")
			}
		})
	}

	status, _, stderr := lockgenIn(t.TempDir(), "backend", "etcd", "-out", "new")
	if status != 2 || !strings.Contains(stderr, "say where one is with -replace DIR") {
		t.Errorf("outside of any clone: status %d, %s", status, stderr)
	}
}
