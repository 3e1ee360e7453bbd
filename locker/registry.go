package locker

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// URLConfig is implemented by a pointer to a backend's configuration that can take
// its connection from a URL: scheme, user, host and path. The query has been taken
// off: its parameters are the configuration's fields by name, and are set afterwards.
// The errors name the part, never the value of a password.
type URLConfig interface {
	UnmarshalURL(u *url.URL) error
}

// Names are the further names of a registration.
type Names struct {
	// Aliases are accepted as Config.Type too, and reported under the backend's own name.
	Aliases []string
	// Schemes are the URL schemes beside the name itself.
	Schemes []string
}

// Register makes a backend known under name, as Config.Type and as URL scheme, for
// Open. C is its configuration, a struct with json tags; open gets what the program and
// the configuration sources said of it, merged, and checks it. A backend's package
// calls Register in its init function; registering a name twice makes Open of that
// name fail.
func Register[C any](name string, open func(ctx context.Context, c C) (driver.Backend, error), names ...Names) {
	r := &registration{name: name, config: reflect.TypeFor[C]()}
	r.open = func(ctx context.Context, code any, layers []layer) (driver.Backend, error) {
		c, err := mergeConfig[C](name, code, layers)
		if err != nil {
			return nil, err
		}
		return open(ctx, c)
	}
	r.check = func(layers []layer) error {
		_, err := mergeConfig[C](name, nil, layers)
		return err
	}
	types, schemes := []string{name}, []string{name}
	for _, n := range names {
		types = append(types, n.Aliases...)
		schemes = append(schemes, n.Schemes...)
	}
	registry.mu.Lock()
	defer registry.mu.Unlock()
	if registry.types == nil {
		registry.types, registry.schemes = map[string]*registration{}, map[string]*registration{}
	}
	for _, t := range types {
		if registry.types[t] != nil {
			r = &registration{name: t, twice: true}
		}
		registry.types[t] = r
	}
	for _, s := range schemes {
		registry.schemes[s] = r
	}
}

type registration struct {
	name   string
	config reflect.Type
	open   func(ctx context.Context, code any, layers []layer) (driver.Backend, error)
	check  func(layers []layer) error
	twice  bool
}

var registry struct {
	mu      sync.RWMutex
	types   map[string]*registration
	schemes map[string]*registration
}

// Backends lists the types that are registered.
func Backends() []string {
	registry.mu.RLock()
	defer registry.mu.RUnlock()
	var names []string
	for _, r := range registry.types {
		if !slices.Contains(names, r.name) {
			names = append(names, r.name)
		}
	}
	slices.Sort(names)
	return names
}

func lookUp(typ string) (*registration, *Error) {
	registry.mu.RLock()
	r := registry.types[typ]
	registry.mu.RUnlock()
	switch {
	case r == nil:
		known := strings.Join(Backends(), ", ")
		if known == "" {
			known = "none; import the backend's package"
		}
		if typ == "" {
			return nil, &Error{Code: UnknownBackend, Err: fmt.Errorf("type: it is empty (registered: %s)", known)}
		}
		return nil, &Error{Code: UnknownBackend, Err: fmt.Errorf("type: %s (registered: %s)", quote(typ), known)}
	case r.twice:
		return nil, &Error{Code: InvalidConfig, Err: fmt.Errorf("type: %s was registered by two packages", quote(typ))}
	}
	return r, nil
}

func scheme(s string) *registration {
	registry.mu.RLock()
	defer registry.mu.RUnlock()
	return registry.schemes[s]
}

// mergeConfig is C as the program gave it, with each source laid over it in turn.
func mergeConfig[C any](name string, code any, layers []layer) (C, error) {
	var c C
	switch given := code.(type) {
	case nil:
	case C:
		c = given
	case *C:
		if given != nil {
			c = *given
		}
	default:
		return c, fmt.Errorf("backend: type %q takes a %T, not a %T", name, c, code)
	}
	for _, l := range layers {
		if err := l.apply(&c); err != nil {
			return c, fmt.Errorf("%s: %w", l.source, err)
		}
	}
	return c, nil
}

// Open makes a Locker of cfg: it finds the backend by cfg.Type, connects, and returns
// when the backend answers. ctx bounds the opening only.
//
//   - ErrUnknownBackend: nothing is registered as cfg.Type; the message lists what is.
//   - ErrInvalidConfig: the message names the field, its value and what would be right.
//   - ErrUnavailable: the backend does not answer.
func Open(ctx context.Context, cfg Config) (*Locker, error) {
	const op = "open"
	fail := func(code Code, err error) error {
		return &Error{Op: op, Backend: cfg.Type, Code: code, Err: err}
	}
	if ctx == nil {
		return nil, fail(InvalidArgument, errNilContext)
	}
	r, bad := lookUp(cfg.Type)
	if bad != nil {
		bad.Op = op
		return nil, bad
	}
	if _, err := cfg.settings(); err != nil {
		return nil, fail(InvalidConfig, err)
	}
	if ctx.Err() != nil {
		return nil, fail(Canceled, ctxError(ctx))
	}
	if err := r.check(cfg.layers); err != nil {
		return nil, fail(InvalidConfig, err)
	}
	if cfg.Backend != nil && reflect.Indirect(reflect.ValueOf(cfg.Backend)).Type() != r.config {
		return nil, fail(InvalidConfig, fmt.Errorf("backend: type %q takes a %s, not a %T", cfg.Type, r.config, cfg.Backend))
	}
	b, err := r.open(ctx, cfg.Backend, cfg.layers)
	if err != nil {
		return nil, fail(codeOf(err), withContext(ctx, err))
	}
	cfg.Type, cfg.Backend, cfg.layers = "", nil, nil
	l, err := New(b, cfg)
	if err != nil {
		err = errors.Join(err, b.Close(ctx))
	}
	return l, err
}
