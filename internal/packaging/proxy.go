package packaging

import (
	"encoding/json"
	"os"
	"path/filepath"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// WriteProxy zips the modules at version into dir and lays dir out as a module proxy,
// which GOPROXY names as "file://" + dir.
//
// It zips the working tree, not a commit, so that it says something about the code in
// front of you. edit changes each go.mod on its way into the zip, as a release would
// ([Pin]); nothing here is touched.
func WriteProxy(dir, version string, modules []Module, edit func(*modfile.File) error) error {
	for _, m := range modules {
		if err := writeModule(dir, module.Version{Path: m.Path, Version: version}, m, edit); err != nil {
			return err
		}
	}
	return nil
}

func writeModule(dir string, v module.Version, m Module, edit func(*modfile.File) error) error {
	f, err := m.File()
	if err != nil {
		return err
	}
	if err := edit(f); err != nil {
		return err
	}
	f.Cleanup()
	mod, err := f.Format()
	if err != nil {
		return err
	}

	escaped, err := module.EscapePath(v.Path)
	if err != nil {
		return err
	}
	at := filepath.Join(dir, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	info, err := json.Marshal(struct{ Version string }{v.Version})
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"list":              []byte(v.Version + "\n"),
		v.Version + ".info": info,
		v.Version + ".mod":  mod,
	} {
		if err := os.WriteFile(filepath.Join(at, name), data, 0o644); err != nil {
			return err
		}
	}
	return writeZip(filepath.Join(at, v.Version+".zip"), v, m.Dir, mod)
}

// writeZip zips a copy, because the go.mod in the zip must be the one beside it.
func writeZip(name string, v module.Version, from string, mod []byte) error {
	dir, err := os.MkdirTemp("", "packaging")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), mod, 0o644); err != nil {
		return err
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := zip.CreateFromDir(out, v, dir); err != nil {
		return err
	}
	return out.Close()
}
