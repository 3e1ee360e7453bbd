package locker

import (
	"context"
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
// the configuration sources said of it, merged, and checks it: a wrong value is
// driver.ErrInvalidConfig, a store that does not answer driver.ErrUnavailable. A field of
// C that holds a secret has the tag lockstep:"secret", so that no error or log shows it. A
// backend's package calls Register in its init function.
//
// Where *C implements driver.Config, by code that lockgen config writes, its defaults and
// checks are applied by Load already, and it takes fields from the environment.
//
// A mistake (a name registered twice, a C that is no struct, no open) makes Open of that
// name fail with ErrInvalidConfig, rather than the program at its start. Safe for
// concurrent use.
func Register[C any](name string, open func(ctx context.Context, c C) (driver.Backend, error), names ...Names) {
	r := &registration{name: name, config: reflect.TypeFor[C]()}
	switch {
	case r.config.Kind() != reflect.Struct:
		r.wrong = fmt.Sprintf("was registered with a configuration that is no struct, but a %s", r.config)
	case open == nil:
		r.wrong = "was registered without a function to open it"
	}
	r.merge = func(code any, layers []*layer, env *environment, check bool) (any, error) {
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
			return c, fmt.Errorf("backend: type %q takes a %s, not a %T", name, r.config, code)
		}
		generated, ok := any(&c).(driver.Config)
		if ok && check {
			generated.SetDefaults()
		}
		from := places{}
		for _, l := range layers {
			if err := l.layBackend(&c, from); err != nil {
				return c, err
			}
		}
		if !ok {
			return c, nil
		}
		if env != nil {
			if err := env.lay(generated, from); err != nil {
				return c, err
			}
		}
		if check {
			return c, from.locate(generated.Validate())
		}
		return c, nil
	}
	r.open = func(ctx context.Context, merged any) (driver.Backend, error) {
		return open(ctx, merged.(C))
	}
	types, schemes := []string{name}, []string{name}
	for _, n := range names {
		types = append(types, n.Aliases...)
		schemes = append(schemes, n.Schemes...)
	}
	registry.mu.Lock()
	defer registry.mu.Unlock()
	for _, t := range types {
		r.add(&registry.types, t)
	}
	for _, s := range schemes {
		r.add(&registry.schemes, strings.ToLower(s))
	}
}

// registration is one backend. A wrong one stays in the registry, to say so in Open.
type registration struct {
	name   string
	config reflect.Type
	// merge is the configuration C: what the program gave, with each source laid over it in turn, and the environment.
	// With check, the defaults lie beneath, and what comes out is valid. Without, it is what was
	// said, for printing.
	merge func(code any, layers []*layer, env *environment, check bool) (any, error)
	open  func(ctx context.Context, merged any) (driver.Backend, error)
	wrong string
}

func (r *registration) add(to *map[string]*registration, name string) {
	if name == "" {
		return // it is what Config.Type is when it is left out
	}
	if *to == nil {
		*to = make(map[string]*registration)
	}
	if other := (*to)[name]; other != nil && other != r {
		r = &registration{name: name, wrong: "was registered by two packages"}
	}
	(*to)[name] = r
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
	switch {
	case typ == "":
		return find(&registry.types, typ, "type: it is empty")
	case !isType.MatchString(typ): // a URL, perhaps, with a password
		return find(&registry.types, "", "type: it is not the name of a type (not shown: it may hold a secret)")
	}
	return find(&registry.types, typ, fmt.Sprintf("type: %q", typ))
}

func lookUpScheme(scheme string) (*registration, *Error) {
	return find(&registry.schemes, scheme, fmt.Sprintf("no backend has the URL scheme %s", quote(scheme)))
}

func find(in *map[string]*registration, name, what string) (*registration, *Error) {
	registry.mu.RLock()
	r := (*in)[name]
	registry.mu.RUnlock()
	switch {
	case r == nil:
		known := strings.Join(Backends(), ", ")
		if known == "" {
			known = "none; import the backend's package"
		}
		return nil, &Error{Code: UnknownBackend, Err: fmt.Errorf("%s (registered: %s)", what, known)}
	case r.wrong != "":
		return nil, &Error{Code: InvalidConfig, Err: fmt.Errorf("type: %s %s", quote(name), r.wrong)}
	}
	return r, nil
}

// Open makes a Locker of cfg: it finds the backend by cfg.Type, connects, and returns
// when the backend answers. ctx bounds the opening only.
//
//   - ErrUnknownBackend: nothing is registered as cfg.Type; the message lists what is.
//   - ErrInvalidConfig: the message names the field, its value and what would be right.
//   - ErrUnavailable: the backend does not answer.
func Open(ctx context.Context, cfg Config) (*Locker, error) {
	const op = "open"
	r, bad := lookUp(cfg.Type)
	if bad != nil {
		bad.Op = op
		return nil, bad
	}
	fail := func(code Code, err error) error {
		return &Error{Op: op, Backend: cfg.Type, Code: code, Err: err}
	}
	if ctx == nil {
		return nil, fail(InvalidArgument, errNilContext)
	}
	if _, err := cfg.settings(); err != nil {
		return nil, fail(InvalidConfig, err)
	}
	merged, err := r.merge(cfg.Backend, cfg.layers, cfg.env, true)
	if err != nil {
		return nil, fail(InvalidConfig, err)
	}
	if ctx.Err() != nil {
		return nil, fail(Canceled, ctxError(ctx))
	}
	b, err := r.open(ctx, merged)
	if err != nil {
		return nil, fail(codeOf(err), withContext(ctx, err))
	}
	cfg.Type, cfg.Backend, cfg.layers, cfg.env = "", nil, nil, nil
	return New(b, cfg) // its errors: only a nil backend is left to find fault with
}
