package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	file := flag.String("catalogue", "", "write the catalogue of the clauses into this `file`, and run no mutant")
	of := flag.String("of", "", "run only the mutants of this: backend, or a `base` (core, memory, dirlock, Redis, Postgres)")
	name := flag.String("name", "", "run only the mutants of bases whose name matches this `expression`")
	own := flag.Bool("own", false, "run those of bases by their own clause only, which takes a tenth of the time and says nothing of what fails first")
	flag.Parse()
	var ok bool
	named, err := regexp.Compile(*name)
	if err == nil {
		ok, err = run(ctx, *file, choice{of: *of, name: named, own: *own})
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	case !ok:
		os.Exit(1)
	}
}

func run(ctx context.Context, file string, chosen choice) (ok bool, err error) {
	root, err := workspace(ctx)
	if err != nil {
		return false, err
	}
	if file != "" {
		all, err := names(ctx, root)
		if err != nil {
			return false, err
		}
		return true, os.WriteFile(file, []byte(catalogue(all)), 0o644)
	}
	all, err := runAll(ctx, root, chosen)
	if err != nil {
		return false, err
	}
	report(os.Stdout, all)
	return count(all).ok(), nil
}

// workspace is the folder of the repository.
func workspace(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	if err != nil {
		return "", err
	}
	file := strings.TrimSpace(string(out))
	if filepath.Base(file) != "go.work" {
		return "", fmt.Errorf("the workspace is needed: GOWORK is %q", file)
	}
	return filepath.Dir(file), nil
}
