package conf

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/internal/text"
)

// hidden stands for what is not shown.
const hidden = `"(hidden)"`

// Show is c as JSON, for people: with what its sources said of the backend, without what is
// zero, and without secrets. Whatever looks like a URL is hidden.
func Show(c Core, s Sources) string {
	c = c.Clone()
	typ, backend := c.Chosen()
	if b, err := Find(*typ); err == nil {
		if merged, err := Merge(b, *backend, s, false); err == nil {
			if *backend = merged; reflect.ValueOf(merged).IsZero() {
				*backend = nil
			}
		}
	}
	return string(show(nil, reflect.ValueOf(c), 0))
}

// ShowValue is Show for a part of a configuration.
func ShowValue(v any) string { return string(show(nil, reflect.ValueOf(v), 0)) }

// show appends v as JSON. Only what has a name in a source is shown.
func show(b []byte, v reflect.Value, depth int) []byte {
	const deepest = 8
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return append(b, "null"...)
		}
		if depth < deepest {
			return show(b, v.Elem(), depth+1)
		}
	case reflect.Struct:
		if names := fieldNames(v.Type()); len(names) > 0 && depth < deepest {
			return showFields(b, v, depth)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 || depth >= deepest {
			break
		}
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = show(b, v.Index(i), depth+1)
		}
		return append(b, ']')
	case reflect.String:
		return appendJSON(b, v.String())
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool())
	case reflect.Float32, reflect.Float64:
		if data, err := json.Marshal(v.Float()); err == nil {
			return append(b, data...)
		}
		return appendJSON(b, strconv.FormatFloat(v.Float(), 'g', -1, 64))
	}
	switch {
	case v.Type() == durationType:
		return appendJSON(b, text.Short(time.Duration(v.Int())))
	case v.CanInt():
		return strconv.AppendInt(b, v.Int(), 10)
	case v.CanUint():
		return strconv.AppendUint(b, v.Uint(), 10)
	}
	return appendJSON(b, v.Type().String())
}

func showFields(b []byte, v reflect.Value, depth int) []byte {
	b = append(b, '{')
	for i := range v.NumField() {
		sf, f := v.Type().Field(i), v.Field(i)
		name := jsonName(sf)
		if name == "" || f.IsZero() {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(appendJSON(b, name), ':')
		switch {
		case isSecret(sf):
			b = append(b, hidden...)
		case tagged(sf, "none") && text.IsNone(f):
			b = show(b, reflect.Zero(f.Type()), depth+1)
		case f.Kind() == reflect.Interface && reflect.Indirect(f.Elem()).Kind() != reflect.Struct:
			b = appendJSON(b, f.Elem().Type().String()) // such as a string in Config.Backend
		default:
			b = show(b, f, depth+1)
		}
	}
	return append(b, '}')
}

func appendJSON(b []byte, s string) []byte {
	if strings.Contains(s, "@") || strings.Contains(s, "://") {
		return append(b, hidden...)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return append(b, hidden...)
	}
	return append(b, data...)
}
