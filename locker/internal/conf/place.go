package conf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
)

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
	return driver.ErrInvalidConfig.Error() + ": " + e.at(e.prefix+e.field.Field, e.field.Problem)
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
