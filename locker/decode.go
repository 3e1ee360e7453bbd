package locker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decoder lays JSON, or text by field name, over a struct of configuration. It is
// stricter than encoding/json: names match exactly, unknown ones are an error,
// durations have a unit, and an error names the field by its path. What the source
// leaves out keeps its value.
//
// A field with the tag lockstep:"secret" has its value in no error, and neither has
// what stands where an object belongs: it may be anything, such as a URL with a password.
type decoder struct {
	path  string                      // where in the whole the struct stands
	aside map[string]*json.RawMessage // top-level fields that are not decoded but set aside
	fill  func(any)                   // gives a struct that was nil its defaults before it is decoded
}

var durationType = reflect.TypeFor[time.Duration]()

// decode lays the JSON object data over the struct that into points to.
func (d *decoder) decode(data []byte, into any) error {
	if err := wellFormed(data); err != nil {
		return err
	}
	if v := reflect.ValueOf(into).Elem(); v.Kind() == reflect.Struct {
		return d.object(d.path, bytes.TrimSpace(data), v, false)
	}
	return d.value(d.path, data, reflect.ValueOf(into).Elem(), true)
}

func wellFormed(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	var all json.RawMessage
	err := dec.Decode(&all)
	if err == nil {
		if _, more := dec.Token(); more == io.EOF {
			return nil
		}
		line, col := position(data, dec.InputOffset())
		return fmt.Errorf("line %d, column %d: there is something after the end of the JSON object", line, col)
	}
	var syntax *json.SyntaxError
	offset := int64(len(data))
	if errors.As(err, &syntax) {
		offset = syntax.Offset
	}
	line, col := position(data, offset)
	return fmt.Errorf("line %d, column %d: this is not JSON: %s", line, col, strings.TrimPrefix(err.Error(), "json: "))
}

func position(data []byte, offset int64) (line, col int) {
	before := data[:min(int(offset), len(data))]
	line = 1 + bytes.Count(before, []byte{'\n'})
	return line, max(1, len(before)-(bytes.LastIndexByte(before, '\n')+1))
}

func (d *decoder) value(path string, data []byte, v reflect.Value, secret bool) error {
	data = bytes.TrimSpace(data)
	if string(data) == "null" {
		return fmt.Errorf("%s: null is not allowed; leave the field out for its default", path)
	}
	want := func(kind string) error {
		if secret {
			return fmt.Errorf("%s: want %s", path, kind)
		}
		return fmt.Errorf("%s: want %s, got %s", path, kind, quoteJSON(data))
	}
	switch {
	case v.Type() == durationType || v.Kind() == reflect.String:
		var s string
		if json.Unmarshal(data, &s) != nil {
			if v.Type() == durationType {
				return want(`a duration with a unit, such as "1.5s" or "250ms"`)
			}
			return want("a string")
		}
		return d.text(path, s, v, secret)
	case v.Kind() == reflect.Bool:
		if json.Unmarshal(data, v.Addr().Interface()) != nil {
			return want("true or false")
		}
		return nil
	case v.CanInt() || v.CanUint() || v.CanFloat():
		if c := data[0]; c != '-' && (c < '0' || c > '9') {
			return want("a number")
		}
		return d.text(path, string(data), v, secret)
	case v.Kind() == reflect.Pointer:
		return d.value(path, data, d.own(v), secret)
	case v.Kind() == reflect.Slice:
		var items []json.RawMessage
		if json.Unmarshal(data, &items) != nil {
			return want("a list")
		}
		list := reflect.MakeSlice(v.Type(), len(items), len(items))
		for i, item := range items {
			if err := d.value(path+"["+strconv.Itoa(i)+"]", item, list.Index(i), secret); err != nil {
				return err
			}
		}
		v.Set(list)
		return nil
	case v.Kind() == reflect.Struct:
		return d.object(path, data, v, secret)
	}
	return fmt.Errorf("%s: a %s cannot be configured", path, v.Type())
}

// own makes the pointer v point to a struct of its own, so that what the program gave
// stays as it is, and returns that struct.
func (d *decoder) own(v reflect.Value) reflect.Value {
	p := reflect.New(v.Type().Elem())
	if !v.IsNil() {
		p.Elem().Set(v.Elem())
	} else if d.fill != nil {
		d.fill(p.Interface())
	}
	v.Set(p)
	return p.Elem()
}

func (d *decoder) object(path string, data []byte, v reflect.Value, secret bool) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil || fields == nil {
		if path == "" {
			return errors.New("want an object: {…}")
		}
		return fmt.Errorf("%s: want an object: {…}", path)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		at := join(path, name)
		if path == d.path {
			if raw, ok := d.aside[name]; ok && raw != nil {
				*raw = fields[name]
				continue
			}
		}
		f, hidden, ok := fieldByName(v, name)
		if !ok {
			return unknownField(at, fieldNames(v.Type()))
		}
		if err := d.value(at, fields[name], f, secret || hidden); err != nil {
			return err
		}
	}
	return nil
}

// text sets one value from its text.
func (d *decoder) text(path, s string, v reflect.Value, secret bool) error {
	got := quote(s)
	if secret {
		got = "a value that is not shown"
	}
	switch {
	case v.Kind() == reflect.Pointer:
		return d.text(path, s, d.own(v), secret)
	case v.Type() == durationType:
		t, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf(`%s: want a duration with a unit, such as "1.5s" or "250ms", got %s`, path, got)
		}
		v.SetInt(int64(t))
	case v.Kind() == reflect.String:
		v.SetString(s)
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return fmt.Errorf("%s: want true or false, got %s", path, got)
		}
		v.SetBool(b)
	case v.CanInt():
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%s: want a whole number, got %s", path, got)
		}
		v.SetInt(n)
	case v.CanUint():
		n, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%s: want a whole number that is not negative, got %s", path, got)
		}
		v.SetUint(n)
	case v.CanFloat():
		n, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%s: want a number, got %s", path, got)
		}
		v.SetFloat(n)
	default:
		return fmt.Errorf("%s: it cannot be given as text", path)
	}
	return nil
}

// setText sets the field of into (a pointer to a struct) that a path such as
// retry.delay names. known is false when there is none.
func (d *decoder) setText(into any, path string, values []string) (known bool, err error) {
	v, secret := reflect.ValueOf(into).Elem(), false
	for i, name := range strings.Split(path, ".") {
		if _, aside := d.aside[name]; aside && i == 0 {
			return false, nil
		}
		if v.Kind() == reflect.Pointer {
			v = d.own(v)
		}
		f, hidden, ok := fieldByName(v, name)
		if !ok {
			return false, nil
		}
		v, secret = f, secret || hidden
	}
	if v.Kind() == reflect.Slice {
		list := reflect.MakeSlice(v.Type(), len(values), len(values))
		for i, s := range values {
			if err := d.text(path, s, list.Index(i), secret); err != nil {
				return true, err
			}
		}
		v.Set(list)
		return true, nil
	}
	if len(values) != 1 {
		return true, fmt.Errorf("%s: it is given %d times", path, len(values))
	}
	return true, d.text(path, values[0], v, secret)
}

func unknownField(path string, known []string) error {
	return fmt.Errorf("%s: unknown field (known: %s)", quoteBare(path), strings.Join(known, ", "))
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
