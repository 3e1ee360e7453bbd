// Package describe reads an annotated configuration struct out of Go source: what every
// generator of lockgen starts from.
//
// A field of the configuration is an exported field with a json name. Its comment is its
// documentation. A field without a comment of its own belongs to the commented field
// directly above it. The tag lockstep:"secret" marks a value that no message may show.
// Structs of the same package, and pointers to them, are objects; their fields follow
// under dotted names. A field with the tag json:"-" can be set in Go only.
package describe

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Struct is one configuration struct.
type Struct struct {
	Package string // the package's name
	Name    string
	Fields  []Field // in the order of the source; an object's own come after it
	// Constants are the values of the package's exported constants by name, as a reader
	// would write them, for comments that speak of them.
	Constants map[string]string
}

// Field is one field of a configuration.
type Field struct {
	Name   string // the json name, dotted within objects; the Go name if GoOnly
	Go     string // the Go name, dotted within objects
	Type   string // "string", "integer", "duration", "list of strings", …; the Go type if GoOnly
	Doc    string // the comment's text; "" if See says where it is
	See    string // the Name of the field whose comment is about this one too
	Secret bool
	GoOnly bool
}

// Load reads the struct type name from the Go files of dir, tests excluded.
func Load(dir, name string) (*Struct, error) {
	p, err := load(dir)
	if err != nil {
		return nil, err
	}
	st, err := p.structType(name)
	if err != nil {
		return nil, err
	}
	s := &Struct{Package: p.name, Name: name, Constants: p.constants}
	if err := p.fields(s, st, "", "", []string{name}); err != nil {
		return nil, err
	}
	if len(s.Fields) == 0 {
		return nil, fmt.Errorf("%s: type %s has no exported field", dir, name)
	}
	return s, nil
}

type pkg struct {
	dir   string
	name  string
	fset  *token.FileSet
	types map[string]*ast.TypeSpec

	constants map[string]string
}

func load(dir string) (*pkg, error) {
	p := &pkg{dir: dir, fset: token.NewFileSet(), types: map[string]*ast.TypeSpec{}, constants: map[string]string{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	for _, e := range entries { // sorted by name
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(p.fset, filepath.Join(dir, e.Name()), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		if p.name != "" && p.name != f.Name.Name {
			return nil, fmt.Errorf("%s: it holds two packages, %s and %s", dir, p.name, f.Name.Name)
		}
		p.name = f.Name.Name
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					p.types[spec.Name.Name] = spec
				case *ast.ValueSpec:
					if g.Tok == token.CONST {
						p.note(spec)
					}
				}
			}
		}
	}
	if p.name == "" {
		return nil, fmt.Errorf("%s: no Go file is in it", dir)
	}
	return p, nil
}

func (p *pkg) structType(name string) (*ast.StructType, error) {
	t, ok := p.types[name]
	if !ok {
		return nil, fmt.Errorf("%s: package %s has no type %s (it has: %s)", p.dir, p.name, name,
			strings.Join(slices.Sorted(maps.Keys(p.types)), ", "))
	}
	st, ok := t.Type.(*ast.StructType)
	if !ok {
		return nil, fmt.Errorf("%s: %s is not a struct", p.at(t), name)
	}
	return st, nil
}

func (p *pkg) at(n ast.Node) token.Position { return p.fset.Position(n.Pos()) }

// fields appends st's fields to s. jsonPath and goPath end with a dot, or are empty;
// within are the types that are being read.
func (p *pkg) fields(s *Struct, st *ast.StructType, jsonPath, goPath string, within []string) error {
	group, groupEnd := "", -1 // the last commented field, and the line on which its group ends so far
	for _, f := range st.Fields.List {
		if len(f.Names) == 0 {
			return fmt.Errorf("%s: an embedded field cannot be described", p.at(f))
		}
		tag, err := tagOf(f)
		if err != nil {
			return fmt.Errorf("%s: %w", p.at(f), err)
		}
		doc := strings.TrimSpace(f.Doc.Text())
		if doc == "" {
			doc = strings.TrimSpace(f.Comment.Text())
		}
		for _, n := range f.Names {
			if !n.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(tag.Get("json"), ",")
			field := Field{Go: goPath + n.Name, Doc: doc, Secret: tag.Get("lockstep") == "secret"}
			switch {
			case name == "":
				return fmt.Errorf(`%s: %s.%s has no json name; give it one, or json:"-" for a field that is set in Go only`, p.at(n), within[len(within)-1], n.Name)
			case name == "-":
				field.Name, field.GoOnly, field.Type = goPath+n.Name, true, types.ExprString(f.Type)
			default:
				field.Name = jsonPath + name
			}
			line := p.at(f).Line
			switch {
			case doc != "":
				group = field.Name
			case group != "" && line == groupEnd+1:
				field.See = group
			default:
				return fmt.Errorf("%s: %s.%s has no comment", p.at(n), within[len(within)-1], n.Name)
			}
			groupEnd = p.fset.Position(f.End()).Line
			if field.GoOnly {
				s.Fields = append(s.Fields, field)
				continue
			}
			if err := p.typed(s, field, f.Type, within); err != nil {
				return err
			}
		}
	}
	return nil
}

func tagOf(f *ast.Field) (reflect.StructTag, error) {
	if f.Tag == nil {
		return "", nil
	}
	text, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return "", fmt.Errorf("the tag %s: %w", f.Tag.Value, err)
	}
	return reflect.StructTag(text), nil
}

// typed appends field with its type, and what lies within it.
func (p *pkg) typed(s *Struct, field Field, expr ast.Expr, within []string) error {
	kind, object, err := p.kind(expr)
	if err != nil {
		return fmt.Errorf("%s: field %s: %w", p.at(expr), field.Go, err)
	}
	field.Type = kind
	s.Fields = append(s.Fields, field)
	if object == "" {
		return nil
	}
	if slices.Contains(within, object) {
		return fmt.Errorf("%s: field %s: %s contains itself", p.at(expr), field.Go, object)
	}
	st, err := p.structType(object)
	if err != nil {
		return err
	}
	return p.fields(s, st, field.Name+".", field.Go+".", append(slices.Clone(within), object))
}

// kind names a type as a reader of a configuration file would; object is the name of
// the struct, if it is one.
func (p *pkg) kind(expr ast.Expr) (kind, object string, err error) {
	switch t := expr.(type) {
	case *ast.StarExpr:
		return p.kind(t.X)
	case *ast.ArrayType:
		item, object, err := p.kind(t.Elt)
		if err != nil || t.Len != nil || object != "" || strings.HasPrefix(item, "list") {
			break
		}
		return "list of " + item + "s", "", nil
	case *ast.SelectorExpr:
		if types.ExprString(t) == "time.Duration" {
			return "duration", "", nil
		}
	case *ast.InterfaceType:
		if len(t.Methods.List) == 0 {
			return "object", "", nil
		}
	case *ast.Ident:
		if kind, ok := basics[t.Name]; ok {
			return kind, "", nil
		}
		spec := p.types[t.Name]
		if spec == nil {
			break
		}
		if _, ok := spec.Type.(*ast.StructType); ok {
			return "object", t.Name, nil
		}
		return p.kind(spec.Type)
	}
	return "", "", fmt.Errorf("a %s cannot be configured", types.ExprString(expr))
}

var basics = map[string]string{
	"string": "string", "bool": "boolean", "any": "object", "float32": "number", "float64": "number",
	"int": "integer", "int8": "integer", "int16": "integer", "int32": "integer", "int64": "integer",
	"uint": "integer", "uint8": "integer", "uint16": "integer", "uint32": "integer", "uint64": "integer",
}
