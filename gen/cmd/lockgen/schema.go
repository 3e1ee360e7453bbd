package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/lockstep-go/lockstep/gen/internal/config"
)

func runSchema(base string, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("lockgen schema", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the error
	core := flags.String("core", "", "the schema `file` of locker.Config")
	out := flags.String("out", "", "the `file` to write")
	check := flags.Bool("check", false, "write nothing; exit with 1 if the file is stale")
	type backend struct {
		types []string
		file  string
	}
	var backends []backend
	flags.Func("backend", "`TYPE,ALIAS=FILE`: a backend's types and its schema file; may be given several times", func(s string) error {
		types, file, ok := strings.Cut(s, "=")
		if !ok || types == "" || file == "" {
			return errors.New("write TYPE=FILE")
		}
		backends = append(backends, backend{strings.Split(types, ","), file})
		return nil
	})
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		flags.Usage()
		return err
	case err != nil:
		return fmt.Errorf("%w: schema: %w", errUsage, err)
	case flags.NArg() > 0:
		return fmt.Errorf("%w: schema: %q is not a flag", errUsage, flags.Arg(0))
	case *core == "" || *out == "" || len(backends) == 0:
		return fmt.Errorf("%w: schema: -core, -backend and -out are needed", errUsage)
	}

	whole, err := readFile(base, *core)
	if err != nil {
		return err
	}
	var schemas []config.Backend
	for _, b := range backends {
		data, err := readFile(base, b.file)
		if err != nil {
			return err
		}
		schemas = append(schemas, config.Backend{Types: b.types, Schema: []byte(data)})
	}
	data, err := config.Whole([]byte(whole), schemas)
	if err != nil {
		return err
	}
	return update(base, []file{{*out, data}}, *check, stdout)
}
