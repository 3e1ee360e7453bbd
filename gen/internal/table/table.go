// Package table writes a configuration struct as a Markdown table.
package table

import (
	"fmt"
	"go/doc/comment"
	"regexp"
	"strings"

	"github.com/lockstep-go/lockstep/gen/internal/describe"
)

// Markdown is the table of s, one row a field.
func Markdown(s *describe.Struct) (string, error) {
	var b strings.Builder
	b.WriteString("| Field | Type | Meaning |\n|---|---|---|\n")
	for _, f := range s.Fields {
		meaning, err := cell(f, s.Constants)
		if err != nil {
			return "", fmt.Errorf("%s.%s, field %s: %w", s.Package, s.Name, f.Go, err)
		}
		name, typ := "`"+f.Name+"`", f.Type
		if f.GoOnly {
			name, typ = name+" (Go only)", "`"+typ+"`"
		}
		if f.Secret {
			typ += ", secret"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, escape(typ), escape(meaning))
	}
	return b.String(), nil
}

var word = regexp.MustCompile(`\pL[\pL\pN]*(?:\s\()?`)

// cell is the comment of f on one line, with the value after the name of a constant.
func cell(f describe.Field, constants map[string]string) (string, error) {
	if f.See != "" {
		return "See `" + f.See + "`.", nil
	}
	text := word.ReplaceAllStringFunc(f.Doc, func(name string) string {
		if value, ok := constants[name]; ok { // not one that the comment itself explains: "Forever (-1)"
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

func escape(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
