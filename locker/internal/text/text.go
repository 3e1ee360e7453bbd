// Package text reads one value of a configuration from its text, the same way for the
// query of a URL, for a variable of the environment and, within JSON, for strings and
// numbers; and it writes values into error messages.
package text

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

var durationType = reflect.TypeFor[time.Duration]()

// Duration is what an error says of a duration that cannot be read.
const Duration = `want a duration with a unit, such as "1.5s" or "250ms"`

// Set sets v, which is addressable, from s. A pointer gets a value of its own. The error
// says what would be right, and s unless it is secret.
func Set(v reflect.Value, s string, secret bool) error {
	want := func(what string) error {
		if secret {
			return fmt.Errorf("%s, got a value that is not shown", what)
		}
		return fmt.Errorf("%s, got %s", what, Value(s))
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(s))
	}
	switch {
	case v.Kind() == reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		if err := Set(p.Elem(), s, secret); err != nil {
			return err
		}
		v.Set(p)
	case v.Type() == durationType:
		t, err := time.ParseDuration(s)
		if err != nil {
			return want(Duration)
		}
		v.SetInt(int64(t))
	case v.Kind() == reflect.String:
		v.SetString(s)
	case v.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return want("want true or false")
		}
		v.SetBool(b)
	case v.CanInt():
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil {
			return want("want a whole number")
		}
		v.SetInt(n)
	case v.CanUint():
		n, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil {
			return want("want a whole number that is not negative")
		}
		v.SetUint(n)
	case v.CanFloat():
		n, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil {
			return want("want a number")
		}
		v.SetFloat(n)
	default:
		return fmt.Errorf("it cannot be given as text")
	}
	return nil
}

// None is for a field of which a zero in a source means none, while the zero value in Go
// means the default: there, none is the least value of the field's type. v has just been set
// from a source.
func None(v reflect.Value) error {
	least := int64(-1) << (v.Type().Bits() - 1)
	switch v.Int() {
	case 0:
		v.SetInt(least)
	case least:
		return fmt.Errorf("it is too small")
	}
	return nil
}

// IsNone says whether v is what None makes of a zero.
func IsNone(v reflect.Value) bool { return v.Int() == int64(-1)<<(v.Type().Bits()-1) }

// notShown stands for a value that may be, or hold, a secret: what has an @ or :// in it may be
// a URL with a password.
const notShown = "a value that is not shown (it may hold a secret)"

func mayHoldSecret(s string) bool { return strings.Contains(s, "@") || strings.Contains(s, "://") }

// Value is Quote for a value of a configuration.
func Value(s string) string {
	if mayHoldSecret(s) {
		return notShown
	}
	return Quote(s)
}

// Name is Value without the quotation marks, for the name of a field.
func Name(s string) string {
	if mayHoldSecret(s) {
		return "a name that is not shown (it may hold a secret)"
	}
	q := Quote(s)
	end := strings.LastIndexByte(q, '"')
	return q[1:end] + q[end+1:]
}

// Quote makes anybody's bytes fit for one line of a log.
func Quote(s string) string {
	const most = 64
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "… (" + strconv.Itoa(len(s)) + " bytes)"
}

// Short is d without the zeros at its end: 1h, where d.String says 1h0m0s.
func Short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
