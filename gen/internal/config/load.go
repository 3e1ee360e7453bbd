package config

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// source is the package that holds the struct, parsed and type-checked as far as it goes.
type source struct {
	dir      string // as the caller wrote it, for messages
	name     string
	fset     *token.FileSet
	files    []*ast.File
	types    *types.Package
	info     *types.Info
	problems []packages.Error // what the type checker found
}

// load reads the package in dir. The file generated is taken for empty: what is generated
// depends on what is written by hand only, and a file that is stale, broken or missing
// hinders nobody. The rest of the package then lacks the generated methods; that, and
// imports that cannot be had, are no errors here. The compiler reports them anyway.
func load(dir, generated string) (*source, error) {
	name, err := packageName(dir, generated)
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &source{dir: dir, name: name, fset: token.NewFileSet()}
	conf := &packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports |
			packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo,
		Dir: abs, Fset: s.fset,
	}
	if file := filepath.Join(abs, generated); exists(file) {
		conf.Overlay = map[string][]byte{file: []byte("package " + name + "\n")}
	}
	p, err := loadPackage(conf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	for _, e := range p.Errors {
		if e.Kind == packages.ParseError {
			return nil, errors.New(s.place(e.Pos) + ": " + e.Msg)
		}
		if e.Kind == packages.TypeError {
			s.problems = append(s.problems, e)
		}
	}
	s.files, s.types, s.info = p.Syntax, p.Types, p.TypesInfo
	return s, nil
}

// loadPackage also finds a module that is in no workspace, but in a folder below one, as a
// new one is.
func loadPackage(conf *packages.Config) (*packages.Package, error) {
	var first error
	for _, workspace := range []string{"", "GOWORK=off"} {
		if workspace != "" {
			conf.Env = append(os.Environ(), workspace)
		}
		pkgs, err := packages.Load(conf, ".")
		if err == nil && len(pkgs) == 1 && len(pkgs[0].Syntax) > 0 && pkgs[0].Types != nil {
			return pkgs[0], nil
		}
		if err == nil && len(pkgs) == 1 && len(pkgs[0].Errors) > 0 {
			err = pkgs[0].Errors[0]
		}
		if err == nil {
			err = errors.New("the go command finds no package there")
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// packageName is the name of the package in dir, by its files beside the generated one.
func packageName(dir, generated string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") || e.Name() == generated {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, e.Name()), nil, parser.PackageClauseOnly)
		if err != nil {
			return "", err
		}
		return f.Name.Name, nil
	}
	return "", fmt.Errorf("%s: no Go file is in it", dir)
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// at is where n stands, with the folder as the caller wrote it.
func (s *source) at(n ast.Node) string { return s.place(s.fset.Position(n.Pos()).String()) }

func (s *source) place(position string) string {
	return filepath.Join(s.dir, filepath.Base(position))
}

func (s *source) errorf(n ast.Node, format string, args ...any) error {
	return fmt.Errorf("%s: "+format, append([]any{s.at(n)}, args...)...)
}

// typeSpec finds a type of the package and its comment.
func (s *source) typeSpec(name string) (*ast.TypeSpec, *ast.CommentGroup) {
	for _, f := range s.files {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				if t := spec.(*ast.TypeSpec); t.Name.Name == name {
					if t.Doc == nil && len(g.Specs) == 1 {
						return t, g.Doc
					}
					return t, t.Doc
				}
			}
		}
	}
	return nil, nil
}

func (s *source) typeNames() []string {
	var names []string
	for _, name := range s.types.Scope().Names() {
		if _, ok := s.types.Scope().Lookup(name).(*types.TypeName); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// method finds a method of a type, by value or by pointer.
func (s *source) method(typ, name string) *ast.FuncDecl {
	for _, f := range s.files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || fn.Name.Name != name || len(fn.Recv.List) != 1 {
				continue
			}
			recv := fn.Recv.List[0].Type
			if star, ok := recv.(*ast.StarExpr); ok {
				recv = star.X
			}
			if id, ok := recv.(*ast.Ident); ok && id.Name == typ {
				return fn
			}
		}
	}
	return nil
}
