// Package config writes what must agree with an annotated configuration struct: its
// defaults, its validation, what it takes from the environment, a JSON Schema, and a table
// in Markdown.
//
// A field of the configuration is an exported field with a json name. Its comment is its
// documentation; one without a comment of its own belongs to the commented one directly
// above it. The tag lockstep:"secret" marks a value that no message may show. Structs of the
// same package, and pointers to them, are objects. A field with the tag json:"-" can be set
// in Go only.
//
// What a field may be stands in directives at the end of its comment, which godoc does not
// show:
//
//	//lockgen:default 10s           what a field is that is left out; also of a list: a, b
//	//lockgen:initial -1            the same, where the zero value has a meaning of its own in Go: only
//	                                a source that begins the struct gets it, and Reset
//	//lockgen:min 500ms             the least that is allowed
//	//lockgen:max MaxValidity       the most; like every value, also a constant of the package
//	//lockgen:minlen 1              bytes of a string, items of a list
//	//lockgen:maxlen 128
//	//lockgen:enum auto on off      the strings that are allowed
//	//lockgen:pattern ^[!-~]*$ -- holds a space
//	                                a regular expression, and what is wrong with what does not match it
//	//lockgen:not [{}] -- holds a brace
//	                                the same for what must not match; both may be there several times
//	//lockgen:required              the empty string or list is refused
//
// Of a list, enum, pattern and not are about its items. Above the struct stand the relations, by
// json names, and what needs a method written by hand:
//
//	//lockgen:together certFile keyFile            all of them or none
//	//lockgen:requires sentinelUsername masterSet  the first only with the second
//	//lockgen:atmost jitter delay                  the first is not larger than the second
//	//lockgen:check checkAddrs                     func (c *Config) checkAddrs() error
//
// A directive that is unknown, or contradicts another, is an error with its file and line.
package config

import (
	"fmt"
	"regexp"
	"strings"
)

// Options say what to generate from.
type Options struct {
	Dir  string // the folder of the package
	Type string // the name of the struct
	Env  string // what the names of its environment variables begin with: LOCKSTEP_REDIS
}

// Output is what was generated.
type Output struct {
	Package string // the package's name
	Code    []byte // Go, for the file CodeFile of the folder
	Schema  []byte // JSON Schema, draft 2020-12
	Table   string // Markdown
}

// CodeFile is the name of the Go file for the struct typ.
func CodeFile(typ string) string { return strings.ToLower(typ) + "_gen.go" }

var isEnv = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$`)

// Generate reads the struct and writes nothing. The code that it was generated from before
// makes no difference, nor does any other thing but the package's own files: the same
// files always give the same output.
func Generate(o Options) (*Output, error) {
	if !isEnv.MatchString(o.Env) {
		return nil, fmt.Errorf("env: %q is not made of capital letters, digits and single underscores", o.Env)
	}
	s, err := load(o.Dir, CodeFile(o.Type))
	if err != nil {
		return nil, err
	}
	r := &reader{source: s, done: map[string]*structure{}}
	t, err := r.structure(o.Type, nil)
	if err != nil {
		return nil, err
	}
	g := &generator{source: s, top: t, env: o.Env, constants: constants(s.types)}
	if err := g.variables(); err != nil {
		return nil, err
	}
	out := &Output{Package: s.name}
	if out.Code, err = g.code(); err != nil {
		return nil, err
	}
	if out.Schema, err = g.schema(); err != nil {
		return nil, err
	}
	out.Table, err = g.table()
	return out, err
}
