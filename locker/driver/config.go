package driver

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/internal/text"
)

// Config is what a pointer to a backend's configuration can do when lockgen config has
// written the code for it. Where it can, the core asks it to fill in the defaults, lays
// the sources and the environment over them, and checks the outcome while it still knows
// which file and line a wrong value comes from. A backend without it checks in its open
// function, and takes nothing from the environment.
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

// Invalid is the FieldError of one value. The problem is format with args, of which
// strings are quoted and cut, and durations are written short.
func Invalid(field, format string, args ...any) *FieldError {
	for i, a := range args {
		switch a := a.(type) {
		case string:
			args[i] = text.Quote(a)
		case time.Duration:
			args[i] = text.Short(a)
		}
	}
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// With names the other fields that the problem speaks of.
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

// Env is the environment, for [Config.LoadEnv]. An empty variable counts as not set. After
// the first error nothing more is read.
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

// Has says whether any of the variables is set.
func (e *Env) Has(names ...string) bool {
	for _, name := range names {
		if _, ok := e.value(name); ok {
			return true
		}
	}
	return false
}

// Set sets what into points to, if the variable is set. A list's items are parted by
// commas.
func (e *Env) Set(name, field string, into any) { e.set(name, field, into, false) }

// SetSecret is Set for a value that no error shows.
func (e *Env) SetSecret(name, field string, into any) { e.set(name, field, into, true) }

func (e *Env) set(name, field string, into any, secret bool) {
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
		if err := text.Set(v, value, secret); err != nil {
			fail(field, err)
		}
		return
	}
	items := strings.Split(value, ",")
	list := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		if err := text.Set(list.Index(i), strings.TrimSpace(item), secret); err != nil {
			fail(fmt.Sprintf("%s[%d]", field, i), err)
			return
		}
	}
	v.Set(list)
}

// Variables are the names of the variables that have given a field, by field.
func (e *Env) Variables() map[string]string { return maps.Clone(e.variables) }

// Err is the first error, a [FieldError], or nil.
func (e *Env) Err() error {
	if e.err == nil {
		return nil
	}
	return e.err
}
