// Command pin makes all modules of this workspace require the published ones at one
// version. It is the first step of a release: see docs/releasing.md.
//
//	go run ./internal/packaging/pin v0.2.0
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lockstep-go/lockstep/internal/packaging"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pin:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: pin VERSION")
	}
	root, err := packaging.Root()
	if err != nil {
		return err
	}
	all, err := packaging.Modules(root)
	if err != nil {
		return err
	}
	// Nobody gets the root module, but by itself (GOWORK=off) it builds only with
	// versions that are as great as those its requirements ask for.
	workshop := packaging.Module{Folder: ".", Dir: root}
	if workshop.Mod, err = os.ReadFile(filepath.Join(root, "go.mod")); err != nil {
		return err
	}
	for _, m := range append(all, workshop) {
		f, err := m.File()
		if err != nil {
			return err
		}
		if err := packaging.Pin(f, all, args[0]); err != nil {
			return err
		}
		f.Cleanup()
		text, err := f.Format()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(m.Dir, "go.mod"), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
