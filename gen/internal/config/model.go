package config

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/types"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// structure is one struct of a configuration.
type structure struct {
	name   string
	doc    string
	fields []*field
	rules  []rule   // between its fields, in the order of the source
	checks []string // methods written by hand
}

// field is one field of a structure.
type field struct {
	goName, name string // name is the json name; "" if the field is set in Go only
	node         *ast.Field
	doc          string
	see          string // the Go name of the field whose comment is about this one too
	goType       string // as the source writes it
	secret       bool   // its type is driver.Secret
	none         bool   // in Go, the least value of its type is what a zero is in a source
	least        string // that value, of an integer or a duration
	connection   bool   // a URL names it, or leaves it out

	kind    kind
	list    bool
	pointer bool       // to an object
	named   bool       // its type has a name of its own, such as type Mode string
	of      *structure // of kind object; nil for any

	def              *value
	list0            []*value
	min, max         *value
	maxLen           *value
	enum             []*value
	patterns         []pattern
	required, filled bool // filled: the empty string or list is refused
}

type kind int

const (
	_ kind = iota
	kindString
	kindBool
	kindInt
	kindFloat
	kindDuration
	kindObject
)

// value is a constant of a directive.
type value struct {
	code string // as Go
	text string // for people, and in a source
	c    constant.Value
}

// pattern is a regular expression that a string must match, or must not.
type pattern struct {
	expr, says string
	not        bool
}

// rule is a relation between fields of one struct.
type rule struct {
	name   string // together, requires, atmost
	fields []*field
}

func (f *field) goOnly() bool  { return f.name == "" }
func (f *field) numeric() bool { return !f.list && f.kind >= kindInt && f.kind <= kindDuration }
func (f *field) inner() bool   { return f.of != nil }

// fills says whether t, or anything within it, has a default for what is zero.
func (t *structure) fills() bool {
	return slices.ContainsFunc(t.fields, func(f *field) bool {
		return f.def != nil || f.list0 != nil || f.inner() && f.of.fills()
	})
}

// all are t and the structures within it, each once, t first.
func (t *structure) all() []*structure {
	found := []*structure{t}
	for _, f := range t.fields {
		if f.inner() {
			for _, u := range f.of.all() {
				if !slices.Contains(found, u) {
					found = append(found, u)
				}
			}
		}
	}
	return found
}

// reader makes structures out of a source.
type reader struct {
	*source
	done map[string]*structure
}

// structure reads the struct called name. within are those that are being read.
func (r *reader) structure(name string, within []string) (*structure, error) {
	if t := r.done[name]; t != nil {
		return t, nil
	}
	spec, doc := r.typeSpec(name)
	if spec == nil {
		return nil, fmt.Errorf("%s: package %s has no type %s (it has: %s)", r.dir, r.name, name, strings.Join(r.typeNames(), ", "))
	}
	st, ok := spec.Type.(*ast.StructType)
	if !ok {
		return nil, r.errorf(spec, "%s is not a struct", name)
	}
	t := &structure{name: name, doc: strings.TrimSpace(doc.Text())}
	within = append(slices.Clone(within), name)
	var group *field // the last commented field, and the line on which its group ends so far
	groupEnd := -1
	for _, node := range st.Fields.List {
		if len(node.Names) == 0 {
			return nil, r.errorf(node, "an embedded field cannot be configured")
		}
		for _, id := range node.Names {
			if !id.IsExported() {
				if d := r.directivesOf(node); len(d) > 0 {
					return nil, r.errorf(d[0].node, "%s is not exported; lockgen:%s has no effect", id.Name, d[0].name)
				}
				continue
			}
			f, err := r.field(name, id.Name, node)
			if err != nil {
				return nil, err
			}
			switch line := r.fset.Position(node.Pos()).Line; {
			case f.doc != "":
				group = f
			case group != nil && (line == groupEnd+1 || line == groupEnd):
				f.see = group.goName
			default:
				return nil, r.errorf(id, "%s.%s has no comment", name, id.Name)
			}
			groupEnd = r.fset.Position(node.End()).Line
			t.fields = append(t.fields, f)
			if err := r.typed(f, within); err != nil {
				return nil, err
			}
			if err := r.constrain(name, f); err != nil {
				return nil, err
			}
		}
	}
	if !slices.ContainsFunc(t.fields, func(f *field) bool { return !f.goOnly() }) {
		return nil, r.errorf(spec, "type %s has no exported field with a json name", name)
	}
	if err := r.relate(t, spec, doc); err != nil {
		return nil, err
	}
	r.done[name] = t
	return t, nil
}

// field reads what stands in the comment's text and the tag.
func (r *reader) field(within, goName string, node *ast.Field) (*field, error) {
	f := &field{goName: goName, node: node, goType: types.ExprString(node.Type), doc: strings.TrimSpace(node.Doc.Text())}
	if f.doc == "" {
		f.doc = strings.TrimSpace(node.Comment.Text())
	}
	if d := directives(node.Comment); len(d) > 0 {
		return nil, r.errorf(d[0].node, "lockgen:%s stands behind the field; write it above", d[0].name)
	}
	var tag reflect.StructTag
	if node.Tag != nil {
		text, err := strconv.Unquote(node.Tag.Value)
		if err != nil {
			return nil, r.errorf(node.Tag, "the tag %s: %w", node.Tag.Value, err)
		}
		tag = reflect.StructTag(text)
	}
	name, _, _ := strings.Cut(tag.Get("json"), ",")
	switch {
	case name == "":
		return nil, r.errorf(node, `%s.%s has no json name; give it one, or json:"-" for a field that is set in Go only`, within, goName)
	case name != "-" && !isName.MatchString(name):
		return nil, r.errorf(node.Tag, "the json name %q is not made of letters, digits and single underscores, beginning with a small letter", name)
	case name != "-":
		f.name = name
	}
	for _, word := range strings.FieldsFunc(tag.Get("lockstep"), func(r rune) bool { return r == ',' }) {
		switch word {
		case "none":
			f.none = true
		case "connection":
			f.connection = true
		case "secret":
			return nil, r.errorf(node.Tag, `the tag lockstep:"secret" is not enough: every print, also in another's package, would have to know it; make the field a driver.Secret`)
		default:
			return nil, r.errorf(node.Tag, `the tag lockstep:%q is unknown; there are "none" and "connection"`, word)
		}
	}
	if d := r.directivesOf(node); f.goOnly() && len(d) > 0 {
		return nil, r.errorf(d[0].node, "%s is set in Go only; lockgen:%s has no effect", goName, d[0].name)
	}
	return f, nil
}

// typed sets the kind of f.
func (r *reader) typed(f *field, within []string) (err error) {
	if f.goOnly() {
		return nil
	}
	bad := func() error {
		err := r.errorf(f.node.Type, "field %s: a %s cannot be configured", f.goName, f.goType)
		for _, p := range r.problems {
			if sameLine(p.Pos, r.fset.Position(f.node.Type.Pos()).String()) {
				err = fmt.Errorf("%w (%s)", err, p.Msg)
			}
		}
		return err
	}
	defer func() {
		if err == nil && f.none && (f.kind != kindInt && f.kind != kindDuration || f.list || f.pointer) {
			err = r.errorf(f.node.Type, `field %s: the tag lockstep:"none" is for integers and durations, not for a %s`, f.goName, f.goType)
		}
	}()
	t := r.info.TypeOf(f.node.Type)
	if t == nil {
		return bad()
	}
	if f.secret = r.isSecret(f, t); f.secret {
		f.kind = kindString
		return nil
	}
	switch u := types.Unalias(t).(type) {
	case *types.Slice:
		f.list, t = true, u.Elem()
	case *types.Pointer:
		f.pointer, t = true, u.Elem()
	}
	t = types.Unalias(t)
	named, _ := t.(*types.Named)
	f.named = named != nil
	switch u := t.Underlying().(type) {
	case *types.Basic:
		switch {
		case f.pointer:
			return bad()
		case named != nil && named.String() == "time.Duration":
			f.kind, f.named, f.least = kindDuration, false, "math.MinInt64"
		case u.Info()&types.IsString != 0:
			f.kind = kindString
		case u.Kind() == types.Bool:
			f.kind = kindBool
		case u.Kind() == types.Int:
			f.kind, f.least = kindInt, "math.MinInt"
		case u.Kind() == types.Int64:
			f.kind, f.least = kindInt, "math.MinInt64"
		case u.Kind() == types.Float64:
			f.kind = kindFloat
		}
		if f.kind == 0 || f.list && f.kind != kindString {
			return bad()
		}
	case *types.Interface:
		if u.NumMethods() > 0 || f.list || f.pointer {
			return bad()
		}
		f.kind = kindObject
	case *types.Struct:
		if f.list || named == nil || named.Obj().Pkg() != r.types {
			return bad()
		}
		if slices.Contains(within, named.Obj().Name()) {
			return r.errorf(f.node.Type, "field %s: %s contains itself", f.goName, named.Obj().Name())
		}
		f.kind = kindObject
		if f.of, err = r.structure(named.Obj().Name(), within); err != nil {
			return err
		}
	default:
		return bad()
	}
	return nil
}

// isSecret also knows driver.Secret by its words: in a new module, whose requirements are not
// there yet, it has no type.
func (r *reader) isSecret(f *field, t types.Type) bool {
	if named, ok := types.Unalias(t).(*types.Named); ok {
		return named.String() == driverPath+".Secret"
	}
	return f.goType == "driver.Secret"
}

func sameLine(a, b string) bool {
	cut := func(s string) string { return s[:max(0, strings.LastIndexByte(s, ':'))] }
	return cut(a) == cut(b)
}

var errNoConstant = errors.New("it is neither a value of this kind nor a constant of the package")
