package packaging

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// Module is one of the published modules, as it is in the working tree.
type Module struct {
	Path   string // its module path
	Folder string // where it is, relative to the workspace, with slashes
	Dir    string // the same as a path of this machine
	Mod    []byte // its go.mod
}

// Name is the folder with dashes for slashes: the name of the module's records.
func (m Module) Name() string { return strings.ReplaceAll(m.Folder, "/", "-") }

// File is go.mod, parsed.
func (m Module) File() (*modfile.File, error) {
	return modfile.Parse(filepath.Join(m.Dir, "go.mod"), m.Mod, nil)
}

// Modules are the published modules of the workspace at root: all that go.work uses,
// except the root module, which is the workshop. There is no second list, so that a
// module that joins the workspace joins the proof.
func Modules(root string) ([]Module, error) {
	name := filepath.Join(root, "go.work")
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	work, err := modfile.ParseWork(name, data, nil)
	if err != nil {
		return nil, err
	}
	var all []Module
	for _, use := range work.Use {
		folder := filepath.ToSlash(filepath.Clean(use.Path))
		if folder == "." {
			continue
		}
		m := Module{Folder: folder, Dir: filepath.Join(root, folder)}
		if m.Mod, err = os.ReadFile(filepath.Join(m.Dir, "go.mod")); err != nil {
			return nil, err
		}
		if m.Path = modfile.ModulePath(m.Mod); m.Path == "" {
			return nil, fmt.Errorf("%s/go.mod names no module", folder)
		}
		all = append(all, m)
	}
	return all, nil
}

// Siblings are the requirements of f that are among all.
func Siblings(f *modfile.File, all []Module) []*modfile.Require {
	return slices.DeleteFunc(slices.Clone(f.Require), func(r *modfile.Require) bool {
		return !slices.ContainsFunc(all, func(m Module) bool { return m.Path == r.Mod.Path })
	})
}

// Root finds the workspace above the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.work above the working directory")
		}
		dir = parent
	}
}
