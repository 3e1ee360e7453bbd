package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var rewrite = flag.Bool("update", false, "write what was generated into the archives")

// TestScripts runs the archives in testdata. Their files make a module in a folder of its
// own, and their text is a script, one command a line:
//
//	lockgen ARGS           must end with 0
//	stale lockgen ARGS     must end with 1
//	! lockgen ARGS         must end with 2
//	stdout TEXT            the command before wrote a line that is TEXT
//	stderr TEXT            the same of its errors
//	quiet                  the command before wrote nothing
//	break FILE             puts a syntax error at the end of FILE
//	remove FILE
//	absent FILE            there is no such file
//
// A file want/NAME is what the file NAME must be in the end; -update writes it.
func TestScripts(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(archives) == 0 {
		t.Fatal("no archive in testdata", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			s := &script{t: t, dir: t.TempDir()}
			s.write("go.mod", []byte("module example.com/locks\n\ngo 1.25\n"))
			for _, f := range archive.Files {
				if !strings.HasPrefix(f.Name, "want/") {
					s.write(f.Name, f.Data)
				}
			}
			for i, line := range strings.Split(string(archive.Comment), "\n") {
				if line != "" && !strings.HasPrefix(line, "#") {
					s.line(fmt.Sprintf("%s:%d", name, i+1), line)
				}
			}
			for i, f := range archive.Files {
				made, ok := strings.CutPrefix(f.Name, "want/")
				if !ok {
					continue
				}
				got := s.read(made)
				if *rewrite {
					archive.Files[i].Data = got
				} else if !bytes.Equal(got, f.Data) {
					t.Errorf("%s is not as in %s (go test -update writes it)\ngot\n%s\nwant\n%s", made, name, got, f.Data)
				}
			}
			if *rewrite {
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

type script struct {
	t              *testing.T
	dir            string
	stdout, stderr string // of the last command
}

func (s *script) file(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (s *script) read(name string) []byte {
	s.t.Helper()
	data, err := os.ReadFile(s.file(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

func (s *script) write(name string, data []byte) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.file(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.file(name), data, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) line(at, line string) {
	s.t.Helper()
	word, rest, _ := strings.Cut(line, " ")
	has := func(output string) {
		s.t.Helper()
		if !slices.Contains(strings.Split(output, "\n"), rest) {
			s.t.Errorf("%s: no line is\n%s\nin\n%s", at, rest, output)
		}
	}
	status := 0
	switch word {
	case "stdout":
		has(s.stdout)
		return
	case "stderr":
		has(s.stderr)
		return
	case "quiet":
		if s.stdout+s.stderr != "" {
			s.t.Errorf("%s: %s%s", at, s.stdout, s.stderr)
		}
		return
	case "break":
		s.write(rest, append(s.read(rest), "\nthis is not Go"...))
		return
	case "remove":
		if err := os.Remove(s.file(rest)); err != nil {
			s.t.Fatal(err)
		}
		return
	case "absent":
		if _, err := os.Stat(s.file(rest)); err == nil {
			s.t.Errorf("%s: there is a file %s", at, rest)
		}
		return
	case "stale":
		status, line = 1, rest
	case "!":
		status, line = 2, rest
	}
	words := strings.Fields(line)
	if words[0] != "lockgen" {
		s.t.Fatalf("%s: %s is no command", at, words[0])
	}
	var out, errs bytes.Buffer
	got := run(s.dir, words[1:], &out, &errs)
	shown := strings.NewReplacer(s.dir+string(filepath.Separator), "", s.dir, ".")
	s.stdout, s.stderr = shown.Replace(out.String()), shown.Replace(errs.String())
	if got != status {
		s.t.Errorf("%s: status %d, want %d\n%s%s", at, got, status, s.stdout, s.stderr)
	}
}
