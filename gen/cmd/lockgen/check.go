package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// runCheck runs the generators that a file's //go:generate lines name, with -check. Like
// go generate, it takes paths as relative to the file.
func runCheck(base string, args []string, stdout io.Writer) error {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		return fmt.Errorf("%w: check takes one Go file", errUsage)
	}
	file := args[0]
	source, err := readFile(base, file)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path(base, file))
	found, failed := 0, false
	var errs []error
	for i, line := range strings.Split(source, "\n") {
		args, ok := lockgenLine(line)
		if !ok {
			continue
		}
		found++
		generate := generators[first(args)]
		if generate == nil {
			errs, failed = append(errs, fmt.Errorf("%s:%d: no generator %q", file, i+1, first(args))), true
			continue
		}
		if err := generate(dir, append([]string{"-check"}, args[1:]...), io.Discard); err != nil {
			var old *stale
			errs, failed = append(errs, err), failed || !errors.As(err, &old)
		}
	}
	if found == 0 {
		return fmt.Errorf("%s: it has no //go:generate line that runs lockgen", file)
	}
	err = errors.Join(errs...)
	if failed {
		err = errors.New(err.Error()) // what could not be checked is worse than what is stale
	}
	return err
}

// lockgenLine gives the arguments of a lockgen call in a line such as
// "//go:generate go run ./gen/cmd/lockgen config …" or "//go:generate lockgen config …".
func lockgenLine(line string) (args []string, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\r"), "//go:generate ")
	if !ok {
		return nil, false
	}
	words := strings.Fields(rest)
	for i, w := range words {
		name, _, _ := strings.Cut(w, "@")
		if name == "lockgen" || strings.HasSuffix(name, "/lockgen") {
			return words[i+1:], true
		}
	}
	return nil, false
}

func first(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return words[0]
}
