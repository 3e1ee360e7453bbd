package scaffold

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strings"
)

var (
	// Of a URL's scheme, one letter is taken for a drive.
	isName   = regexp.MustCompile(`^[a-z][a-z0-9]{1,31}$`)
	isModule = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._~-]*[A-Za-z0-9_~-])?(/[A-Za-z0-9_~-]([A-Za-z0-9._~-]*[A-Za-z0-9_~-])?)*$`)
)

// taken are the types and URL schemes of the published backends, and what package locker
// itself takes a source for.
var taken = []string{"env", "inmemory", "memory", "redis", "rediss", "unix"}

// reserved are names that packages have for a purpose.
var reserved = []string{"init", "internal", "main", "proof", "testdata", "vendor"}

// CheckName says what is wrong with the name of a backend.
func CheckName(name string) error {
	switch {
	case !isName.MatchString(name):
		return fmt.Errorf("the name %.64q is no Go package name: want 2 to 32 lower-case letters and digits, a letter first", name)
	case token.IsKeyword(name), types.Universe.Lookup(name) != nil:
		return fmt.Errorf("the name %s has a meaning in Go; choose another", name)
	case slices.Contains(taken, name):
		return fmt.Errorf("the name %s is taken, by a backend or a URL scheme of Lockstep's; choose another", name)
	case slices.Contains(reserved, name):
		return fmt.Errorf("the name %s is for packages of another kind; choose another", name)
	}
	used, err := usesItself(name)
	if err == nil && used {
		err = fmt.Errorf("the name %s is that of something else in the generated code; choose another", name)
	}
	return err
}

// usesItself says whether a file that imports the package uses its name for something else.
func usesItself(name string) (bool, error) {
	const placeholder = "backendname"
	files, err := Backend{Name: placeholder, Module: "example.com/" + placeholder, Version: "v0.0.0"}.Files()
	if err != nil {
		return false, err
	}
	used := false
	for _, f := range files {
		if !strings.HasSuffix(f.Name, ".go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), f.Name, f.Text, 0)
		if err != nil {
			return false, err
		}
		if tree.Name.Name == placeholder {
			continue // within the package its name is nobody's
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			used = used || ok && id.Name == name && n != tree.Name
			return true
		})
	}
	return used, nil
}

// CheckModule says what is wrong with the path of a module.
func CheckModule(path string) error {
	switch {
	case len(path) > 255 || !isModule.MatchString(path) || strings.Contains(path, ".."):
		return fmt.Errorf("the module path %.128q is none: want elements of letters, digits and -._~ between slashes, such as example.com/locks/etcd", path)
	case path == Lockstep, path == Lockstep+"/locker", path == Lockstep+"/conformance":
		return errors.New("the module path " + path + " is Lockstep's own")
	}
	return nil
}
