package locker

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// hidden stands for what is not shown.
const hidden = `"(hidden)"`

// String is c as JSON, for people: with what its sources said of the backend, without
// what is zero, and without secrets. Fields with the tag lockstep:"secret" and whatever
// looks like a URL are hidden.
func (c Config) String() string {
	if r, bad := lookUp(c.Type); bad == nil {
		if merged, err := r.merge(c.Backend, c.layers, c.env, false); err == nil {
			if c.Backend = merged; reflect.ValueOf(merged).IsZero() {
				c.Backend = nil
			}
		}
	}
	return string(show(nil, reflect.ValueOf(c), 0))
}

// Format prints String for every verb, so that no way of printing c shows a secret.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// MarshalJSON is String. It is no source for LoadConfig if c holds a secret.
func (c Config) MarshalJSON() ([]byte, error) { return []byte(c.String()), nil }

// LogValue is String as JSON.
func (c Config) LogValue() slog.Value { return slog.AnyValue(json.RawMessage(c.String())) }

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
		return appendJSON(b, time.Duration(v.Int()).String())
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
