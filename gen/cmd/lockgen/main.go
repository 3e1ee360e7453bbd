// Command lockgen writes what must agree with a backend's configuration, so that nobody
// writes it twice by hand.
//
//	lockgen config -dir backends/redis -env LOCKSTEP_REDIS -schema backends/redis/config.schema.json \
//		-into docs/configuration.md -mark redis
//
// reads the annotated struct Config and writes config_gen.go beside it, with its defaults,
// its validation, its environment variables and, if it holds secrets, masked printing; a
// JSON Schema; and a table of its fields, between the lines <!-- lockgen:redis --> and
// <!-- /lockgen --> of a document. The README of this module lists the annotations.
//
// With -check it writes nothing, and says what is stale.
//
//	lockgen schema -core locker/config.schema.json -backend redis=backends/redis/config.schema.json \
//		-out docs/lockstep.schema.json
//
// makes one schema of a whole configuration file out of those.
//
//	lockgen check generate.go
//
// runs every lockgen line among the //go:generate lines of a file with -check.
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
  lockgen config -dir DIR -type NAME -env PREFIX [-schema FILE.json] [-into FILE.md -mark MARK] [-check]
  lockgen schema -core FILE.json -backend TYPE,ALIAS=FILE.json … -out FILE.json [-check]
  lockgen check FILE.go
  lockgen backend NAME -out DIR [-module PATH] [-replace CLONE] [-tidy=false]
`

// command is one generator. Paths are relative to base.
type command func(base string, args []string, stdout io.Writer) error

var generators = map[string]command{"config": runConfig, "schema": runSchema}

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

func dispatch(base string, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	name, args := args[0], args[1:]
	if generate, ok := generators[name]; ok {
		return generate(base, args, stdout)
	}
	switch name {
	case "backend":
		return runBackend(base, args, stdout)
	case "check":
		return runCheck(base, args, stdout)
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
