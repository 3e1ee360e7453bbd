package locker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// LoadConfig reads a configuration from source, which is one of
//
//   - JSON text: {"type": "redis", "ttl": "30s", "backend": {"addrs": ["localhost:6379"]}}
//   - a URL: redis://user:password@host:6379/0?ttl=30s&retry.attempts=5, memory://; the
//     query holds fields by name, of Config and of the backend's configuration
//   - env:NAME: the environment variable NAME, which holds one of the others
//   - the path of a file that holds JSON text
//
// so that a variable or a file can choose the backend. Over it go the environment
// variables of single fields, such as LOCKSTEP_TTL, LOCKSTEP_RETRY_DELAY and
// LOCKSTEP_REDIS_ADDRS=a:6379,b:6379; LoadEnv of each configuration lists them. An empty
// one counts as not set, and other variables are nobody's concern.
//
// An unknown field, a wrong type and a value out of range are an ErrInvalidConfig that
// names the source, the line and column in JSON, and the field; never a password.
// errors.As finds a driver.FieldError in it.
func LoadConfig(source string) (Config, error) { return Config{}.Load(source) }

// Load lays what source says (see LoadConfig) over c, and the environment over that: the
// environment wins over the source, which wins over c, which wins over the defaults, field
// by field also within Retry and Backend; what nobody gives stays as it is in c. Another
// Type, from the source or from LOCKSTEP_TYPE, drops what was said of the backend for the
// type before. Load may be called again: a later source wins over an earlier one.
//
// The environment is read by Load alone: Open of a Config that was made in Go does not
// look at it.
func (c Config) Load(source string) (Config, error) {
	loaded, err := c.load(source)
	if err != nil {
		var known *Error
		if errors.As(err, &known) {
			return c, err
		}
		return c, &Error{Op: "load", Code: InvalidConfig, Err: err}
	}
	return loaded, nil
}

// maxSource is the greatest size of a source in bytes: what is larger is no
// configuration, but a mistaken path.
const maxSource = 1 << 20

func (c Config) load(source string) (Config, error) {
	l, err := readSource(source, "")
	if err != nil {
		return c, err
	}
	env := &environment{found: map[string]string{}}
	was := c.Type

	// What is checked has the defaults beneath, so that a source's own zero value, such as
	// "namespace": "", is not taken for a field that is left out. The result has not: it
	// prints as what was said.
	checked, from := c, places{}
	checked.SetDefaults()
	if err := l.layCore(&checked, from); err != nil {
		return c, err
	}
	if p, given := from["type"]; given && checked.Type == "" {
		return c, p.wrong("type", "it is empty")
	}
	if err := env.lay(&checked, from); err != nil {
		return c, err
	}
	if err := checked.Validate(); err != nil {
		return c, from.locate(err)
	}
	loaded := c
	if err := errors.Join(l.layCore(&loaded, places{}), env.lay(&loaded, places{})); err != nil {
		return c, err
	}

	loaded.env = env
	about := loaded.Type // what l says of the backend is about this type
	if l.typ != "" || was != "" {
		about = l.typ
		if about == "" {
			about = was
		}
	}
	if !sameBackend(was, loaded.Type) {
		loaded.Backend, loaded.layers = nil, nil
	}
	if sameBackend(about, loaded.Type) && l.sayBackend() {
		loaded.layers = append(loaded.layers[:len(loaded.layers):len(loaded.layers)], l)
	}
	if loaded.Type == "" {
		return loaded, nil
	}
	r, bad := lookUp(loaded.Type)
	if bad != nil {
		bad.Op = "load"
		if p, ok := from["type"]; ok {
			bad.Err = errors.New(p.at("", bad.Err.Error()))
		}
		return c, bad
	}
	_, err = r.merge(loaded.Backend, loaded.layers, env, true)
	return loaded, err
}

// readSource reads and parses a source. via is what led to it, such as "env:NAME: ".
func readSource(source, via string) (*layer, error) {
	source = strings.TrimSpace(source)
	name, isEnv := strings.CutPrefix(source, "env:")
	switch {
	case source == "":
		return nil, errors.New(via + "source: it is empty; give JSON text, a file, a URL, or env:NAME")
	case len(source) > maxSource:
		return nil, fmt.Errorf("%ssource: it has %d bytes; at most %d are allowed", via, len(source), maxSource)
	case isEnv && via != "":
		return nil, errors.New(via + "source: it is env:NAME again; a variable holds JSON text, a file or a URL")
	case isEnv:
		if !isVariable.MatchString(name) {
			return nil, errors.New("source: what follows env: is not the name of a variable (not shown: it may hold a secret)")
		}
		value, set := os.LookupEnv(name)
		if !set || strings.TrimSpace(value) == "" {
			return nil, fmt.Errorf("env:%s: the variable is not set or empty", name)
		}
		return readSource(value, "env:"+name+": ")
	case strings.HasPrefix(source, "{"):
		return newJSON(via+"JSON text", []byte(source))
	case looksLikeURL.MatchString(source):
		return newURL(source, via)
	}
	// What is no path is not repeated in an error: it may be a mistyped URL or JSON with
	// a password in it, or, in a variable, a password alone.
	f, err := os.Open(source)
	if err != nil && (via != "" || len(source) > 4096 || !looksLikePath.MatchString(source) || !strings.ContainsAny(source, `./\`)) {
		return nil, fmt.Errorf("%ssource: it is neither JSON text that begins with {, nor a URL, nor the path of a file that can be opened (not shown: it may hold a secret): %w", via, pathError(err))
	}
	return readFile(via, source, f, err)
}

var (
	looksLikeURL  = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]+:/`)
	looksLikePath = regexp.MustCompile(`^([a-zA-Z]:)?[^:@{}"\x00-\x1f]+$`)
	isVariable    = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,255}$`)
	isType        = regexp.MustCompile(`^[a-zA-Z0-9_.+-]{1,64}$`)
)

// quoteBare is quote without the quotation marks.
func quoteBare(s string) string {
	q := quote(s)
	end := strings.LastIndexByte(q, '"')
	return q[1:end] + q[end+1:]
}

// readFile takes what os.Open returned for path.
func readFile(via, path string, f *os.File, err error) (*layer, error) {
	name := via + "file " + quote(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, pathError(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return nil, fmt.Errorf("%s: it cannot be read: %w", name, pathError(err))
	}
	if len(data) > maxSource {
		return nil, fmt.Errorf("%s: it has more than %d bytes", name, maxSource)
	}
	return newJSON(name, data)
}

// pathError is err without the path, which has been named already, or must not be.
func pathError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// layer is what one source said.
type layer struct {
	source string // its name in errors
	typ    string // the type that it chooses, or ""

	// Of JSON: all of it, what stands as backend, and where.
	doc     []byte
	backend []byte
	offset  int

	// Of a URL: it without its query, and what the query says of the core and of the backend.
	url         *url.URL
	core, query url.Values
}

// sayBackend is whether l says anything of the backend.
func (l *layer) sayBackend() bool { return l.url != nil || l.backend != nil }

func newJSON(name string, data []byte) (*layer, error) {
	l := &layer{source: name, doc: data}
	if err := wellFormed(data); err != nil {
		return nil, l.fail(err, "")
	}
	return l, nil
}

// fail is f as an error. prefix comes before the names in f.
func (l *layer) fail(f *fault, prefix string) error {
	p := l.place(f.offset, prefix)
	if f.path == "" {
		return errors.New(p.at(strings.TrimSuffix(prefix, "."), f.problem))
	}
	return p.wrong(f.path, f.problem)
}

func (l *layer) place(offset int, prefix string) place {
	return place{source: l.source, prefix: prefix, doc: l.doc, offset: offset}
}

// layCore lays what l says of the core over c, and notes in from where it stands.
func (l *layer) layCore(c *Config, from places) error {
	if l.url != nil {
		for _, field := range slices.Sorted(maps.Keys(l.core)) {
			if _, err := setText(c, field, l.core[field]); err != nil {
				return l.fail(err, "")
			}
			from[field] = l.place(0, "")
		}
		c.Type = l.typ
		return nil
	}
	d := decoder{
		aside: map[string]func([]byte, int) *fault{
			"backend": func(data []byte, offset int) *fault {
				if data[0] != '{' {
					return &fault{"backend", "want an object: {…}", offset}
				}
				l.backend, l.offset = data, offset
				return nil
			},
			// Editors find the schema of a file by it.
			"$schema": func(data []byte, offset int) *fault {
				if data[0] != '"' {
					return &fault{"$schema", "want a string", offset}
				}
				return nil
			},
		},
		seen: func(path string, offset int) { from[path] = l.place(offset, "") },
	}
	if err := d.object("", l.doc, 0, reflect.ValueOf(c).Elem(), false); err != nil {
		return l.fail(err, "")
	}
	if _, given := from["type"]; given {
		l.typ = c.Type
	}
	return nil
}

// layBackend lays what l says of the backend over the configuration that c points to.
func (l *layer) layBackend(c any, from places) error {
	if l.url == nil {
		const prefix = "backend."
		d := decoder{seen: func(path string, offset int) { from[path] = l.place(offset, prefix) }}
		if err := d.object("", l.backend, l.offset, reflect.ValueOf(c).Elem(), false); err != nil {
			return l.fail(err, prefix)
		}
		return nil
	}
	front := map[string]bool{} // the fields that stand before the query
	if _, ok := c.(URLConfig); ok {
		t := reflect.TypeOf(c).Elem()
		alone := reflect.New(t) // shows what the URL gives, whatever c has already
		for _, into := range []any{alone.Interface(), c} {
			u := *l.url
			if err := into.(URLConfig).UnmarshalURL(&u); err != nil {
				return fmt.Errorf("%s: %w", l.source, err)
			}
		}
		for i := range t.NumField() {
			if name := jsonName(t.Field(i)); name != "" && !alone.Elem().Field(i).IsZero() {
				from[name], front[name] = l.place(0, ""), true
			}
		}
	} else if l.url.Host != "" || l.url.User != nil || strings.Trim(l.url.Path, "/") != "" {
		return errors.New(l.source + ": this backend takes no user, host or path in its URL; use ?field=value")
	}
	for _, field := range slices.Sorted(maps.Keys(l.query)) {
		if front[field] {
			return l.fail(&fault{path: field, problem: "it is given twice, before the ? and after it"}, "")
		}
		known, err := setText(c, field, l.query[field])
		if err != nil {
			return l.fail(err, "")
		}
		if !known {
			all := append(textFields(reflect.TypeOf(c).Elem(), ""), textFields(reflect.TypeFor[Config](), "")...)
			all = slices.DeleteFunc(all, func(name string) bool { return name == "type" })
			return l.fail(&fault{path: quoteBare(field), problem: unknownField(all)}, "")
		}
		from[field] = l.place(0, "")
	}
	return nil
}

func newURL(source, via string) (*layer, error) {
	name, _, _ := strings.Cut(source, ":")
	name = strings.ToLower(name)
	u, err := url.Parse(source)
	if err != nil || !strings.HasPrefix(source[len(name):], "://") || u.Fragment != "" ||
		strings.Contains(u.EscapedPath()+u.RawQuery, "@") {
		// A / ? or # in a password ends the authority early: the @ is what gives it away.
		// url.Parse's own words quote the URL, and with it a password.
		return nil, fmt.Errorf("%sURL %s://…: it is malformed; write %s://[user:password@]host[:port][/path][?field=value] and percent-encode special characters (not shown: it may hold a secret)", via, name, name)
	}
	if name == "file" {
		if u.Host != "" || u.RawQuery != "" {
			return nil, errors.New(via + "URL file://…: write file:///path/of/the/file")
		}
		f, err := os.Open(u.Path)
		return readFile(via, u.Path, f, err)
	}
	r, bad := lookUpScheme(name)
	if bad != nil {
		bad.Op = "load"
		return nil, bad
	}
	l := &layer{source: via + "URL " + name + "://" + quoteBare(u.Host), typ: r.name, url: u}
	if l.query, err = url.ParseQuery(u.RawQuery); err != nil {
		return nil, fmt.Errorf("%s: the query is malformed; percent-encode special characters", l.source)
	}
	u.RawQuery = ""
	l.core = url.Values{}
	for field, values := range l.query {
		first, _, _ := strings.Cut(field, ".")
		if _, _, ok := fieldByName(reflect.ValueOf(Config{}), first); ok && first != "type" && first != "backend" {
			if known, _ := setText(new(Config), field, values); known {
				l.core[field] = values
				delete(l.query, field)
			}
		}
	}
	return l, nil
}

// environment is the process's environment as a Load found it, so that a Config stays the
// same from Load to Open. It keeps the variables that were asked for, and no others.
type environment struct {
	mu    sync.Mutex
	found map[string]string // "": not set
}

func (e *environment) lookUp(name string) (string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	value, known := e.found[name]
	if !known { // of a type that the program chose after Load
		value = os.Getenv(name)
		e.found[name] = value
	}
	return value, value != ""
}

// lay lays the environment over the configuration c. from is what the sources before it
// gave, and learns what the environment gives.
func (e *environment) lay(c driver.Config, from places) error {
	env := driver.Env{Lookup: e.lookUp}
	c.LoadEnv(&env)
	for field, variable := range env.Variables() {
		from[field] = place{source: variable}
	}
	return from.locate(env.Err())
}

// sameBackend: an alias chooses nothing else.
func sameBackend(was, now string) bool {
	if was == "" || was == now {
		return true // "": the program left the choice to the source; Open checks that Backend fits
	}
	a, bad := lookUp(was)
	b, bad2 := lookUp(now)
	return bad == nil && bad2 == nil && a == b
}
