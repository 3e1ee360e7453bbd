package walls

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/modfile"
)

// read reads the repository whose root is the folder root. It parses files and asks the
// go command nothing: what is behind a build tag, for another system, or in a test counts
// as well.
func read(root string) (repository, error) {
	var r repository
	data, err := os.ReadFile(filepath.Join(root, "go.work"))
	if err != nil {
		return r, err
	}
	work, err := modfile.ParseWork("go.work", data, nil)
	if err != nil {
		return r, err
	}
	r.workGoLine = work.Go.Version
	for _, use := range work.Use {
		r.work = append(r.work, path.Clean(use.Path))
	}

	index := map[string]int{} // by folder, in r.modules
	err = walk(root, func(name string) error {
		if path.Base(name) != "go.mod" {
			return nil
		}
		m, err := readModule(root, path.Dir(name))
		if err != nil {
			return err
		}
		index[m.dir] = len(r.modules)
		r.modules = append(r.modules, m)
		return nil
	})
	if err != nil {
		return r, err
	}
	err = walk(root, func(name string) error {
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		dir := path.Dir(name)
		for {
			if _, ok := index[dir]; ok || dir == "." {
				break
			}
			dir = path.Dir(dir)
		}
		i, ok := index[dir]
		if !ok {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(name)), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			r.modules[i].imports[imported] = append(r.modules[i].imports[imported], name)
		}
		return nil
	})
	return r, err
}

func readModule(root, dir string) (module, error) {
	m := module{dir: dir, replaces: map[string]string{}, imports: map[string][]string{}}
	folder := filepath.Join(root, filepath.FromSlash(dir))
	data, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	if err != nil {
		return m, err
	}
	f, err := modfile.Parse(path.Join(dir, "go.mod"), data, nil)
	if err != nil {
		return m, err
	}
	m.path = f.Module.Mod.Path
	if f.Go != nil {
		m.goLine = f.Go.Version
	}
	if f.Toolchain != nil {
		m.toolchain = f.Toolchain.Name
	}
	for _, r := range f.Require {
		if r.Indirect {
			m.indirect = append(m.indirect, r.Mod.Path)
		} else {
			m.requires = append(m.requires, r.Mod.Path)
		}
	}
	for _, r := range f.Replace {
		m.replaces[r.Old.Path] = r.New.Path
	}
	for _, t := range f.Tool {
		m.tools = append(m.tools, t.Path)
	}
	_, err = os.Stat(filepath.Join(folder, "LICENSE"))
	m.license = err == nil
	return m, nil
}

// walk calls visit for every file that the go command could look at, by its slash path
// from root. As the go command does, it leaves out testdata and hidden folders.
func walk(root string, visit func(name string) error) error {
	return fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "vendor") {
				return fs.SkipDir
			}
			return nil
		}
		return visit(name)
	})
}
