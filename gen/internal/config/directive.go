package config

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// isName: underscores are for names that come from elsewhere, such as the parameters of a
// Postgres URL: target_session_attrs.
var isName = regexp.MustCompile(`^[a-z][a-zA-Z0-9]*(_[a-z0-9]+)*$`)

// directive is a line //lockgen:name args of a comment. godoc does not show it.
type directive struct {
	name, args string
	node       *ast.Comment
}

var misspelt = regexp.MustCompile(`^//\s+lockgen:[a-z]+(\s|$)`)

func directives(doc *ast.CommentGroup) (found []directive) {
	if doc == nil {
		return nil
	}
	for _, c := range doc.List {
		rest, ok := strings.CutPrefix(c.Text, "//lockgen:")
		if !ok {
			if misspelt.MatchString(c.Text) {
				found = append(found, directive{name: "", node: c})
			}
			continue
		}
		name, args, _ := strings.Cut(rest, " ")
		found = append(found, directive{name, strings.TrimSpace(args), c})
	}
	return found
}

// directivesOf are those of a field: in its comment, or above it, with an empty line between.
// There, godoc leaves no empty line in their place.
func (r *reader) directivesOf(node *ast.Field) []directive {
	top := node.Pos()
	if node.Doc != nil {
		top = node.Doc.Pos()
	}
	line, file := r.fset.Position(top).Line, r.fset.Position(top).Filename
	for _, f := range r.files {
		if r.fset.Position(f.Package).Filename != file {
			continue
		}
		attached := map[*ast.CommentGroup]bool{nil: true} // to another field
		ast.Inspect(f, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok {
				attached[field.Doc] = true
			}
			return true
		})
		for _, group := range f.Comments {
			if r.fset.Position(group.End()).Line == line-2 && !attached[group] && len(directives(group)) == len(group.List) {
				return append(directives(group), directives(node.Doc)...)
			}
		}
	}
	return directives(node.Doc)
}

// constrain reads the directives of one field.
func (r *reader) constrain(within string, f *field) error {
	seen := map[string]bool{}
	for _, d := range r.directivesOf(f.node) {
		fail := func(format string, args ...any) error {
			return r.errorf(d.node, "%s.%s: lockgen:%s: %s", within, f.goName, d.name, fmt.Sprintf(format, args...))
		}
		if d.name == "" {
			return r.errorf(d.node, "a directive has no space after //")
		}
		if seen[d.name] && d.name != "pattern" && d.name != "not" {
			return fail("it is there twice")
		}
		seen[d.name] = true
		if d.args == "" && d.name != "required" {
			return fail("its value is missing")
		}
		var err error
		switch d.name {
		case "default":
			if f.kind == kindBool || f.kind == kindObject {
				return fail("a %s has none: in Go, what is left out cannot be told from the zero value", f.goType)
			}
			if f.list {
				for _, item := range strings.Split(d.args, ",") {
					var v *value
					if v, err = r.value(f, strings.TrimSpace(item)); err != nil {
						break
					}
					f.list0 = append(f.list0, v)
				}
				break
			}
			f.def, err = r.value(f, d.args)
		case "min", "max":
			if !f.numeric() {
				return fail("it is for numbers and durations, not for a %s", f.goType)
			}
			v, bad := r.value(f, d.args)
			if err = bad; d.name == "min" {
				f.min = v
			} else {
				f.max = v
			}
		case "maxlen":
			if f.kind != kindString {
				return fail("it is for strings and lists, not for a %s", f.goType)
			}
			v, bad := r.constant(f.node.Pos(), d.args, constant.Int)
			if err = bad; err == nil && constant.Sign(v.c) < 0 {
				return fail("%s is negative", v.text)
			}
			f.maxLen = v
		case "enum":
			if f.kind != kindString {
				return fail("it is for strings, not for a %s", f.goType)
			}
			for _, word := range strings.Fields(d.args) {
				var v *value
				if v, err = r.value(f, word); err != nil {
					break
				}
				if slices.ContainsFunc(f.enum, func(w *value) bool { return w.text == v.text }) {
					return fail("%q is there twice", v.text)
				}
				f.enum = append(f.enum, v)
			}
		case "pattern", "not":
			expr, says, ok := strings.Cut(d.args, " -- ")
			if f.kind != kindString {
				return fail("it is for strings, not for a %s", f.goType)
			}
			if !ok {
				return fail("write: EXPRESSION -- what is wrong with a value that it refuses")
			}
			expr = strings.TrimSpace(expr)
			if _, err = regexp.Compile(expr); err == nil {
				f.patterns = append(f.patterns, pattern{expr, strings.TrimSpace(says), d.name == "not"})
			}
		case "required":
			if d.args != "" {
				return fail("it has no value")
			}
			if f.kind != kindString {
				return fail("it is for strings and lists, not for a %s", f.goType)
			}
			f.required = true
		case "together", "requires", "atmost", "check":
			return fail("it stands above the struct")
		default:
			return fail("there is no such directive (there are: default, min, max, maxlen, enum, pattern, not, required; above a struct: together, requires, atmost, check)")
		}
		if err != nil {
			return fail("%s: %v", d.args, err)
		}
	}
	return r.contradictions(within, f)
}

// contradictions of what the directives of one field say. What leaves a field out must be
// allowed: a configuration whose zero value is refused cannot be made by leaving things out.
func (r *reader) contradictions(within string, f *field) error {
	fail := func(format string, args ...any) error {
		return r.errorf(f.node, "%s.%s: %s", within, f.goName, fmt.Sprintf(format, args...))
	}
	switch {
	case f.min != nil && f.max != nil && above(f.min, f.max):
		return fail("min %s is above max %s", f.min.text, f.max.text)
	case f.required && (f.def != nil || f.list0 != nil):
		return fail("it is required, so its default is never used")
	case f.secret && (f.def != nil || f.list0 != nil):
		return fail("a secret has no default")
	}
	f.filled = f.required || f.def != nil && f.kind == kindString && !f.list || f.list0 != nil
	if f.goOnly() || f.kind == kindObject || f.kind == kindBool {
		return nil
	}
	if f.numeric() {
		zero := &value{text: "0", c: constant.MakeInt64(0)}
		if f.kind == kindDuration {
			zero.text = "0s"
		}
		if f.def != nil {
			if why := f.outside(f.def); why != "" {
				return fail("its default %s %s", f.def.text, why)
			}
		}
		switch {
		case f.none && f.outside(zero) != "":
			return fail(`lockstep:"none" is for a zero that is allowed, but %s %s`, zero.text, f.outside(zero))
		case f.none:
		case f.def == nil:
			if why := f.outside(zero); why != "" {
				return fail("it has no default, and left out it is %s, which %s", zero.text, why)
			}
		case constant.Sign(f.def.c) == 0:
			return fail("its default is the zero value, which needs no directive")
		case f.outside(zero) == "":
			return fail("%s is allowed, but in Go it cannot be told from a field that is left out, whose default is %s; give a min or max that excludes it, or the tag lockstep:\"none\"", zero.text, f.def.text)
		}
		return nil
	}
	given := f.list0
	if f.def != nil {
		given = []*value{f.def}
	}
	for _, v := range given {
		if why := f.refuses(v.text); why != "" {
			return fail("its default %q %s", v.text, why)
		}
	}
	if !f.filled && !f.list && f.refuses("") != "" {
		return fail(`it has no default, and left out it is "", which %s; give it a default or lockgen:required`, f.refuses(""))
	}
	return nil
}

func above(a, b *value) bool { return constant.Compare(a.c, token.GTR, b.c) }

// outside says how v is out of f's range, or "".
func (f *field) outside(v *value) string {
	switch {
	case f.min != nil && above(f.min, v):
		return "is below min " + f.min.text
	case f.max != nil && above(v, f.max):
		return "is above max " + f.max.text
	}
	return ""
}

// refuses says what is wrong with a string, or an item of a list, or "".
func (f *field) refuses(s string) string {
	n := &value{c: constant.MakeInt64(int64(len(s)))}
	switch {
	case len(f.enum) > 0 && !slices.ContainsFunc(f.enum, func(v *value) bool { return v.text == s }):
		return "is not one of " + join(f.enum)
	case !f.list && f.maxLen != nil && above(n, f.maxLen):
		return "is longer than maxlen " + f.maxLen.text
	}
	for _, p := range f.patterns {
		if regexp.MustCompile(p.expr).MatchString(s) == p.not {
			return p.says
		}
	}
	return ""
}

func join(values []*value) string {
	var words []string
	for _, v := range values {
		words = append(words, v.text)
	}
	return strings.Join(words, ", ")
}

// value reads a value of f's kind: as a source would give it, or as Go.
func (r *reader) value(f *field, text string) (*value, error) {
	switch f.kind {
	case kindString:
		if c, ok := r.types.Scope().Lookup(text).(*types.Const); ok && c.Val().Kind() == constant.String {
			return &value{text, constant.StringVal(c.Val()), c.Val()}, nil
		}
		if strings.HasPrefix(text, `"`) {
			s, err := strconv.Unquote(text)
			if err != nil {
				return nil, fmt.Errorf("the quotation is malformed")
			}
			text = s
		}
		return &value{strconv.Quote(text), text, constant.MakeString(text)}, nil
	case kindDuration:
		if d, err := time.ParseDuration(text); err == nil {
			return &value{durationCode(d), short(d), constant.MakeInt64(int64(d))}, nil
		}
		v, err := r.constant(f.node.Pos(), text, constant.Int)
		if err != nil {
			return nil, fmt.Errorf("%w; a duration has a unit, such as 1.5s or 250ms", err)
		}
		n, exact := constant.Int64Val(v.c)
		if !exact {
			return nil, fmt.Errorf("it is too large for a duration")
		}
		v.text = short(time.Duration(n))
		if v.code == v.c.ExactString() {
			v.code = durationCode(time.Duration(n))
		}
		return v, nil
	case kindFloat:
		return r.constant(f.node.Pos(), text, constant.Float)
	case kindInt:
		v, err := r.constant(f.node.Pos(), text, constant.Int)
		if err != nil {
			return nil, err
		}
		if _, exact := constant.Int64Val(v.c); !exact {
			return nil, fmt.Errorf("a %s cannot hold it", f.goType)
		}
		return v, nil
	}
	return nil, fmt.Errorf("a %s has no values that could be written here", f.goType)
}

// constant evaluates a constant expression as it would be in the file of the struct.
func (r *reader) constant(pos token.Pos, text string, want constant.Kind) (*value, error) {
	tv, err := types.Eval(r.fset, r.types, pos, text)
	if err != nil || tv.Value == nil {
		return nil, errNoConstant
	}
	var c constant.Value
	if want == constant.Int {
		c = constant.ToInt(tv.Value)
	} else {
		c = constant.ToFloat(tv.Value)
	}
	if c.Kind() == constant.Unknown || (c.Kind() != want && want == constant.Int) {
		return nil, errNoConstant
	}
	v := &value{code: c.ExactString(), text: c.ExactString(), c: c}
	if want == constant.Float {
		n, _ := constant.Float64Val(c)
		v.text = strconv.FormatFloat(n, 'g', -1, 64)
		v.code = v.text
	}
	if _, ok := r.types.Scope().Lookup(text).(*types.Const); ok {
		v.code = text
	}
	return v, nil
}

func durationCode(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Hour, "Hour"}, {time.Minute, "Minute"}, {time.Second, "Second"}, {time.Millisecond, "Millisecond"}, {time.Microsecond, "Microsecond"}} {
		switch {
		case d == 0:
			return "0"
		case d == u.unit:
			return "time." + u.name
		case d%u.unit == 0:
			return fmt.Sprintf("%d*time.%s", d/u.unit, u.name)
		}
	}
	return strconv.FormatInt(int64(d), 10)
}

// short is d without the zeros at its end: 24h, where d.String says 24h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// relate reads the directives above the struct.
func (r *reader) relate(t *structure, spec *ast.TypeSpec, doc *ast.CommentGroup) error {
	byName := func(name string) *field {
		for _, f := range t.fields {
			if f.name == name && name != "" {
				return f
			}
		}
		return nil
	}
	for _, d := range directives(doc) {
		fail := func(format string, args ...any) error {
			return r.errorf(d.node, "%s: lockgen:%s: %s", t.name, d.name, fmt.Sprintf(format, args...))
		}
		words := strings.Fields(d.args)
		switch d.name {
		case "":
			return r.errorf(d.node, "a directive has no space after //")
		case "check":
			if len(words) != 1 {
				return fail("write the name of a method of %s", t.name)
			}
			fn := r.method(t.name, words[0])
			if fn == nil {
				return fail("%s has no method %s; write func (c *%s) %s() error", t.name, words[0], t.name, words[0])
			}
			if len(fn.Type.Params.List) != 0 || fn.Type.Results == nil || len(fn.Type.Results.List) != 1 || types.ExprString(fn.Type.Results.List[0].Type) != "error" {
				return r.errorf(fn, "%s.%s is a lockgen:check; its signature must be %s() error", t.name, words[0], words[0])
			}
			if slices.Contains(t.checks, words[0]) {
				return fail("%s is there twice", words[0])
			}
			t.checks = append(t.checks, words[0])
		case "together", "requires", "atmost":
			if len(words) < 2 || len(words) > 2 && d.name != "together" {
				return fail("write the json names of two fields")
			}
			rel := rule{name: d.name}
			for i, w := range words {
				f := byName(w)
				if f == nil {
					return fail("%s has no field with the json name %q", t.name, w)
				}
				if slices.Contains(words[:i], w) {
					return fail("%s is there twice", w)
				}
				switch {
				case d.name == "atmost":
				case f.defaultText() != "":
					return fail("%s has a default, so it is always given", w)
				case f.inner() && !f.pointer:
					return fail("%s is no pointer, so it is always given", w)
				}
				rel.fields = append(rel.fields, f)
			}
			if a, b := rel.fields[0], rel.fields[1]; d.name == "atmost" && (!a.numeric() || a.goType != b.goType) {
				return fail("%s and %s are not two numbers of one type", a.goName, b.goName)
			}
			t.rules = append(t.rules, rel)
		case "default", "min", "max", "maxlen", "enum", "pattern", "not", "required":
			return fail("it stands above a field")
		default:
			return fail("there is no such directive (there are: together, requires, atmost, check)")
		}
	}
	return nil
}
