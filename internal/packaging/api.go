package packaging

import (
	"context"
	"fmt"
	"go/types"
	"os"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// API is the exported API of m, sorted: one line for each thing that users can name.
// A line that goes away breaks somebody, and so does one that changes; one that is
// added breaks nobody.
//
// Hence an interface that users can implement is one line with all its methods, because
// they would lack a new one, while each field of a struct and each method of a type has
// a line of its own. A struct that can be compared has a line that says so.
//
// The platform is this machine's: nothing exported here depends on it. Methods of an
// unexported type that an exported function returns are not seen.
func API(ctx context.Context, m Module) ([]string, error) {
	pkgs, err := packages.Load(&packages.Config{
		Context: ctx,
		Dir:     m.Dir,
		Mode:    packages.NeedName | packages.NeedTypes | packages.NeedImports,
		Env:     append(os.Environ(), "GOWORK=off"),
		// As the App builds, so that the build cache has each dependency once.
		BuildFlags: []string{"-trimpath"},
	}, "./...")
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, p := range pkgs {
		if len(p.Errors) > 0 {
			return nil, p.Errors[0]
		}
		if p.Name == "main" || slices.Contains(strings.Split(p.PkgPath, "/"), "internal") {
			continue
		}
		// Without what begins all paths of this repository.
		lines = append(lines, packageAPI(p.Types, strings.TrimSuffix(m.Path, m.Folder))...)
	}
	slices.Sort(lines)
	return slices.Compact(lines), nil
}

// packageAPI is the API of one package, unsorted. trim is left out where an import path
// begins with it.
func packageAPI(p *types.Package, trim string) []string {
	w := &writer{pkg: p, trim: trim}
	scope := p.Scope()
	for _, name := range scope.Names() {
		if obj := scope.Lookup(name); obj.Exported() {
			w.object(obj)
		}
	}
	return w.lines
}

type writer struct {
	pkg   *types.Package
	trim  string
	lines []string
}

func (w *writer) add(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf("%s: %s", w.path(w.pkg), fmt.Sprintf(format, args...)))
}

func (w *writer) path(p *types.Package) string { return strings.TrimPrefix(p.Path(), w.trim) }

func (w *writer) object(obj types.Object) {
	switch obj := obj.(type) {
	case *types.Const:
		w.add("const %s %s = %s", obj.Name(), w.typ(obj.Type()), obj.Val().ExactString())
	case *types.Var:
		w.add("var %s %s", obj.Name(), w.typ(obj.Type()))
	case *types.Func:
		w.add("func %s%s", obj.Name(), w.signature(obj.Signature()))
	case *types.TypeName:
		w.typeName(obj)
	}
}

func (w *writer) typeName(obj *types.TypeName) {
	if alias, ok := obj.Type().(*types.Alias); ok {
		w.add("type %s%s = %s", obj.Name(), w.typeParams(alias.TypeParams()), w.typ(alias.Rhs()))
		return
	}
	named := obj.Type().(*types.Named)
	head := "type " + obj.Name() + w.typeParams(named.TypeParams())
	switch under := named.Underlying().(type) {
	case *types.Struct:
		w.add("%s struct", head)
		if types.Comparable(under) {
			w.add("%s struct, comparable", head)
		}
		w.fields(head+" struct", under)
	case *types.Interface:
		w.iface(head, under)
		return
	default:
		w.add("%s %s", head, w.typ(under))
	}
	w.methods(named)
}

func (w *writer) fields(head string, s *types.Struct) {
	for i := range s.NumFields() {
		f := s.Field(i)
		switch {
		case f.Exported() && f.Embedded():
			w.add("%s, embeds %s%s", head, w.typ(f.Type()), jsonTag(s.Tag(i)))
		case f.Exported():
			w.add("%s, field %s %s%s", head, f.Name(), w.typ(f.Type()), jsonTag(s.Tag(i)))
		case f.Embedded():
			// What users cannot name can still have fields that they can.
			if inner, ok := indirect(f.Type()).Underlying().(*types.Struct); ok {
				w.fields(head, inner)
			}
		}
	}
}

func (w *writer) iface(head string, t *types.Interface) {
	var methods []string
	sealed := false
	for m := range t.Methods() {
		if !m.Exported() {
			sealed = true
			continue
		}
		methods = append(methods, m.Name()+w.signature(m.Signature()))
	}
	slices.Sort(methods)
	if !sealed {
		for e := range t.EmbeddedTypes() {
			if _, ok := e.Underlying().(*types.Interface); !ok {
				methods = append(methods, w.typ(e)) // a constraint
			}
		}
		w.add("%s interface { %s }", head, strings.Join(methods, "; "))
		return
	}
	w.add("%s interface, not for users to implement", head)
	for _, m := range methods {
		w.add("%s interface, method %s", head, m)
	}
}

// methods includes the promoted ones, because a call does not show where they are from.
func (w *writer) methods(named *types.Named) {
	byValue := types.NewMethodSet(named)
	for sel := range types.NewMethodSet(types.NewPointer(named)).Methods() {
		f := sel.Obj().(*types.Func)
		if !f.Exported() {
			continue
		}
		receiver := named.Obj().Name()
		if byValue.Lookup(w.pkg, f.Name()) == nil {
			receiver = "*" + receiver
		}
		w.add("method (%s) %s%s", receiver, f.Name(), w.signature(sel.Type().(*types.Signature)))
	}
}

func indirect(t types.Type) types.Type {
	if p, ok := t.Underlying().(*types.Pointer); ok {
		return p.Elem()
	}
	return t
}
