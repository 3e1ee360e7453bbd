package packaging

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const breaking = `

This breaks users. If that is what you want, say so in the CHANGELOG and record it:
	go test ./internal/packaging -run TestAPI -update -incompatible`

const fresh = `

This breaks nobody. Record it:
	go test ./internal/packaging -run TestAPI -update`

// checkAPI compares an API with its record, and says what is wrong.
func checkAPI(record, now []string) (complaint string) {
	removed, added := Compare(record, now)
	switch {
	case len(removed) > 0 && len(added) > 0:
		return "on record and gone or changed:" + indent(removed) + "\nnew or changed:" + indent(added) + breaking
	case len(removed) > 0:
		return "on record and gone:" + indent(removed) + breaking
	case len(added) > 0:
		return "not on record:" + indent(added) + fresh
	}
	return ""
}

func TestAPI(t *testing.T) {
	for _, m := range modules(t) {
		t.Run(m.Name(), func(t *testing.T) {
			t.Parallel()
			now, err := API(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join("testdata", "api", m.Name()+".txt")
			record, err := ReadRecord(name)
			if err != nil {
				t.Fatal(err)
			}
			removed, _ := Compare(record, now)
			if *update && (len(removed) == 0 || *incompatible) {
				if err := WriteRecord(name, "The exported API of "+m.Path+".", now); err != nil {
					t.Fatal(err)
				}
				record = now
			}
			if complaint := checkAPI(record, now); complaint != "" {
				t.Errorf("the API of %s is not the one in %s\n%s", m.Path, name, complaint)
			}
		})
	}
}

// apiOf is the API of a package of one file, which imports only the standard library.
func apiOf(t *testing.T, source string) []string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	conf := types.Config{Importer: importer.ForCompiler(fset, "source", nil)}
	p, err := conf.Check("p", fset, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := packageAPI(p, "")
	slices.Sort(lines)
	return lines
}

func TestAPILines(t *testing.T) {
	got := apiOf(t, `package p

import "context"

type Kind int

const (
	A Kind = iota + 1
	b
)

var Err error

type inner struct{ Deep int }

func (inner) Promoted() {}

type Config struct {
	inner
	Name   string `+"`json:\"name\" doc:\"x\"`"+`
	secret string
}

func (c Config) String() string    { return c.secret }
func (c *Config) Set(name string)  {}
func (c *Config) hidden()          {}

type Func struct{ F func(ctx context.Context) error }

type Backend interface {
	Close(ctx context.Context) error
	Acquire(key string) (n int, err error)
}

type Sealed interface {
	Open()
	sealed()
}

type settings struct{}

type Option func(*settings)

type Number interface{ ~int | ~string }

type Pair[K comparable, V any] struct { Key K; Value V }

type Other = Config

func Call[T any](fn func(ctx context.Context) (T, error), opts ...func(*Config)) (result T, err error) {
	return
}

func Wait() (<-chan struct{}, map[string][2]*int) { return nil, nil }
`)
	want := []string{
		"p: const A Kind = 1",
		"p: func Call[T any](func(context.Context) (T, error), ...func(*Config)) (T, error)",
		"p: func Wait() (<-chan struct{}, map[string][2]*int)",
		"p: method (*Config) Set(string)",
		"p: method (Config) Promoted()",
		"p: method (Config) String() string",
		"p: type Backend interface { Acquire(string) (int, error); Close(context.Context) error }",
		"p: type Config struct",
		"p: type Config struct, comparable",
		"p: type Config struct, field Deep int",
		`p: type Config struct, field Name string json:"name"`,
		"p: type Func struct",
		"p: type Func struct, field F func(context.Context) error",
		"p: type Kind int",
		"p: type Number interface { ~int | ~string }",
		"p: type Option func(*unexported)",
		"p: type Other = Config",
		"p: type Pair[K comparable, V any] struct",
		"p: type Pair[K comparable, V any] struct, field Key K",
		"p: type Pair[K comparable, V any] struct, field Value V",
		"p: type Sealed interface, method Open()",
		"p: type Sealed interface, not for users to implement",
		"p: var Err error",
	}
	if removed, added := Compare(want, got); len(removed)+len(added) > 0 {
		t.Errorf("missing:%s\ntoo much:%s", indent(removed), indent(added))
	}
}

// TestAPIBreaks shows which changes the comparison takes for a break, and that it can
// fail.
func TestAPIBreaks(t *testing.T) {
	const before = `package p
type Config struct{ TTL int }
type Backend interface{ Acquire(key string) error }
type Sealed interface{ Open(); sealed() }
const Limit = 3
func Open(c Config) error { return nil }
`
	for _, c := range []struct {
		name, old, new string
		want           string // begins what the check says
	}{
		{"nothing", "", "", ""},
		{"a parameter's name", "c Config", "cfg Config", ""},
		{"an unexported function", "func Open", "func open() {}\nfunc Open", ""},
		{"a new function", "func Open", "func New() {}\nfunc Open", "not on record"},
		{"a new field", "TTL int", "TTL, Delay int", "not on record"},
		{"a new method of a sealed interface", "Open();", "Open(); Close();", "not on record"},
		{"a field less", "TTL int", "ttl int", "on record and gone:"},
		{"a constant less", "const Limit", "const limit", "on record and gone:"},
		{"another value", "= 3", "= 4", "on record and gone or changed"},
		{"another type", "TTL int", "TTL int64", "on record and gone or changed"},
		{"a parameter more", "c Config", "c Config, d int", "on record and gone or changed"},
		{"variadic", "c Config", "c ...Config", "on record and gone or changed"},
		{"a new method of an interface", "error }\ntype S", "error; Close() }\ntype S", "on record and gone or changed"},
		{"a new field that ends comparing", "TTL int", "TTL int; F func()", "on record and gone or changed"},
		{"a new json name", "TTL int", "TTL int `json:\"ttl\"`", "on record and gone or changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			after := strings.Replace(before, c.old, c.new, 1)
			got := checkAPI(apiOf(t, before), apiOf(t, after))
			if !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("the check says %q, want %q…", got, c.want)
			}
		})
	}
}
