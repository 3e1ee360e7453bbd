package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lockstep-go/lockstep/gen/internal/config"
	"github.com/lockstep-go/lockstep/gen/internal/splice"
)

func runConfig(base string, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("lockgen config", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the error
	var o config.Options
	flags.StringVar(&o.Dir, "dir", ".", "the `directory` of the package")
	flags.StringVar(&o.Type, "type", "Config", "the `name` of the struct")
	flags.StringVar(&o.Env, "env", "", "what its environment `variables` begin with, such as LOCKSTEP_REDIS")
	flags.StringVar(&o.Methods, "methods", "", "the `name` of a type, not exported, that gets the methods instead of the struct")
	schema := flags.String("schema", "", "the `file` for the JSON Schema; none is written if it is left out")
	into := flags.String("into", "", "the Markdown `file` for the table; none is written if it is left out")
	mark := flags.String("mark", "", "the `name` in the marker <!-- lockgen:name --> of the table")
	check := flags.Bool("check", false, "write nothing; exit with 1 if a file is stale")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		flags.Usage()
		return err
	case err != nil:
		return fmt.Errorf("%w: config: %w", errUsage, err)
	case flags.NArg() > 0:
		return fmt.Errorf("%w: config: %q is not a flag", errUsage, flags.Arg(0))
	case o.Env == "":
		return fmt.Errorf("%w: config: -env is needed", errUsage)
	case (*into == "") != (*mark == ""):
		return fmt.Errorf("%w: config: -into and -mark belong together", errUsage)
	}

	shown := o.Dir
	o.Dir = path(base, o.Dir)
	out, err := config.Generate(o)
	if err != nil {
		return err
	}
	files := []file{{filepath.Join(shown, config.CodeFile(o.Type)), out.Code}}
	if *schema != "" {
		files = append(files, file{*schema, out.Schema})
	}
	if *into != "" {
		doc, err := readFile(base, *into)
		if err != nil {
			return err
		}
		note := fmt.Sprintf("<!-- From the comments of %s.%s. Edit those. -->\n\n", out.Package, o.Type)
		doc, err = splice.Replace(doc, *mark, note+out.Table+"\n")
		if err != nil {
			return fmt.Errorf("%s: %w", *into, err)
		}
		files = append(files, file{*into, []byte(doc)})
	}
	return update(base, files, *check, stdout)
}

// file is a file as it should be. Its name is relative to base.
type file struct {
	name string
	data []byte
}

// update writes the files that are not as they should be, or says which these are.
func update(base string, files []file, check bool, stdout io.Writer) error {
	var errs []error
	for _, f := range files {
		old, err := os.ReadFile(path(base, f.name))
		missing := errors.Is(err, fs.ErrNotExist)
		switch {
		case err != nil && !missing:
			return err
		case err == nil && bytes.Equal(old, f.data):
		case check && missing:
			errs = append(errs, &stale{f.name + ": it is missing"})
		case check:
			errs = append(errs, &stale{fmt.Sprintf("%s:%d: it is stale", f.name, differing(old, f.data))})
		default:
			if err := os.WriteFile(path(base, f.name), f.data, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(stdout, "%s: written\n", f.name)
		}
	}
	return errors.Join(errs...)
}

// differing is the first line, counted from 1, in which the two differ.
func differing(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return 1 + bytes.Count(a[:n], []byte("\n"))
}
