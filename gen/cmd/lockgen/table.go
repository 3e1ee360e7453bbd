package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/lockstep-go/lockstep/gen/internal/describe"
	"github.com/lockstep-go/lockstep/gen/internal/splice"
	"github.com/lockstep-go/lockstep/gen/internal/table"
)

func runTable(base string, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("lockgen table", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the error
	dir := flags.String("dir", ".", "the `directory` of the package")
	typ := flags.String("type", "Config", "the `name` of the struct")
	into := flags.String("into", "", "the Markdown `file` to write into")
	mark := flags.String("mark", "", "the `name` in the marker <!-- lockgen:name -->")
	check := flags.Bool("check", false, "write nothing; exit with 1 if the file is stale")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		flags.Usage()
		return err
	case err != nil:
		return fmt.Errorf("%w: table: %w", errUsage, err)
	case flags.NArg() > 0:
		return fmt.Errorf("%w: table: %q is not a flag", errUsage, flags.Arg(0))
	case *into == "" || *mark == "":
		return fmt.Errorf("%w: table: -into and -mark are needed", errUsage)
	}

	s, err := describe.Load(path(base, *dir), *typ)
	if err != nil {
		return err
	}
	text, err := table.Markdown(s)
	if err != nil {
		return err
	}
	doc, err := readFile(base, *into)
	if err != nil {
		return err
	}
	note := fmt.Sprintf("<!-- From the comments of %s.%s. Edit those. -->\n\n", s.Package, s.Name)
	result, changed, err := splice.Replace(doc, *mark, note+text+"\n")
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", *into, err)
	case changed == 0:
		return nil
	case *check:
		return &stale{fmt.Sprintf("%s:%d: the table of %s.%s (mark %q) is stale", *into, changed, s.Package, s.Name, *mark)}
	}
	if err := os.WriteFile(path(base, *into), []byte(result), 0o644); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: the table of %s.%s (mark %q) was written\n", *into, s.Package, s.Name, *mark)
	return nil
}
