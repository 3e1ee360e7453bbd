package driver

import (
	"context"
	"fmt"
	"net/url"
	"reflect"

	"github.com/lockstep-go/lockstep/locker/internal/registry"
)

// Names are the further names of a registration.
type Names struct {
	// Aliases are accepted as locker.Config.Type too, and reported under the backend's own name.
	Aliases []string
	// Schemes are the URL schemes beside the name itself.
	Schemes []string
}

// Register makes a backend known to locker.Open under name, as locker.Config.Type and as
// URL scheme. C is its configuration, a struct with json tags; open gets what the program and
// the configuration sources said of it, merged, and checks it: a wrong value is
// ErrInvalidConfig, a store that does not answer ErrUnavailable. A field of C that holds a
// secret is a [Secret]. A backend's package calls Register in its init function.
//
// Where *C implements [Config], by code that lockgen config writes, its defaults and
// checks are applied while the sources are read, and it takes fields from the environment.
// Where *C implements [URLConfig], a URL can name the store.
//
// A mistake (a name registered twice, a C that is no struct, no open) makes locker.Open of
// that name fail with ErrInvalidConfig, rather than the program at its start. Safe for
// concurrent use.
func Register[C any](name string, open func(ctx context.Context, c C) (Backend, error), names ...Names) {
	b := &registry.Backend{Name: name, Config: reflect.TypeFor[C]()}
	switch {
	case b.Config.Kind() != reflect.Struct:
		b.Wrong = fmt.Sprintf("was registered with a configuration that is no struct, but a %s", b.Config)
	case open == nil:
		b.Wrong = "was registered without a function to open it"
	}
	b.Open = func(ctx context.Context, config any) (any, error) { return open(ctx, config.(C)) }
	types, schemes := []string{name}, []string{name}
	for _, n := range names {
		types = append(types, n.Aliases...)
		schemes = append(schemes, n.Schemes...)
	}
	registry.Add(b, types, schemes)
}

// URLConfig is implemented by a pointer to a backend's configuration that can take its
// connection from a URL: scheme, user, host and path. The query has been taken off: its
// parameters are the configuration's fields by name, and are set afterwards.
//
// Fields with the tag lockstep:"connection" have their defaults when UnmarshalURL is called,
// whatever the program said of them: a URL names the whole connection. Without the tag, a URL
// for another store would be used with the password that is meant for the program's own.
//
// Errors name the part of the URL, never its value: it may be a password.
type URLConfig interface {
	UnmarshalURL(u *url.URL) error
}
