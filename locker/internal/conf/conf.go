// Package conf reads, merges and shows configurations: what the program says, sources in JSON
// and URLs, and the environment. Package locker gives it the core's configuration, and the
// registry those of the backends.
//
//	source.go    a source becomes a layer: JSON text, a URL, a file, a variable
//	layer.go     a layer is laid over the configuration of the core or of a backend
//	decode.go    JSON and text become the fields of a struct
//	env.go       the environment goes over the layers
//	place.go     where a value stands, for errors
//	show.go      a configuration as text, without secrets
//	load.go      the order of all this
package conf

import (
	"reflect"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/internal/registry"
	"github.com/lockstep-go/lockstep/locker/internal/text"
)

// Core is a pointer to the core's configuration.
type Core interface {
	driver.Config
	// Clone is a pointer to a copy.
	Clone() Core
	// Chosen are its fields Type and Backend.
	Chosen() (typ *string, backend *any)
}

func typeOf(c Core) string {
	typ, _ := c.Chosen()
	return *typ
}

// Unknown is the error of a type or URL scheme that no backend is registered under.
type Unknown struct{ Text string }

func (e *Unknown) Error() string { return e.Text }

// Find is the backend that is registered as typ.
func Find(typ string) (*registry.Backend, error) {
	switch {
	case typ == "":
		return known(nil, "type: it is empty")
	case !isType.MatchString(typ): // a URL, perhaps, with a password
		return known(nil, "type: it is not the name of a type (not shown: it may hold a secret)")
	}
	return known(registry.Type(typ), "type: "+text.Value(typ))
}

func findScheme(scheme string) (*registry.Backend, error) {
	return known(registry.Scheme(scheme), "no backend has the URL scheme "+text.Value(scheme))
}

func known(b *registry.Backend, what string) (*registry.Backend, error) {
	switch {
	case b == nil:
		names := strings.Join(Backends(), ", ")
		if names == "" {
			names = "none; import the backend's package"
		}
		return nil, &Unknown{what + " (registered: " + names + ")"}
	case b.Wrong != "":
		return nil, &driver.FieldError{Field: "type", Problem: text.Value(b.Name) + " " + b.Wrong}
	}
	return b, nil
}

// Backends are the names of those that are registered.
func Backends() (names []string) {
	for _, b := range registry.Backends() {
		names = append(names, b.Name)
	}
	return names
}

// sameBackend: an alias chooses nothing else.
func sameBackend(was, now string) bool {
	if was == "" || was == now {
		return true // "": the program left the choice to the source; Open checks that Backend fits
	}
	a, bad := Find(was)
	b, bad2 := Find(now)
	return bad == nil && bad2 == nil && a == b
}

// tagged says whether the tag lockstep of f has word.
func tagged(f reflect.StructField, word string) bool {
	for _, w := range strings.Split(f.Tag.Get("lockstep"), ",") {
		if w == word {
			return true
		}
	}
	return false
}

var secretType = reflect.TypeFor[driver.Secret]()

// isSecret: by its type, or, of another type than a string, by its tag.
func isSecret(f reflect.StructField) bool {
	t := f.Type
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		if t = t.Elem(); t == f.Type {
			break // it points to itself
		}
	}
	return t == secretType || tagged(f, "secret")
}
