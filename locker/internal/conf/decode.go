package conf

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

	"github.com/lockstep-go/lockstep/locker/internal/text"
)

// decoder lays JSON, or text by field name, over a struct of configuration. It is
// stricter than encoding/json: names match exactly, unknown ones and repeated ones are an
// error, durations have a unit, and an error names the field by its path. What the source
// leaves out keeps its value.
//
// The value of a secret is in no error, and neither is what stands where an object belongs,
// and what has an @ or :// in it: it may be anything, such as a URL with a password.
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

// traits are what the loader has to know of a field.
type traits struct {
	secret bool
	none   bool // see text.None
}

// value decodes data, which is well-formed and begins at offset, into v. begin is what an
// object in its place begins with, or nothing.
func (d *decoder) value(path string, data []byte, offset int, v, begin reflect.Value, is traits) *fault {
	if d.seen != nil && path != "" {
		d.seen(path, offset)
	}
	switch {
	case string(data) == "null":
		return &fault{path, "null is not allowed; leave the field out for its default", offset}
	case v.Kind() == reflect.Pointer && isObject(v.Type()) && (string(data) == "true" || string(data) == "false"):
		setObject(v, begin, string(data) == "true")
		return nil
	case v.Kind() == reflect.Pointer:
		inner := own(v, begin)
		if begin.IsValid() {
			begin = begin.Elem()
		}
		return d.value(path, data, offset, inner, begin, is)
	case v.Kind() == reflect.Slice:
		return d.list(path, data, offset, v, is)
	case v.Kind() == reflect.Struct && v.Type() != secretType:
		return d.object(path, data, offset, v, begin, is.secret)
	}
	if problem := scalar(data, v, is); problem != "" {
		return &fault{path, problem, offset}
	}
	return nil
}

// list decodes the items of a list.
func (d *decoder) list(path string, data []byte, offset int, v reflect.Value, is traits) *fault {
	all, ok := items(data, offset)
	if !ok {
		return &fault{path, is.want("a list", data), offset}
	}
	list := reflect.MakeSlice(v.Type(), len(all), len(all))
	for i, item := range all {
		if err := d.value(path+"["+strconv.Itoa(i)+"]", item.data, item.offset, list.Index(i), reflect.Value{}, is); err != nil {
			return err
		}
	}
	v.Set(list)
	return nil
}

// scalar decodes a string, a number or a boolean, and returns what is wrong with it, or "".
func scalar(data []byte, v reflect.Value, is traits) (problem string) {
	set := func(s string) string {
		if err := setValue(v, s, is); err != nil {
			return err.Error()
		}
		return ""
	}
	switch {
	case v.Type() == durationType || v.Kind() == reflect.String || v.Type() == secretType:
		var s string
		if json.Unmarshal(data, &s) == nil {
			return set(s)
		}
		if v.Type() == durationType {
			return is.want(strings.TrimPrefix(text.Duration, "want "), data)
		}
		return is.want("a string", data)
	case v.Kind() == reflect.Bool:
		if json.Unmarshal(data, v.Addr().Interface()) != nil {
			return is.want("true or false", data)
		}
		return ""
	case v.CanInt() || v.CanUint() || v.CanFloat():
		if c := data[0]; c != '-' && (c < '0' || c > '9') {
			return is.want("a number", data)
		}
		if v.CanFloat() {
			return set(string(data))
		}
		return set(whole(string(data)))
	}
	return fmt.Sprintf("a %s cannot be configured", v.Type())
}

// want says which kind of value is wanted, and what is there instead unless that is a secret.
func (is traits) want(kind string, data []byte) string {
	if is.secret {
		return "want " + kind
	}
	return fmt.Sprintf("want %s, got %s", kind, quoteJSON(data))
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

// setValue sets v from its text.
func setValue(v reflect.Value, s string, is traits) error {
	if err := text.Set(v, s, is.secret); err != nil {
		return err
	}
	if is.none {
		return text.None(v)
	}
	return nil
}

// own makes the pointer v point to a value of its own, so that what the program gave stays
// as it is, and returns that value. A new object is a copy of what begin points to.
func own(v, begin reflect.Value) reflect.Value {
	p := reflect.New(v.Type().Elem())
	switch {
	case !v.IsNil():
		p.Elem().Set(v.Elem())
	case begin.IsValid() && !begin.IsNil():
		p.Elem().Set(begin.Elem())
		leaveOut(p.Elem())
	}
	v.Set(p)
	return p.Elem()
}

// leaveOut makes nil what may be left out of the object v: begin has it.
func leaveOut(v reflect.Value) {
	if v.Kind() != reflect.Struct || v.Type() == secretType {
		return
	}
	for i := range v.NumField() {
		if f := v.Field(i); jsonName(v.Type().Field(i)) != "" && isObject(f.Type()) {
			if f.Kind() == reflect.Pointer {
				f.SetZero()
			} else {
				leaveOut(f)
			}
		}
	}
}

// setObject switches on or off an object that may be left out.
func setObject(v, begin reflect.Value, on bool) {
	if !on {
		v.SetZero()
	} else if v.IsNil() {
		own(v, begin)
	}
}

func (d *decoder) object(path string, data []byte, offset int, v, begin reflect.Value, secret bool) *fault {
	all, ok := entries(data, offset)
	if !ok {
		return &fault{path, "want an object: {…}", offset}
	}
	for _, e := range all {
		at := join(path, e.name)
		if e.alreadyThere {
			return &fault{text.Name(at), "it is given twice", e.nameAt}
		}
		if f, ok := d.aside[e.name]; ok && path == "" {
			if err := f(e.data, e.offset); err != nil {
				return err
			}
			continue
		}
		f, is, ok := fieldByName(v, e.name)
		if !ok {
			return &fault{text.Name(at), unknownField(fieldNames(v.Type())), e.nameAt}
		}
		is.secret = is.secret || secret
		if err := d.value(at, e.data, e.offset, f, inside(begin, e.name), is); err != nil {
			return err
		}
	}
	return nil
}

// inside is the field of that name of the struct begin, or nothing.
func inside(begin reflect.Value, name string) reflect.Value {
	if !begin.IsValid() {
		return begin
	}
	f, _, _ := fieldByName(begin, name)
	return f
}

// setText sets the field of the struct v that a path such as retry.delay names. known is false
// when there is none. A zero value makes no object that is not there: tls.insecureSkipVerify=false
// does not switch TLS on.
func setText(v, begin reflect.Value, path string, values []string) (known bool, wrong *fault) {
	return setWithin(v, begin, path, path, values, false)
}

// setWithin does it for what remains of path in v.
func setWithin(v, begin reflect.Value, path, remaining string, values []string, secret bool) (known bool, wrong *fault) {
	name, deeper, nested := strings.Cut(remaining, ".")
	f, is, ok := fieldByName(v, name)
	if !ok {
		return false, nil
	}
	begin, is.secret = inside(begin, name), is.secret || secret
	if !nested {
		return true, setLeaf(f, begin, path, values, is)
	}
	if f.Kind() != reflect.Pointer {
		return setWithin(f, begin, path, deeper, values, is.secret)
	}
	inner := begin
	if begin.IsValid() {
		inner = begin.Elem()
	}
	if f.IsNil() {
		alone := reflect.New(f.Type().Elem()).Elem()
		known, wrong := setWithin(alone, inner, path, deeper, values, is.secret)
		if !known || wrong != nil || alone.IsZero() {
			return known, wrong
		}
	}
	return setWithin(own(f, begin), inner, path, deeper, values, is.secret)
}

func setLeaf(v, begin reflect.Value, path string, values []string, is traits) *fault {
	fail := func(err error) *fault { return &fault{path: path, problem: err.Error()} }
	if t := v.Type(); isObject(t) {
		hint := ""
		if t.Kind() == reflect.Pointer {
			if on, err := strconv.ParseBool(values[0]); err == nil && len(values) == 1 {
				setObject(v, begin, on)
				return nil
			}
			t, hint = t.Elem(), ", or true or false"
		}
		return &fault{path: path, problem: "give its fields: " + strings.Join(textFields(t, path+"."), ", ") + hint}
	}
	if v.Kind() == reflect.Slice {
		list := reflect.MakeSlice(v.Type(), len(values), len(values))
		for i, s := range values {
			if err := setValue(list.Index(i), s, is); err != nil {
				return fail(err)
			}
		}
		v.Set(list)
		return nil
	}
	if len(values) != 1 {
		return &fault{path: path, problem: fmt.Sprintf("it is given %d times", len(values))}
	}
	if err := setValue(v, values[0], is); err != nil {
		return fail(err)
	}
	return nil
}

func isFalse(values []string) bool {
	on, err := strconv.ParseBool(values[0])
	return err == nil && !on && len(values) == 1
}

func unknownField(known []string) string {
	return "unknown field (known: " + strings.Join(known, ", ") + ")"
}

func fieldByName(v reflect.Value, name string) (f reflect.Value, is traits, ok bool) {
	t := v.Type()
	if t.Kind() != reflect.Struct || name == "" {
		return reflect.Value{}, traits{}, false
	}
	for i := range t.NumField() {
		if sf := t.Field(i); jsonName(sf) == name {
			return v.Field(i), traits{isSecret(sf), tagged(sf, "none")}, true
		}
	}
	return reflect.Value{}, traits{}, false
}

// secretAt says whether the field at a path of names is a secret, or within one.
func secretAt(t reflect.Type, path string) bool {
	for _, name := range strings.Split(path, ".") {
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		f, is, ok := fieldByName(reflect.New(t).Elem(), name)
		if !ok || is.secret {
			return is.secret
		}
		t = f.Type()
	}
	return false
}

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
		case f == secretType:
			names = append(names, path+name)
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
		return text.Value(s)
	}
	return text.Name(string(data))
}
