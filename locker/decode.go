package locker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/internal/text"
)

// decoder lays JSON, or text by field name, over a struct of configuration. It is
// stricter than encoding/json: names match exactly, unknown ones and repeated ones are an
// error, durations have a unit, and an error names the field by its path. What the source
// leaves out keeps its value.
//
// A field with the tag lockstep:"secret" has its value in no error, and neither has
// what stands where an object belongs: it may be anything, such as a URL with a password.
//
// Errors are of type *fault.
type decoder struct {
	// aside says of a top-level field that it is not decoded: it is given to the function.
	aside map[string]func(data []byte, offset int) *fault
	// seen, if it is not nil, hears of every value before it is decoded.
	seen func(path string, offset int)
}

// fault is a mistake in a source. offset is where in the JSON it stands.
type fault struct {
	path, problem string
	offset        int
}

var durationType = reflect.TypeFor[time.Duration]()

// wellFormed says whether data is one JSON value, and nothing after it.
//
// encoding/json would take what is not UTF-8 for U+FFFD: a password in another encoding would
// be another password.
func wellFormed(data []byte) *fault {
	if len(bytes.TrimSpace(data)) == 0 {
		return &fault{problem: "it is empty; want a JSON object: {…}"}
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return &fault{problem: "it begins with a byte order mark; JSON is UTF-8 without one"}
	}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return &fault{problem: "this is not UTF-8, as JSON has to be", offset: i}
		}
		i += size
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	var all json.RawMessage
	err := dec.Decode(&all)
	if err == nil {
		if _, more := dec.Token(); more == io.EOF {
			return nil
		}
		return &fault{problem: "there is something after the end of the JSON object", offset: int(dec.InputOffset()) - 1}
	}
	var syntax *json.SyntaxError
	offset := len(data)
	if errors.As(err, &syntax) {
		offset = int(syntax.Offset)
	}
	return &fault{problem: "this is not JSON: " + strings.TrimPrefix(err.Error(), "json: "), offset: offset - 1}
}

// position counts from 1. The column counts bytes, as the Go compiler does.
func position(data []byte, offset int) (line, col int) {
	before := data[:max(0, min(offset, len(data)))]
	return 1 + bytes.Count(before, []byte{'\n'}), len(before) - bytes.LastIndexByte(before, '\n')
}

// entry is a name and its value in a JSON object.
type entry struct {
	name         string
	nameAt       int
	data         []byte
	offset       int
	alreadyThere bool
}

// entries takes apart the object data, which is well-formed JSON that begins at offset. ok
// is false if it is no object.
func entries(data []byte, offset int) (all []entry, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	known := map[string]bool{}
	for dec.More() {
		nameAt := int(dec.InputOffset())
		for strings.IndexByte(" \t\r\n,", data[nameAt]) >= 0 {
			nameAt++
		}
		t, err := dec.Token()
		name, isName := t.(string)
		var value json.RawMessage
		if err != nil || !isName || dec.Decode(&value) != nil {
			return nil, false
		}
		at := int(dec.InputOffset()) - len(value)
		all = append(all, entry{name, offset + nameAt, value, offset + at, known[name]})
		known[name] = true
	}
	return all, true
}

// items takes apart a list, as entries does an object.
func items(data []byte, offset int) (all []entry, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, false
	}
	for dec.More() {
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil, false
		}
		all = append(all, entry{data: value, offset: offset + int(dec.InputOffset()) - len(value)})
	}
	return all, true
}

// value decodes data, which is well-formed and begins at offset, into v.
func (d *decoder) value(path string, data []byte, offset int, v reflect.Value, secret bool) *fault {
	if d.seen != nil && path != "" {
		d.seen(path, offset)
	}
	fail := func(format string, args ...any) *fault {
		return &fault{path, fmt.Sprintf(format, args...), offset}
	}
	if string(data) == "null" {
		return fail("null is not allowed; leave the field out for its default")
	}
	want := func(kind string) *fault {
		if secret {
			return fail("want %s", kind)
		}
		return fail("want %s, got %s", kind, quoteJSON(data))
	}
	set := func(s string) *fault {
		if err := text.Set(v, s, secret); err != nil {
			return fail("%v", err)
		}
		return nil
	}
	switch {
	case v.Type() == durationType || v.Kind() == reflect.String:
		var s string
		if json.Unmarshal(data, &s) != nil {
			if v.Type() == durationType {
				return want(strings.TrimPrefix(text.Duration, "want "))
			}
			return want("a string")
		}
		return set(s)
	case v.Kind() == reflect.Bool:
		if json.Unmarshal(data, v.Addr().Interface()) != nil {
			return want("true or false")
		}
		return nil
	case v.CanInt() || v.CanUint() || v.CanFloat():
		if c := data[0]; c != '-' && (c < '0' || c > '9') {
			return want("a number")
		}
		if v.CanFloat() {
			return set(string(data))
		}
		return set(whole(string(data)))
	case v.Kind() == reflect.Pointer:
		return d.value(path, data, offset, own(v), secret)
	case v.Kind() == reflect.Slice:
		all, ok := items(data, offset)
		if !ok {
			return want("a list")
		}
		list := reflect.MakeSlice(v.Type(), len(all), len(all))
		for i, item := range all {
			if err := d.value(path+"["+strconv.Itoa(i)+"]", item.data, item.offset, list.Index(i), secret); err != nil {
				return err
			}
		}
		v.Set(list)
		return nil
	case v.Kind() == reflect.Struct:
		return d.object(path, data, offset, v, secret)
	}
	return fail("a %s cannot be configured", v.Type())
}

// whole writes a number without fraction and exponent, if it is a whole one: to JSON, 1e3
// and 1000.0 are the same number as 1000.
func whole(s string) string {
	if s == "-0" {
		return "0"
	}
	if !strings.ContainsAny(s, ".eE") {
		return s
	}
	// An exponent of many digits would take all memory. No integer type needs one.
	if i := strings.IndexAny(s, "eE"); i >= 0 && len(strings.TrimLeft(s[i+1:], "+-0")) > 3 {
		return s
	}
	if r, ok := new(big.Rat).SetString(s); ok && r.IsInt() {
		return r.Num().String()
	}
	return s
}

// own makes the pointer v point to a value of its own, so that what the program gave stays
// as it is, and returns that value. A new struct begins with its defaults.
func own(v reflect.Value) reflect.Value {
	p := reflect.New(v.Type().Elem())
	if !v.IsNil() {
		p.Elem().Set(v.Elem())
	} else if r, ok := p.Interface().(interface{ Reset() }); ok {
		r.Reset()
	}
	v.Set(p)
	return p.Elem()
}

func (d *decoder) object(path string, data []byte, offset int, v reflect.Value, secret bool) *fault {
	all, ok := entries(data, offset)
	if !ok {
		return &fault{path, "want an object: {…}", offset}
	}
	for _, e := range all {
		at := join(path, e.name)
		if e.alreadyThere {
			return &fault{quoteBare(at), "it is given twice", e.nameAt}
		}
		if f, ok := d.aside[e.name]; ok && path == "" {
			if err := f(e.data, e.offset); err != nil {
				return err
			}
			continue
		}
		f, hidden, ok := fieldByName(v, e.name)
		if !ok {
			return &fault{quoteBare(at), unknownField(fieldNames(v.Type())), e.nameAt}
		}
		if err := d.value(at, e.data, e.offset, f, secret || hidden); err != nil {
			return err
		}
	}
	return nil
}

// setText sets the field of into (a pointer to a struct) that a path such as
// retry.delay names. known is false when there is none.
func setText(into any, path string, values []string) (known bool, wrong *fault) {
	v, secret := reflect.ValueOf(into).Elem(), false
	for _, name := range strings.Split(path, ".") {
		if v.Kind() == reflect.Pointer {
			v = own(v)
		}
		f, hidden, ok := fieldByName(v, name)
		if !ok {
			return false, nil
		}
		v, secret = f, secret || hidden
	}
	if t := v.Type(); t.Kind() == reflect.Struct || t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct {
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		return true, &fault{path: path, problem: "give its fields: " + strings.Join(textFields(t, path+"."), ", ")}
	}
	if v.Kind() == reflect.Slice {
		list := reflect.MakeSlice(v.Type(), len(values), len(values))
		for i, s := range values {
			if err := text.Set(list.Index(i), s, secret); err != nil {
				return true, &fault{path: path, problem: err.Error()}
			}
		}
		v.Set(list)
		return true, nil
	}
	if len(values) != 1 {
		return true, &fault{path: path, problem: fmt.Sprintf("it is given %d times", len(values))}
	}
	if err := text.Set(v, values[0], secret); err != nil {
		return true, &fault{path: path, problem: err.Error()}
	}
	return true, nil
}

func unknownField(known []string) string {
	return "unknown field (known: " + strings.Join(known, ", ") + ")"
}

func fieldByName(v reflect.Value, name string) (f reflect.Value, secret, ok bool) {
	t := v.Type()
	if t.Kind() != reflect.Struct || name == "" {
		return reflect.Value{}, false, false
	}
	for i := range t.NumField() {
		if sf := t.Field(i); jsonName(sf) == name {
			return v.Field(i), isSecret(sf), true
		}
	}
	return reflect.Value{}, false, false
}

func isSecret(f reflect.StructField) bool { return f.Tag.Get("lockstep") == "secret" }

func fieldNames(t reflect.Type) []string {
	var names []string
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		if n := jsonName(t.Field(i)); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// textFields are the paths that setText takes. Recursive types end at the fourth level.
func textFields(t reflect.Type, path string) (names []string) {
	for i := range t.NumField() {
		name, f := jsonName(t.Field(i)), t.Field(i).Type
		if name == "" {
			continue
		}
		if f.Kind() == reflect.Pointer {
			f = f.Elem()
		}
		switch {
		case f.Kind() == reflect.Struct && strings.Count(path, ".") < 4:
			names = append(names, textFields(f, path+name+".")...)
		case f.Kind() != reflect.Struct && f.Kind() != reflect.Interface:
			names = append(names, path+name)
		}
	}
	return names
}

// jsonName is the field's name in a source, or "" when it has none.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	if !f.IsExported() || name == "-" {
		return ""
	}
	return name
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func quoteJSON(data []byte) string {
	switch data[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		var s string
		_ = json.Unmarshal(data, &s) // well-formed
		return quote(s)
	}
	return quoteBare(string(data))
}

// place is where a value stands: a source, and, in JSON, where in it.
type place struct {
	source string
	prefix string // of the names there: backend. in JSON
	doc    []byte // nil if it is no JSON
	offset int
}

// wrong is the error of a field that stands there, which never shows more than its parts.
func (p place) wrong(field, problem string) error {
	return &sourceError{p, &driver.FieldError{Field: field, Problem: problem}}
}

// sourceError is a field's error with the source that the value comes from.
type sourceError struct {
	place
	field *driver.FieldError
}

func (e *sourceError) Error() string {
	return ErrInvalidConfig.Error() + ": " + e.at(e.prefix+e.field.Field, e.field.Problem)
}

// Unwrap makes errors.As find the FieldError.
func (e *sourceError) Unwrap() error { return e.field }

// at is "source, line 1, column 2: field: problem", without what is not there.
func (p place) at(field, problem string) string {
	s := p.source
	if p.doc != nil {
		line, col := position(p.doc, p.offset)
		s += fmt.Sprintf(", line %d, column %d", line, col)
	}
	for _, part := range []string{field, problem} {
		if s != "" && part != "" {
			s += ": "
		}
		s += part
	}
	return s
}

// places says where the values of a configuration come from, by field.
type places map[string]place

// locate adds to the error of Validate where the value comes from. What no source has
// given was given by the program; its error stays as it is.
func (ps places) locate(err error) error {
	var wrong *driver.FieldError
	if !errors.As(err, &wrong) {
		return err
	}
	for _, name := range append([]string{wrong.Field}, wrong.Others...) {
		if p, ok := ps[name]; ok {
			return &sourceError{p, wrong}
		}
	}
	name := wrong.Field
	for {
		i := strings.LastIndexAny(name, ".[")
		if i < 0 {
			return err
		}
		name = name[:i]
		if p, ok := ps[name]; ok {
			return &sourceError{p, wrong}
		}
	}
}
