package config

import (
	"fmt"
	"go/doc/comment"
	"regexp"
	"strings"
)

// table is the Markdown, one row a field.
func (g *generator) table() (string, error) {
	var b strings.Builder
	b.WriteString("| Field | Type | Default | Range | Variable | Meaning |\n|---|---|---|---|---|---|\n")
	if err := g.rows(&b, g.top, "", ""); err != nil {
		return "", err
	}
	return b.String(), nil
}

func (g *generator) rows(b *strings.Builder, t *structure, path, goPath string) error {
	names := map[string]string{} // as the table names them, by Go name
	for _, f := range t.fields {
		name := path + f.name
		if f.goOnly() {
			name = goPath + f.goName
		}
		names[f.goName] = name
		meaning, err := g.meaning(f, names)
		if err != nil {
			return g.errorf(f.node, "%s.%s: %w", t.name, f.goName, err)
		}
		if f.goOnly() {
			row(b, "`"+name+"` (Go only)", "`"+f.goType+"`", "", "", "", meaning)
			continue
		}
		typ := f.typeName()
		if f.secret {
			typ += ", secret"
		}
		variable, def, allowed := "", "", g.allowed(name, f)
		if f.variable() {
			variable = "`" + g.variable(name) + "`"
		}
		if d := f.defaultText(); d != "" {
			def = "`" + d + "`"
		}
		row(b, "`"+name+"`", typ, def, allowed, variable, meaning)
		if f.inner() {
			if err := g.rows(b, f.of, name+".", goPath+f.goName+"."); err != nil {
				return err
			}
		}
	}
	return nil
}

func row(b *strings.Builder, cells ...string) {
	for _, c := range cells {
		c = strings.ReplaceAll(c, "|", `\|`)
		if c != "" {
			c = " " + c
		}
		b.WriteString("|" + c + " ")
	}
	b.WriteString("|\n")
}

// typeName names a type as a reader of a configuration file would.
func (f *field) typeName() string {
	name := map[kind]string{
		kindString: "string", kindBool: "boolean", kindInt: "integer",
		kindFloat: "number", kindDuration: "duration", kindObject: "object",
	}[f.kind]
	if f.list {
		return "list of " + name + "s"
	}
	return name
}

var word = regexp.MustCompile(`\pL[\pL\pN]*(?:\s\()?`)

// meaning is the comment of f on one line, with the value after the name of a constant.
func (g *generator) meaning(f *field, names map[string]string) (string, error) {
	if f.see != "" {
		return "See `" + names[f.see] + "`.", nil
	}
	text := word.ReplaceAllStringFunc(f.doc, func(name string) string {
		if value, ok := g.constants[name]; ok { // not one that the comment itself explains: "Forever (-1)"
			return name + " (" + value + ")"
		}
		return name
	})
	p := comment.Parser{LookupSym: func(recv, name string) bool { return true }}
	doc := p.Parse(text)
	for _, block := range doc.Content {
		if _, ok := block.(*comment.Paragraph); !ok {
			return "", fmt.Errorf("its comment holds a list, a heading or code, which does not fit into a table")
		}
	}
	print := comment.Printer{DocLinkURL: func(*comment.DocLink) string { return "" }}
	return strings.Join(strings.Fields(string(print.Markdown(doc))), " "), nil
}
