package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// lockgen runs the command with base as its directory.
func lockgen(base string, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(base, args, &out, &errs)
	return status, out.String(), errs.String()
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// clone copies a directory of testdata to where a test may write.
func clone(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTable(t *testing.T) {
	dir := clone(t, "full")
	args := []string{"table", "-type", "Config", "-into", "in.md", "-mark", "full"}
	before := read(t, filepath.Join(dir, "in.md"))

	status, _, stderr := lockgen(dir, append(args, "-check")...)
	if want := "lockgen: in.md:8: the table of full.Config (mark \"full\") is stale; run the generator (make generate)\n"; status != 1 || stderr != want {
		t.Errorf("-check on a stale file: status %d, %q\nwant 1, %q", status, stderr, want)
	}
	if after := read(t, filepath.Join(dir, "in.md")); after != before {
		t.Error("-check wrote the file")
	}

	if status, stdout, stderr := lockgen(dir, args...); status != 0 || stderr != "" || stdout == "" {
		t.Fatalf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
	got := read(t, filepath.Join(dir, "in.md"))
	golden := filepath.Join("testdata", "full", "want.md")
	if *update {
		write(t, golden, got)
	}
	if want := read(t, golden); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	for _, again := range [][]string{args, append(args, "-check")} {
		if status, stdout, stderr := lockgen(dir, again...); status != 0 || stdout+stderr != "" {
			t.Errorf("%v on a fresh file: status %d, %q, %q", again, status, stdout, stderr)
		}
	}
	if read(t, filepath.Join(dir, "in.md")) != got {
		t.Error("a second run changed the file")
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"no command", "wrong usage: no command\nusage:", nil},
		{"unknown command", `no command "tabel"`, []string{"tabel"}},
		{"unknown flag", "flag provided but not defined: -out", []string{"table", "-out", "x"}},
		{"stray argument", `"x" is not a flag`, []string{"table", "-into", "doc.md", "-mark", "good", "x"}},
		{"no document", "-into and -mark are needed", []string{"table", "-mark", "good"}},
		{"missing directory", "nowhere: no such file or directory", tableOf("-dir", "nowhere")},
		{"directory without Go", "no Go file is in it", tableOf("-dir", "empty")},
		{"missing type", "package errors has no type Missing (it has: Code, Embeds, Empty,", tableOf("-type", "Missing")},
		{"no struct", "config.go:55:6: Word is not a struct", tableOf("-type", "Word")},
		{"no field", "type Empty has no exported field", tableOf("-type", "Empty")},
		{"no json name", `config.go:9:2: Unnamed.A has no json name; give it one, or json:"-"`, tableOf("-type", "Unnamed")},
		{"no comment", "config.go:17:2: Silent.B has no comment", tableOf("-type", "Silent")},
		{"foreign type", "field A: a url.URL cannot be configured", tableOf("-type", "Foreign")},
		{"list of lists", "field A: a [][]string cannot be configured", tableOf("-type", "Lists")},
		{"loop", "field A: Loop contains itself", tableOf("-type", "Loop")},
		{"embedded", "config.go:40:2: an embedded field cannot be described", tableOf("-type", "Embeds")},
		{"code in a comment", "errors.Code, field A: its comment holds a list, a heading or code", tableOf("-type", "Code")},
		{"missing document", "nowhere.md: no such file or directory", tableOf("-dir", "../full", "-type", "Config", "-into", "nowhere.md")},
		{"missing marker", "doc.md: the marker <!-- lockgen:absent --> is missing", tableOf("-dir", "../full", "-type", "Config", "-mark", "absent")},
		{"marker twice", "doc.md: line 3: the marker <!-- lockgen:twice --> is there twice, first in line 1", tableOf("-dir", "../full", "-type", "Config", "-mark", "twice")},
		{"marker inside", "doc.md: line 6: another marker stands before the <!-- /lockgen --> of line 5's", tableOf("-dir", "../full", "-type", "Config", "-mark", "inside")},
		{"no end", "doc.md: line 8: the marker <!-- lockgen:open --> has no <!-- /lockgen --> after it", tableOf("-dir", "../full", "-type", "Config", "-mark", "open")},
		{"check without a file", "check takes one Go file", []string{"check"}},
		{"check of nothing", "config.go: it has no //go:generate line that runs lockgen", []string{"check", "config.go"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for _, name := range []string{"full", "errors"} {
				if err := os.CopyFS(filepath.Join(root, name), os.DirFS(filepath.Join("testdata", name))); err != nil {
					t.Fatal(err)
				}
			}
			dir := filepath.Join(root, "errors")
			if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
				t.Fatal(err)
			}
			before := read(t, filepath.Join(dir, "doc.md"))
			status, _, stderr := lockgen(dir, c.args...)
			if status != 2 || !strings.Contains(stderr, c.want) {
				t.Errorf("status %d, %s\nwant 2, and %s", status, stderr, c.want)
			}
			if read(t, filepath.Join(dir, "doc.md")) != before {
				t.Error("the document was written")
			}
		})
	}
}

// tableOf is a call of lockgen table in testdata/errors; later flags win.
func tableOf(args ...string) []string {
	return append([]string{"table", "-type", "Code", "-into", "doc.md", "-mark", "good"}, args...)
}

func TestCheck(t *testing.T) {
	dir := clone(t, "full")
	list := filepath.Join(dir, "sub", "generate.go")
	write(t, list, `package sub

//go:generate stringer -type=Kind
//go:generate go run example.com/gen/cmd/lockgen@v1.0.0 table -dir .. -type Config -into ../in.md -mark full
//go:generate lockgen table -dir .. -type TLS -into ../in.md -mark other
`)
	status, stdout, stderr := lockgen(dir, "check", "sub/generate.go")
	if status != 1 || stdout != "" || strings.Count(stderr, "is stale") != 2 {
		t.Errorf("two stale tables: status %d, %q, %q", status, stdout, stderr)
	}
	for _, args := range [][]string{
		{"table", "-into", "in.md", "-mark", "full"},
		{"table", "-type", "TLS", "-into", "in.md", "-mark", "other"},
	} {
		if status, _, stderr := lockgen(dir, args...); status != 0 {
			t.Fatal(stderr)
		}
	}
	if status, stdout, stderr := lockgen(dir, "check", "sub/generate.go"); status != 0 || stdout+stderr != "" {
		t.Errorf("fresh tables: status %d, %q, %q", status, stdout, stderr)
	}

	write(t, list, read(t, list)+"//go:generate lockgen tabel -x\n")
	write(t, filepath.Join(dir, "in.md"), read(t, filepath.Join("testdata", "full", "in.md")))
	status, _, stderr = lockgen(dir, "check", "sub/generate.go")
	if status != 2 || !strings.Contains(stderr, `sub/generate.go:6: no generator "tabel"`) || !strings.Contains(stderr, "is stale") {
		t.Errorf("unknown generator: status %d, %q", status, stderr)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"-h"}, {"table", "-h"}} {
		if status, stdout, stderr := lockgen(".", args...); status != 0 || stdout == "" || stderr != "" {
			t.Errorf("%v: status %d, %q, %q", args, status, stdout, stderr)
		}
	}
}
