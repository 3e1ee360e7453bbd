package config

import (
	"fmt"
	"go/constant"
	"go/types"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// generator writes one structure and those within it.
type generator struct {
	*source
	top       *structure
	env       string
	methods   string            // see Options
	constants map[string]string // values of exported constants, for comments that speak of them
}

// variable is the name of the environment variable of the field at a path of json names:
// LOCKSTEP_REDIS_TLS_CA_FILE of tls.caFile. A new word begins at a capital letter after a
// small one, and at the last of several capitals.
func (g *generator) variable(path string) string {
	var b strings.Builder
	b.WriteString(g.env + "_")
	runes := []rune(path)
	for i, r := range runes {
		switch {
		case r == '.':
			b.WriteByte('_')
			continue
		case i > 0 && unicode.IsUpper(r) && runes[i-1] != '.':
			if !unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]) {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// variable says whether f has one: an object that may be left out is switched by its own.
func (f *field) variable() bool { return f.kind != kindObject || f.inner() && f.pointer }

// each calls visit for every field that a source can give, with its path.
func each(t *structure, path string, visit func(path string, f *field) error) error {
	for _, f := range t.fields {
		if f.goOnly() {
			continue
		}
		if err := visit(path+f.name, f); err != nil {
			return err
		}
		if f.inner() {
			if err := each(f.of, path+f.name+".", visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// variables checks that each variable is one field's only.
func (g *generator) variables() error {
	names, variables := map[*structure]map[string]*field{}, map[string]string{}
	for _, t := range g.top.all() {
		names[t] = map[string]*field{}
		for _, f := range t.fields {
			if other := names[t][f.name]; other != nil && !f.goOnly() {
				return g.errorf(f.node, "%s.%s: %s has the json name %q already", t.name, f.goName, other.goName, f.name)
			}
			names[t][f.name] = f
		}
	}
	return each(g.top, "", func(path string, f *field) error {
		if !f.variable() {
			return nil
		}
		name := g.variable(path)
		if other := variables[name]; other != "" {
			return g.errorf(f.node, "%s: its variable %s is that of %s", path, name, other)
		}
		variables[name] = path
		for _, theirs := range []string{"_PORT", "_SERVICE_HOST", "_SERVICE_PORT"} {
			if name == g.env+theirs {
				return g.errorf(f.node, "%s: Kubernetes sets its variable %s where a service is called %s; choose another json name",
					path, name, strings.ToLower(strings.ReplaceAll(g.env, "_", "-")))
			}
		}
		return nil
	})
}

// constants are the values of the exported constants that a comment may speak of. The least
// value of a type has none: it is a mark, as that of the tag lockstep:"none", and no number.
func constants(p *types.Package) map[string]string {
	values := map[string]string{}
	for _, name := range p.Scope().Names() {
		c, ok := p.Scope().Lookup(name).(*types.Const)
		if !ok || !c.Exported() || c.Val().Kind() == constant.Unknown {
			continue
		}
		if n, exact := constant.Int64Val(constant.ToInt(c.Val())); exact && n == math.MinInt64 {
			continue
		}
		switch t := types.Unalias(c.Type()).(type) {
		case *types.Basic:
			values[name] = c.Val().ExactString()
			if c.Val().Kind() == constant.Float || t.Info()&types.IsFloat != 0 {
				n, _ := constant.Float64Val(c.Val())
				values[name] = strconv.FormatFloat(n, 'g', -1, 64)
			}
		case *types.Named:
			if t.String() == "time.Duration" {
				if n, exact := constant.Int64Val(constant.ToInt(c.Val())); exact {
					values[name] = short(time.Duration(n))
				}
			}
		}
	}
	return values
}

// lengths says what is allowed of a length, or "".
func (f *field) lengths() string {
	unit := "bytes"
	if f.list {
		unit = "items"
	}
	if f.maxLen != nil {
		return fmt.Sprintf("at most %s %s", f.maxLen.text, unit)
	}
	return ""
}

// limits says what is allowed of a number, or "".
func (f *field) limits() string {
	switch {
	case f.min != nil && f.max != nil:
		return f.min.text + " to " + f.max.text
	case f.min != nil:
		return "at least " + f.min.text
	case f.max != nil:
		return "at most " + f.max.text
	}
	return ""
}
