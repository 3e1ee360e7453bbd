package scaffold

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Write writes the files into dir, which is empty or not there. If instead everything is
// there, and as it would be written, it does nothing; anything else is an error. It never
// writes over a file.
func Write(dir string, files []File) (written bool, err error) {
	switch entries, err := os.ReadDir(dir); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, err
	case len(entries) > 0:
		return false, compare(dir, files)
	}
	for _, f := range files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			return false, err
		}
		if err := create(name, f.Text); err != nil {
			return false, err
		}
	}
	return true, nil
}

func create(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// compare says how dir differs from files, without looking any further than at the first
// difference: dir may be anything.
func compare(dir string, files []File) error {
	differs := func(format string, args ...any) error {
		return fmt.Errorf("%s is not empty, and %s; nothing was written", dir, fmt.Sprintf(format, args...))
	}
	want := map[string][]byte{}
	for _, f := range files {
		want[f.Name] = f.Text
	}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		short, err := filepath.Rel(dir, name)
		if err != nil || d.IsDir() && holds(files, filepath.ToSlash(short)) {
			return err
		}
		short = filepath.ToSlash(short)
		text, ours := want[short]
		switch {
		case path.Base(short) == "go.sum" && holds(files, path.Dir(short)): // go mod tidy's
			return nil
		case !ours:
			return differs("%s would not be written", short)
		case !d.Type().IsRegular():
			return differs("%s is no file", short)
		}
		delete(want, short)
		there, err := os.ReadFile(name)
		if err == nil && !same(short, there, text) {
			err = differs("%s is not as it would be written", short)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, f := range files {
		if _, missing := want[f.Name]; missing {
			return differs("%s is not there", f.Name)
		}
	}
	return nil
}

// holds says whether one of files is below dir.
func holds(files []File, dir string) bool {
	for _, f := range files {
		if dir == "." || strings.HasPrefix(f.Name, dir+"/") {
			return true
		}
	}
	return false
}

// same says whether two files are alike, but for what go mod tidy does to a go.mod.
func same(name string, x, y []byte) bool {
	if path.Base(name) == "go.mod" {
		x, y = direct(x), direct(y)
	}
	return bytes.Equal(x, y)
}

// direct is a go.mod without the requirements that go mod tidy adds.
func direct(mod []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(mod) {
		switch text := string(bytes.TrimSpace(line)); {
		case text == "", text == "require (", text == ")", strings.HasSuffix(text, "// indirect"):
		default:
			b.Write(line)
		}
	}
	return b.Bytes()
}
