package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
)

const chosenEnv = "LOCKSTEP_CHOSEN_MUTANT"

// chooser is added by the overlay to each package that changes.
const chooser = `package %s

import "os"

var mutant = os.Getenv("` + chosenEnv + `")
`

// A language is how sources of one kind know which mutant is chosen.
type language struct {
	chosen func(name string) string // an expression, in parentheses
	// script.go of the Redis backend and schema.go of the Postgres one hand the name on to what
	// they send to their server.
	file, old, new string
}

var languages = map[string]language{
	".go": {chosen: func(name string) string { return fmt.Sprintf("(mutant == %q)", name) }},
	".lua": {
		chosen: func(name string) string { return fmt.Sprintf("(mutant == %q)", name) },
		file:   "script.go",
		old:    "rueidis.NewLuaScript(",
		new:    `rueidis.NewLuaScript(fmt.Sprintf("local mutant = %q\n", mutant) + `,
	},
	".sql": {
		chosen: func(name string) string { return "('" + strings.ReplaceAll(name, "'", "''") + "' = @mutant@)" },
		file:   "schema.go",
		old:    "	pairs := []string{",
		new:    "	pairs := []string{\"@mutant@\", literal(mutant), ",
	},
}

// overlay is the sources that differ from those in the repository, by path from its root.
type overlay struct {
	root    string
	sources map[string]string
}

func (o *overlay) read(file string) error {
	if _, ok := o.sources[file]; ok {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(o.root, file))
	o.sources[file] = string(data)
	return err
}

// add makes all changes of a base.
func (o *overlay) add(b base) error {
	for _, c := range b.changes {
		file := path.Join(b.sources, c.file)
		if err := o.read(file); err != nil {
			return err
		}
		if n := strings.Count(o.sources[file], c.old); n != 1 {
			return fmt.Errorf("the mutant %q: its text stands %d times in %s, want once; the source has changed, so change the table:\n%s", c.name, n, file, c.old)
		}
		l, ok := languages[path.Ext(file)]
		if !ok {
			return fmt.Errorf("the mutant %q: %s is in no language that is known here", c.name, file)
		}
		o.sources[file] = strings.Replace(o.sources[file], c.old, strings.ReplaceAll(c.new, "MUTATED", l.chosen(c.name)), 1)
		if l.file != "" {
			if err := o.handOn(path.Join(b.sources, l.file), l); err != nil {
				return err
			}
		}
	}
	for file := range maps.Clone(o.sources) {
		if in := path.Dir(file); path.Ext(file) == ".go" && (in == b.sources || strings.HasPrefix(in, b.sources+"/")) {
			o.sources[path.Join(in, "mutant.go")] = fmt.Sprintf(chooser, path.Base(in))
		}
	}
	return nil
}

// handOn has the Go file hand the chosen name on, once.
func (o *overlay) handOn(file string, l language) error {
	if err := o.read(file); err != nil {
		return err
	}
	if strings.Contains(o.sources[file], l.new) {
		return nil
	}
	if !strings.Contains(o.sources[file], l.old) {
		return fmt.Errorf("%s does not contain %q any more: change the table of languages", file, l.old)
	}
	o.sources[file] = strings.ReplaceAll(o.sources[file], l.old, l.new)
	return nil
}

// write writes it into dir, and returns the file for go build's -overlay.
func (o *overlay) write(dir string) (string, error) {
	replace := map[string]string{}
	for name, text := range o.sources {
		file := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(o.root, name)] = file
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, data, 0o644)
}

// writeOverlay writes all changes of all bases.
func writeOverlay(root, dir string, all ...base) (string, error) {
	o := &overlay{root: root, sources: map[string]string{}}
	for _, b := range all {
		if err := o.add(b); err != nil {
			return "", err
		}
	}
	return o.write(dir)
}
