package driver

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/lockstep-go/lockstep/locker/internal/text"
)

// Config is what a pointer to a backend's configuration implements, by code that lockgen config
// writes. The core then asks it to fill in the defaults, lays the sources and the environment
// over them, and checks the result while it still knows which file and line a wrong value comes
// from. A backend without it checks in its open function, and takes nothing from the environment.
type Config interface {
	// SetDefaults gives each field that is zero its default.
	SetDefaults()
	// Validate says whether the values are allowed as they stand, normally after
	// SetDefaults. The error is a [FieldError], the first that there is.
	Validate() error
	// LoadEnv sets the fields for which env has a variable. Errors stay in env.
	LoadEnv(env *Env)
}

// FieldError is a wrong value in a configuration (ERR-003). It matches ErrInvalidConfig.
// No part of it shows a secret.
type FieldError struct {
	// Field is the field by its name in a source: "validity", "tls.keyFile", "addrs[1]".
	Field string
	// Others are further fields that Problem speaks of, where two disagree.
	Others []string
	// Problem says what is wrong: the value, and what would be right.
	Problem string
}

// Invalid is the FieldError of one value. The problem is format with args. Strings among them are
// quoted and shortened, and not shown where they may hold a password; durations are written
// short.
func Invalid(field, format string, args ...any) *FieldError {
	for i, a := range args {
		switch a := a.(type) {
		case string:
			args[i] = text.Value(a)
		case time.Duration:
			args[i] = text.Short(a)
		}
	}
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// Unprintable says what is wrong with s, a string of a configuration, if it holds a control
// character; otherwise it returns "". Such a character comes there by mistake, mostly as the
// newline at the end of a file, and is easily overlooked: two services would then use two
// namespaces that look the same. The text does not show s.
func Unprintable(s string) string {
	for i, r := range s {
		switch {
		case !unicode.IsControl(r):
		case strings.TrimRight(s[i:], "\r\n") == "":
			return "it ends in a newline"
		default:
			return fmt.Sprintf("it holds a control character, %q", r)
		}
	}
	return ""
}

// With adds the names of other fields that the problem speaks of.
func (e *FieldError) With(others ...string) *FieldError {
	e.Others = append(e.Others, others...)
	return e
}

// Within puts in before the names in a FieldError, for a check of an inner struct: in is
// empty or ends with a dot, and "tls." makes caFile tls.caFile. Other errors stay as they are.
func Within(in string, err error) error {
	var e *FieldError
	if in == "" || !errors.As(err, &e) {
		return err
	}
	inner := FieldError{Field: in + e.Field, Problem: e.Problem}
	for _, other := range e.Others {
		inner.Others = append(inner.Others, in+other)
	}
	return &inner
}

// Error implements error.
func (e *FieldError) Error() string {
	return ErrInvalidConfig.Error() + ": " + e.Field + ": " + e.Problem
}

// Is makes errors.Is(err, ErrInvalidConfig) work.
func (e *FieldError) Is(target error) bool { return target == ErrInvalidConfig }

// Env is the environment, for [Config.LoadEnv]. An empty variable counts as not set. After the
// first error no more variables are read.
type Env struct {
	// Lookup is os.LookupEnv, or a stand-in for it.
	Lookup func(name string) (value string, set bool)

	variables map[string]string // by field
	err       *FieldError
}

func (e *Env) value(name string) (string, bool) {
	if e.err != nil {
		return "", false
	}
	value, set := e.Lookup(name)
	return value, set && value != ""
}

// Object sets the optional object that *at points to, from the environment. The variable name,
// which is true or false, switches the object on or off; load sets its fields, from the variables
// that fields lists. An object that is there is copied first, so that the program's own stays as
// it is. One that is not there is made when it is switched on, or when load has set a field to a
// value that is not zero; begin, which may be nil, then gives it its defaults.
func Object[T any](e *Env, name, field string, fields []string, at **T, begin func(*T), load func(*T)) {
	if begin == nil {
		begin = func(*T) {}
	}
	on := *at != nil
	e.Set(name, field, &on)
	_, given := e.value(name)
	if given && !on {
		for _, other := range fields {
			if _, ok := e.value(other); ok {
				e.err = &FieldError{Field: field, Problem: "it is false, but " + other + " is set"}
			}
		}
		*at = nil
		return
	}
	var own T
	load(&own)
	switch {
	case *at != nil:
		own = **at
	case on || !reflect.ValueOf(own).IsZero():
		own = *new(T)
		begin(&own)
	default:
		return
	}
	load(&own)
	*at = &own
}

// Set sets what into points to, if the variable is set. The items of a list are separated by
// commas.
func (e *Env) Set(name, field string, into any) { e.set(name, field, into, false) }

// SetNone is Set for a number or duration that has a default although its zero is allowed, and
// then means none. In Go the zero value means the default; the least value of the type, such as
// [math.MinInt], is what a zero in the variable becomes.
func (e *Env) SetNone(name, field string, into any) { e.set(name, field, into, true) }

func (e *Env) set(name, field string, into any, none bool) {
	value, ok := e.value(name)
	if !ok {
		return
	}
	if e.variables == nil {
		e.variables = map[string]string{}
	}
	e.variables[field] = name
	fail := func(field string, err error) { e.err = &FieldError{Field: field, Problem: err.Error()} }
	v := reflect.ValueOf(into).Elem()
	if v.Kind() != reflect.Slice {
		err := text.Set(v, value, false)
		if err == nil && none {
			err = text.None(v)
		}
		if err != nil {
			fail(field, err)
		}
		return
	}
	items := strings.Split(value, ",")
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		if err := text.Set(list.Index(i), strings.TrimSpace(item), false); err != nil {
			fail(fmt.Sprintf("%s[%d]", field, i), err)
			return
		}
	}
	v.Set(list)
}

// Variables returns, by the name of the field, the name of the variable that has set it.
func (e *Env) Variables() map[string]string { return maps.Clone(e.variables) }

// Err is the first error, a [FieldError], or nil.
func (e *Env) Err() error {
	if e.err == nil {
		return nil
	}
	return e.err
}
