// Package config writes what must agree with an annotated configuration struct: its
// defaults, its validation, what it takes from the environment, a JSON Schema, and a table
// in Markdown.
//
// A field of the configuration is an exported field with a json name. Its comment is its
// documentation; one without a comment of its own belongs to the commented one directly
// above it. It is a string, bool, int, int64, float64, time.Duration, a list of strings, or an
// object: a struct of the same package, or a pointer to one. A driver.Secret is a string that no
// message may show. A field with the tag json:"-" can be set in Go only.
//
// The tag lockstep:"connection" marks what a URL names or leaves out: it has its default before
// the URL is read, whatever the program said. The tag lockstep:"none" is for a number or duration
// of which a zero is allowed, but is not what a field is that is left out: in Go it is the
// least value of the type that means none.
//
// What a field may be stands in directives above its comment, with an empty line between, or
// in it. godoc shows neither, but leaves an empty line where they are in the comment.
//
//	//lockgen:default 10s           what a field is that is left out; also of a list: a, b
//	//lockgen:min 500ms             the least that is allowed
//	//lockgen:max MaxValidity       the most; like every value, also a constant of the package
//	//lockgen:maxlen 128            bytes of a string, items of a list
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
	// Methods is the type that gets the methods, of which users of Type are not to see any: a
	// new one that is not exported, with the same fields. Empty: Type itself.
	Methods string
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
	g := &generator{source: s, top: t, env: o.Env, constants: constants(s.types), methods: o.Methods}
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
