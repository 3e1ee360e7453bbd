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
	core := flags.String("core", "", "the `source` of locker.Config: a schema file, or the directory of the package")
	out := flags.String("out", "", "the `file` to write")
	check := flags.Bool("check", false, "write nothing; exit with 1 if the file is stale")
	type backend struct {
		types  []string
		source string
	}
	var backends []backend
	flags.Func("backend", "`TYPE,ALIAS=SOURCE`: a backend's types, and its schema file or its directory; may be given several times", func(s string) error {
		types, source, ok := strings.Cut(s, "=")
		if !ok || types == "" || source == "" {
			return errors.New("write TYPE=SOURCE")
		}
		backends = append(backends, backend{strings.Split(types, ","), source})
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

	whole, err := schemaOf(base, *core)
	if err != nil {
		return err
	}
	var schemas []config.Backend
	for _, b := range backends {
		data, err := schemaOf(base, b.source)
		if err != nil {
			return err
		}
		schemas = append(schemas, config.Backend{Types: b.types, Schema: data})
	}
	data, err := config.Whole(whole, schemas)
	if err != nil {
		return err
	}
	return update(base, []file{{*out, data}}, *check, stdout)
}

// schemaOf is the schema in a file, or that of the struct Config in a directory.
func schemaOf(base, source string) ([]byte, error) {
	if strings.HasSuffix(source, ".json") {
		text, err := readFile(base, source)
		return []byte(text), err
	}
	// The names of variables are no part of a schema.
	out, err := config.Generate(config.Options{Dir: path(base, source), Type: "Config", Env: "X"})
	if err != nil {
		return nil, err
	}
	return out.Schema, nil
}
