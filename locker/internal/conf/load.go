package conf

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/internal/registry"
)

// Sources are what the sources of a configuration said of the backend, and the environment
// beside them. They are laid over the program's own words when the backend is opened.
//
// A pointer to a pointer: package fmt shows what a plain one points to where a verb does not
// fit, as %s does not, also in a field that is not exported. In what sources said are passwords.
type Sources struct{ said **said }

type said struct {
	layers []*layer
	env    *environment // as the last Load found it; nil if there was none
}

func (s Sources) get() said {
	if s.said == nil {
		return said{}
	}
	return **s.said
}

func (s said) sources() Sources {
	p := &s
	return Sources{&p}
}

// Load lays source, and the environment over it, over the core's configuration c, and returns
// the outcome with s and what source says of the backend. c stays as it is.
//
// The error is an [*Unknown], or says what is wrong with the configuration.
func Load(c Core, s Sources, source string) (Core, Sources, error) {
	l, err := readSource(c, source, "")
	if err != nil {
		return nil, s, err
	}
	env := &environment{found: map[string]string{}}

	// What is checked has the defaults beneath, so that a source's own zero value, such as
	// "namespace": "", is not taken for a field that is left out. The result has not: it
	// prints as what was said.
	checked, from := c.Clone(), places{}
	checked.SetDefaults()
	if err := l.layCore(checked, from); err != nil {
		return nil, s, err
	}
	if p, given := from["type"]; given && typeOf(checked) == "" {
		return nil, s, p.wrong("type", "it is empty")
	}
	if err := env.lay(checked, from); err != nil {
		return nil, s, err
	}
	if err := checked.Validate(); err != nil {
		return nil, s, from.locate(err)
	}
	loaded := c.Clone()
	if err := errors.Join(l.layCore(loaded, places{}), env.lay(loaded, places{})); err != nil {
		return nil, s, err
	}

	say := s.get()
	say.env = env
	typ, backend := loaded.Chosen()
	was, about := typeOf(c), *typ // about: what l says of the backend is about this type
	if l.typ != "" || was != "" {
		about = l.typ
		if about == "" {
			about = was
		}
	}
	if !sameBackend(was, *typ) {
		*backend, say.layers = nil, nil
	}
	if sameBackend(about, *typ) && l.sayBackend() {
		say.layers = append(say.layers[:len(say.layers):len(say.layers)], l)
	}
	s = say.sources()
	if *typ == "" {
		return loaded, s, nil
	}
	b, err := Find(*typ)
	if err != nil {
		p, located := from["type"]
		var unknown *Unknown
		switch {
		case located && errors.As(err, &unknown):
			err = &Unknown{p.at("", unknown.Text)}
		case located:
			err = from.locate(err)
		}
		return nil, s, err
	}
	_, err = Merge(b, *backend, s, true)
	return loaded, s, err
}

// Merge is the configuration of the backend b: what the program gave as code, with each source
// laid over it in turn, and the environment. With check, the defaults lie beneath, and what
// comes out is valid. Without, it is what was said, for printing.
func Merge(b *registry.Backend, code any, s Sources, check bool) (any, error) {
	c := reflect.New(b.Config)
	switch given := reflect.ValueOf(code); {
	case code == nil:
	case given.Type() == b.Config:
		c.Elem().Set(given)
	case given.Type() == c.Type():
		if !given.IsNil() {
			c.Elem().Set(given.Elem())
		}
	default:
		return nil, fmt.Errorf("backend: type %q takes a %s, not a %T", b.Name, b.Config, code)
	}
	generated, ok := c.Interface().(driver.Config)
	var begin reflect.Value
	if ok && check {
		generated.SetDefaults()
		begin = beginning(b.Config)
	}
	from, say := places{}, s.get()
	for _, l := range say.layers {
		if err := l.layBackend(c, begin, from); err != nil {
			return nil, err
		}
	}
	if ok && say.env != nil {
		if err := say.env.lay(generated, from); err != nil {
			return nil, err
		}
	}
	if ok && check {
		if err := generated.Validate(); err != nil {
			return nil, from.locate(err)
		}
	}
	return c.Elem().Interface(), nil
}

// beginning is a configuration of type t with its defaults, and with every object that may be
// left out, with its defaults. An object that a source is the first to speak of begins as it is
// there: what the source leaves out has its default, and a zero value that it gives has not.
func beginning(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	allocate(v.Elem(), 0)
	if c, ok := v.Interface().(driver.Config); ok {
		c.SetDefaults()
	}
	return v.Elem()
}

func allocate(v reflect.Value, depth int) {
	const deepest = 4 // of types that contain themselves
	for i := range v.NumField() {
		f := v.Field(i)
		if jsonName(v.Type().Field(i)) == "" || depth == deepest {
			continue
		}
		if isObject(f.Type()) && f.Kind() == reflect.Pointer {
			f.Set(reflect.New(f.Type().Elem()))
			f = f.Elem()
		}
		if f.Kind() == reflect.Struct && f.Type() != secretType {
			allocate(f, depth+1)
		}
	}
}

// isObject says whether a source writes t as an object.
func isObject(t reflect.Type) bool {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct && t != secretType
}

// SayBackend is whether a source says anything of the backend.
func (s Sources) SayBackend() bool { return len(s.get().layers) > 0 }
