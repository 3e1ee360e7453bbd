// Package scaffold makes the module of a new backend out of the files in template, which
// are text/template over [Backend], and says which cases of the suite fail until
// its author has written the rest.
//
// The module has another one in its folder proof, for the suite: the requirements of a
// published module's tests reach its users.
package scaffold

import (
	"bytes"
	"embed"
	"fmt"
	"go/format"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// Lockstep begins the paths of the published modules.
const Lockstep = "github.com/lockstep-go/lockstep"

// Backend is what the templates know.
type Backend struct {
	Name    string // of the package, the type and the URL scheme
	Module  string // its path
	Version string // at which the published modules are required
	// Clone is where the published modules are instead, or "": an absolute path, or one
	// relative to the module's folder that begins with a dot.
	Clone string
}

// Go is the go line of the new module.
func (Backend) Go() string { return "1.25.0" }

// Lockstep is for the templates.
func (Backend) Lockstep() string { return Lockstep }

// Lockgen is how the module's //go:generate lines call lockgen: of a clone there is no version
// to call, and the author has it installed.
func (b Backend) Lockgen() string {
	if b.Clone != "" {
		return "lockgen"
	}
	return "go run " + Lockstep + "/gen/cmd/lockgen@" + b.Version
}

// Env begins the names of the backend's environment variables.
func (b Backend) Env() string { return "LOCKSTEP_" + strings.ToUpper(b.Name) }

// Annotations is the page about what Lockgen reads.
func (Backend) Annotations() string { return "https://" + Lockstep + "/blob/main/gen/README.md" }

// Docs is the page for authors.
func (Backend) Docs() string { return "https://" + Lockstep + "/blob/main/docs/write-a-backend.md" }

// Import is the line that imports the package, with its name where the path does not
// end with it.
func (b Backend) Import() string {
	if path.Base(b.Module) == b.Name {
		return strconv.Quote(b.Module)
	}
	return b.Name + " " + strconv.Quote(b.Module)
}

// Unwritten are the cases that fail at first.
func (Backend) Unwritten() []Step { return Unwritten() }

// Failing is how many there are.
func (Backend) Failing() (n int) {
	for _, s := range Unwritten() {
		n += len(s.Cases)
	}
	return n
}

// A File is one file of the new module.
type File struct {
	Name string // relative to its folder, with slashes
	Text []byte
}

const (
	root   = "template"
	suffix = ".tmpl"
)

//go:embed template
var templates embed.FS

// Files are all files of the new module, in the order of their names. Name and Module have
// been checked.
func (b Backend) Files() ([]File, error) {
	var files []File
	err := fs.WalkDir(templates, root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := templates.ReadFile(name)
		if err != nil {
			return err
		}
		name = strings.TrimSuffix(strings.TrimPrefix(name, root+"/"), suffix)
		file, err := b.file(name, string(text))
		files = append(files, file)
		return err
	})
	slices.SortFunc(files, func(x, y File) int { return strings.Compare(x.Name, y.Name) })
	return files, err
}

func (b Backend) file(name, text string) (File, error) {
	t, err := template.New(name + suffix).Funcs(template.FuncMap{
		"clone":    func(module string) string { return b.replacement(module, strings.Count(name, "/")) },
		"requires": b.proofRequires,
		"fold":     func(ids []string) string { return Fold(ids, "") },
		"number":   func(i int) int { return i + 1 },
	}).Parse(text)
	if err != nil {
		return File{}, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, b); err != nil {
		return File{}, err
	}
	file := File{name, out.Bytes()}
	if path.Ext(name) == ".go" {
		// The order of imports depends on the module's path.
		if file.Text, err = format.Source(file.Text); err != nil {
			return File{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	return file, nil
}

// replacement is the folder of a published module, as seen from depth folders below the new
// module's own, in the form that go.mod wants.
func (b Backend) replacement(module string, depth int) string {
	dir := b.Clone + "/" + module
	if strings.HasPrefix(dir, ".") {
		dir = strings.Repeat("../", depth) + strings.TrimPrefix(dir, "./")
	}
	if strings.ContainsAny(dir, " \t\"'`()[]{},") || strings.Contains(dir, "//") {
		return strconv.Quote(dir)
	}
	return dir
}

var isMajor = regexp.MustCompile(`/v([2-9]|[1-9][0-9]+)$`)

// proofRequires are the requirements of the suite's module, in go mod tidy's order.
func (b Backend) proofRequires() []string {
	self := " v0.0.0"
	if major := isMajor.FindString(b.Module); major != "" {
		self = " " + major[1:] + ".0.0"
	}
	lines := []string{Lockstep + "/conformance " + b.Version, Lockstep + "/locker " + b.Version, b.Module + self}
	slices.Sort(lines)
	return lines
}
