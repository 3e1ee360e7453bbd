package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/lockstep-go/lockstep/gen/internal/scaffold"
)

// runBackend writes the module of a new backend.
func runBackend(base string, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("lockgen backend NAME", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the error
	out := flags.String("out", "", "the `directory` of the new module, which is empty or not there")
	module := flags.String("module", "", "the `path` of the new module (default example.com/locks/NAME)")
	replace := flags.String("replace", "", "the `directory` of a clone of Lockstep to take the published modules from")
	tidy := flags.Bool("tidy", true, "run go mod tidy in the new module")
	var name string
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stdout)
		flags.Usage()
		return err
	case err != nil:
		return fmt.Errorf("%w: backend: %w", errUsage, err)
	case name == "" && flags.NArg() == 1:
		name = flags.Arg(0)
	case flags.NArg() > 0:
		return fmt.Errorf("%w: backend: %q is not a flag", errUsage, flags.Arg(0))
	}
	if name == "" || *out == "" {
		return fmt.Errorf("%w: backend: NAME and -out are needed", errUsage)
	}

	b := scaffold.Backend{Name: name, Module: *module}
	if err := scaffold.CheckName(name); err != nil {
		return err
	}
	if b.Module == "" {
		b.Module = "example.com/locks/" + name
	}
	if err := scaffold.CheckModule(b.Module); err != nil {
		return err
	}
	dir, err := filepath.Abs(path(base, *out))
	if err != nil {
		return err
	}
	if b.Version, b.Clone, err = lockstep(base, *replace, dir); err != nil {
		return err
	}
	files, err := b.Files()
	if err != nil {
		return err
	}
	if files, err = generated(files); err != nil {
		return err
	}
	if err := scaffold.Write(dir, files); err != nil {
		return err
	}
	if *tidy {
		for _, folder := range []string{".", "proof"} {
			if err := goModTidy(filepath.Join(dir, folder)); err != nil {
				return fmt.Errorf("the files are in %s, but %w", *out, err)
			}
		}
	}
	tell(stdout, *out, dir, b, len(files))
	return nil
}

// lockstep says where a new module in the directory out gets the published modules from: at
// this command's own version, if that was released, and otherwise from a clone.
func lockstep(base, replace, out string) (version, clone string, err error) {
	const unreleased = "v0.0.0"
	if replace != "" {
		if clone, err = filepath.Abs(path(base, replace)); err != nil {
			return "", "", err
		}
		if err := scaffold.CheckClone(clone); err != nil {
			return "", "", fmt.Errorf("-replace %s: this is no clone of Lockstep: %w", replace, err)
		}
		return unreleased, scaffold.FromModule(clone, out), nil
	}
	// Only what came through a module proxy has a checksum; a version can also be
	// made up, by go build from the state of a clone.
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Sum != "" {
		return info.Main.Version, "", nil
	}
	dir, err := filepath.Abs(base)
	if err != nil {
		return "", "", err
	}
	if clone = scaffold.FindClone(dir); clone == "" {
		return "", "", errors.New("this lockgen is no released one, and the working directory is not in a clone of Lockstep: say where one is with -replace DIR")
	}
	return unreleased, scaffold.FromModule(clone, out), nil
}

// generated runs the lockgen lines among the //go:generate comments of a new module, which is
// not at its place yet, and returns the files with what they made.
func generated(files []scaffold.File) ([]scaffold.File, error) {
	dir, err := os.MkdirTemp("", "lockgen")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := scaffold.Write(dir, files); err != nil {
		return nil, err
	}
	for _, f := range files {
		if filepath.Ext(f.Name) != ".go" {
			continue
		}
		for line := range strings.Lines(string(f.Text)) {
			args, ok := lockgenLine(line)
			if !ok {
				continue
			}
			at := filepath.Join(dir, filepath.Dir(filepath.FromSlash(f.Name)))
			if err := dispatch(at, args, io.Discard); err != nil {
				return nil, fmt.Errorf("%s: %w", f.Name, err)
			}
		}
	}
	var all []scaffold.File
	root := os.DirFS(dir)
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(root, name)
		all = append(all, scaffold.File{Name: name, Text: text})
		return err
	})
	return all, err
}

// lockgenLine gives the arguments of a lockgen call in a line such as
// "//go:generate go run ./gen/cmd/lockgen config …" or "//go:generate lockgen config …".
func lockgenLine(line string) (args []string, ok bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), "//go:generate ")
	words := strings.Fields(rest)
	for i, w := range words {
		name, _, _ := strings.Cut(w, "@")
		if ok && (name == "lockgen" || strings.HasSuffix(name, "/lockgen")) {
			return words[i+1:], true
		}
	}
	return nil, false
}

// goModTidy completes go.mod and go.sum, as if there were no workspace: one above the
// directory would not know of it.
func goModTidy(dir string) error {
	cmd := exec.Command("go", "mod", "tidy")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "PWD="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go mod tidy failed in %s; mend what it says and run it again:\n%s%w", dir, out, err)
	}
	return nil
}

// tell says what there is now, and what to do next.
func tell(stdout io.Writer, out, dir string, b scaffold.Backend, files int) {
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s: the module %s was written, %d files.\n", out, b.Module, files)
	proof := filepath.Join(out, "proof")
	fmt.Fprintf(&text, "\nThe page for its author is %s.\n", b.Docs())
	if work := workspace(dir); work != "" {
		fmt.Fprintf(&text, "\n%s hides the module from the go command. Let it use both:\n\n  go work use %s %s\n", work, out, proof)
	}
	fmt.Fprintf(&text, `
  cd %s && go test ./...
  cd %s && go test

The second runs the suite. In it %d cases fail until you write what they stand under; README.md in the module lists them too.
`, out, proof, b.Failing())
	for i, step := range b.Unwritten() {
		fmt.Fprintf(&text, "\n%d. %s\n\n%s\n", i+1, step.What, scaffold.Fold(step.Cases, "     "))
	}
	_, _ = text.WriteTo(stdout)
}

// workspace is the go.work above dir, or "".
func workspace(dir string) string {
	for {
		if name := filepath.Join(dir, "go.work"); isFile(name) {
			return name
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}
