package conf

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/internal/text"
)

// layer is what one source said.
type layer struct {
	source string // its name in errors
	typ    string // the type that it chooses, or ""

	// Of JSON: all of it, what stands as backend, and where.
	doc     []byte
	backend []byte
	offset  int

	// Of a URL: it without its query, and what the query says of the core and of the backend.
	url         *url.URL
	raw         string       // the query, in its order
	coreType    reflect.Type // the fields that the query can have beside the backend's
	core, query url.Values
}

// sayBackend is whether l says anything of the backend.
func (l *layer) sayBackend() bool { return l.url != nil || l.backend != nil }

func newJSON(name string, data []byte) (*layer, error) {
	l := &layer{source: name, doc: data}
	if err := wellFormed(data); err != nil {
		return nil, l.fail(err, "")
	}
	return l, nil
}

// fail is f as an error. prefix comes before the names in f.
func (l *layer) fail(f *fault, prefix string) error {
	p := l.place(f.offset, prefix)
	if f.path == "" {
		return errors.New(p.at(strings.TrimSuffix(prefix, "."), f.problem))
	}
	return p.wrong(f.path, f.problem)
}

func (l *layer) place(offset int, prefix string) place {
	return place{source: l.source, prefix: prefix, doc: l.doc, offset: offset}
}

// layCore lays what l says of the core over c, and notes in from where it stands.
func (l *layer) layCore(c Core, from places) error {
	if l.url != nil {
		for _, field := range slices.Sorted(maps.Keys(l.core)) {
			if _, err := setText(reflect.ValueOf(c).Elem(), reflect.Value{}, field, l.core[field]); err != nil {
				return l.fail(err, "")
			}
			from[field] = l.place(0, "")
		}
		typ, _ := c.Chosen()
		*typ = l.typ
		return nil
	}
	d := decoder{
		aside: map[string]func([]byte, int) *fault{
			"backend": func(data []byte, offset int) *fault {
				if data[0] != '{' {
					return &fault{"backend", "want an object: {…}", offset}
				}
				l.backend, l.offset = data, offset
				return nil
			},
			// Editors find the schema of a file by it.
			"$schema": func(data []byte, offset int) *fault {
				if data[0] != '"' {
					return &fault{"$schema", "want a string", offset}
				}
				return nil
			},
		},
		seen: func(path string, offset int) { from[path] = l.place(offset, "") },
	}
	if err := d.object("", l.doc, 0, reflect.ValueOf(c).Elem(), reflect.Value{}, false); err != nil {
		return l.fail(err, "")
	}
	if _, given := from["type"]; given {
		l.typ = typeOf(c)
	}
	return nil
}

// layBackend lays what l says of the backend over the configuration that c points to. begin is
// what objects begin with that l is the first to speak of, and what the connection is where a
// URL leaves it out; or nothing.
func (l *layer) layBackend(c, begin reflect.Value, from places) error {
	if l.url == nil {
		const prefix = "backend."
		d := decoder{seen: func(path string, offset int) { from[path] = l.place(offset, prefix) }}
		if err := d.object("", l.backend, l.offset, c.Elem(), begin, false); err != nil {
			return l.fail(err, prefix)
		}
		return nil
	}
	front, err := l.layFront(c, begin, from)
	if err != nil {
		return err
	}
	for _, field := range slices.Sorted(maps.Keys(l.query)) {
		if front[field] {
			return l.fail(&fault{path: field, problem: "it is given twice, before the ? and after it"}, "")
		}
		known, err := setText(c.Elem(), begin, field, l.query[field])
		if err != nil {
			return l.fail(err, "")
		}
		if !known {
			return l.fail(&fault{path: l.unknownName(field, c.Type().Elem()), problem: unknownField(l.names(c.Type().Elem()))}, "")
		}
		if other := within(field, l.query); other != "" && isFalse(l.query[field]) {
			return l.fail(&fault{path: field, problem: "it is false, but " + other + " is given"}, "")
		}
		from[field] = l.place(0, "")
	}
	return nil
}

// layFront lays what stands before the query, and says which fields that were, also where
// their value is zero.
func (l *layer) layFront(c, begin reflect.Value, from places) (front map[string]bool, err error) {
	_, ok := c.Interface().(driver.URLConfig)
	if !ok {
		if l.url.Host != "" || l.url.User != nil || strings.Trim(l.url.Path, "/") != "" {
			return nil, errors.New(l.source + ": this backend takes no user, host or path in its URL; use ?field=value")
		}
		return nil, nil
	}
	t := c.Type().Elem()
	for i := range t.NumField() {
		switch f := c.Elem().Field(i); {
		case !tagged(t.Field(i), "connection"):
		case begin.IsValid() && !isObject(f.Type()): // an object there is left out
			f.Set(begin.Field(i))
		default:
			f.SetZero()
		}
	}
	empty := reflect.New(t) // shows what the URL gives, whatever c has already
	for _, v := range []reflect.Value{empty, c} {
		u := *l.url
		if err := v.Interface().(driver.URLConfig).UnmarshalURL(&u); err != nil {
			return nil, fmt.Errorf("%s: %w", l.source, err)
		}
	}
	// A zero that the URL gives, such as database 0, shows where a URL with nothing in it does
	// not write the field.
	written, always := writes(t, *l.url), writes(t, url.URL{Scheme: l.url.Scheme})
	front = map[string]bool{}
	for i := range t.NumField() {
		if name := jsonName(t.Field(i)); name != "" && (!empty.Elem().Field(i).IsZero() || written[name] && !always[name]) {
			from[name], front[name] = l.place(0, ""), true
		}
	}
	return front, nil
}

// writes are the fields of t that UnmarshalURL sets, to whatever value.
func writes(t reflect.Type, u url.URL) map[string]bool {
	before, after := reflect.New(t).Elem(), reflect.New(t)
	fill(after.Elem(), 0)
	before.Set(after.Elem())
	if after.Interface().(driver.URLConfig).UnmarshalURL(&u) != nil {
		return nil
	}
	found := map[string]bool{}
	for i := range t.NumField() {
		if name := jsonName(t.Field(i)); name != "" && !reflect.DeepEqual(before.Field(i).Interface(), after.Elem().Field(i).Interface()) {
			found[name] = true
		}
	}
	return found
}

// fill gives the fields of a struct values that no URL does.
func fill(v reflect.Value, depth int) {
	const deepest = 4
	for i := range v.NumField() {
		if f := v.Field(i); jsonName(v.Type().Field(i)) != "" {
			switch {
			case f.Type() == secretType:
				f.Set(reflect.ValueOf(driver.NewSecret("\x00")))
			case f.Kind() == reflect.Bool:
				f.SetBool(true)
			case f.Kind() == reflect.String:
				f.SetString("\x00")
			case f.CanInt():
				f.SetInt(101)
			case f.CanUint():
				f.SetUint(101)
			case f.CanFloat():
				f.SetFloat(101)
			case f.Kind() == reflect.Slice:
				f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			case f.Kind() == reflect.Pointer:
				f.Set(reflect.New(f.Type().Elem()))
			case f.Kind() == reflect.Struct && depth < deepest:
				fill(f, depth+1)
			}
		}
	}
}

// within is a field of query that stands within the object field, or "".
func within(field string, query url.Values) string {
	for _, other := range slices.Sorted(maps.Keys(query)) {
		if strings.HasPrefix(other, field+".") {
			return other
		}
	}
	return ""
}

// unknownName is field, which the query has and t has not, for an error. It is not shown where
// it may be the end of a password with an & in it.
func (l *layer) unknownName(field string, t reflect.Type) string {
	secret := false
	for _, part := range strings.Split(l.raw, "&") {
		escaped, _, hasValue := strings.Cut(part, "=")
		switch name, err := url.QueryUnescape(escaped); {
		case err == nil && name == field && (secret || !hasValue):
			return "a field in the query (not shown: it may be part of a secret)"
		case err == nil:
			secret = secret || secretAt(t, name)
		}
	}
	return text.Name(field)
}

// names are the fields that a query can have, those of t first.
func (l *layer) names(t reflect.Type) []string {
	all := append(textFields(t, ""), textFields(l.coreType, "")...)
	return slices.DeleteFunc(all, func(name string) bool { return name == "type" })
}
