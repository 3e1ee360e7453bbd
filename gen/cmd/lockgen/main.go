// Command lockgen writes what must agree with a backend's configuration, so that nobody
// writes it twice by hand.
//
//	lockgen config -dir backends/redis -env LOCKSTEP_REDIS -into docs/configuration.md -mark redis
//
// reads the annotated struct Config and writes config_gen.go beside it, with its defaults,
// its validation and its environment variables; with -schema a JSON Schema; and a table of its
// fields, between the lines <!-- lockgen:redis --> and <!-- /lockgen --> of a document. The README
// of this module lists the annotations.
//
// With -check it writes nothing, and says what is stale.
//
//	lockgen schema -core locker -backend redis=backends/redis -backend etcd=etcd.schema.json -out docs/lockstep.schema.json
//
// makes one schema of a whole configuration file, out of packages and of the files that -schema
// wrote.
//
//	lockgen backend etcd -out DIR -module example.com/locks/etcd
//
// writes the module of a new backend, with its conformance test, and says which cases fail
// until its author has written the rest.
//
// The exit status is 0 when all is well, 1 when something is stale, and 2 after any
// other error.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() { os.Exit(run(".", os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `usage:
  lockgen config -dir DIR -type NAME -env PREFIX [-methods TYPE] [-schema FILE.json] [-into FILE.md -mark MARK] [-check]
  lockgen schema -core SOURCE -backend TYPE,ALIAS=SOURCE … -out FILE.json [-check]
  lockgen backend NAME -out DIR [-module PATH] [-replace CLONE] [-tidy=false]
`

// stale is the error of -check.
type stale struct{ what string }

func (s *stale) Error() string { return s.what + "; run go generate" }

var errUsage = errors.New("wrong usage")

func run(base string, args []string, stdout, stderr io.Writer) int {
	err := dispatch(base, args, stdout)
	var old *stale
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "lockgen: %v\n%s", err, usage)
		return 2
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		fmt.Fprintln(stderr, "lockgen:", line)
	}
	if errors.As(err, &old) {
		return 1
	}
	return 2
}

// dispatch runs one command. Paths are relative to base.
func dispatch(base string, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	name, args := args[0], args[1:]
	switch name {
	case "config":
		return runConfig(base, args, stdout)
	case "schema":
		return runSchema(base, args, stdout)
	case "backend":
		return runBackend(base, args, stdout)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return nil
	}
	return fmt.Errorf("%w: no command %q", errUsage, name)
}

// path is name as seen from base.
func path(base, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(base, name)
}

// readFile is os.ReadFile with an error that names the file once.
func readFile(base, name string) (string, error) {
	data, err := os.ReadFile(path(base, name))
	var at *fs.PathError
	if errors.As(err, &at) {
		err = fmt.Errorf("%s: %w", name, at.Err)
	}
	return string(data), err
}
