package locker

import (
	"encoding/json"
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
)

// LoadConfig reads a configuration from source, which is one of
//
//   - JSON text: {"type": "redis", "ttl": "30s", "backend": {"addrs": ["localhost:6379"]}}
//   - a URL: redis://user:password@host:6379/0?ttl=30s&retry.attempts=5, memory://; the
//     query holds fields by name, of Config and of the backend's configuration
//   - env:NAME: the environment variable NAME, which holds one of the others
//   - the path of a file that holds JSON text
//
// so that a variable or a file can choose the backend. An unknown field, a wrong type
// and a value out of range are an ErrInvalidConfig that names the source and the field;
// never a password.
func LoadConfig(source string) (Config, error) { return Config{}.Load(source) }

// Load lays what source says (see LoadConfig) over c: a field that source gives wins,
// field by field also within Retry and Backend; what it leaves out stays as it is in c.
// A source that chooses another Type drops c.Backend, which is not of that type.
func (c Config) Load(source string) (Config, error) {
	loaded, err := c.load(source, true)
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

func (c Config) load(source string, env bool) (Config, error) {
	source = strings.TrimSpace(source)
	name, isEnv := strings.CutPrefix(source, "env:")
	switch {
	case source == "":
		return c, errors.New("source: it is empty; give JSON text, a file, a URL, or env:NAME")
	case len(source) > maxSource:
		return c, fmt.Errorf("source: it has %d bytes; at most %d are allowed", len(source), maxSource)
	case isEnv && !env:
		return c, errors.New("source: it is env:NAME again; a variable holds JSON text, a file or a URL")
	case isEnv:
		if !isVariable.MatchString(name) {
			return c, errors.New("source: what follows env: is not the name of a variable (not shown: it may hold a secret)")
		}
		value, set := os.LookupEnv(name)
		if !set || strings.TrimSpace(value) == "" {
			return c, fmt.Errorf("env:%s: the variable is not set or empty", name)
		}
		c, err := c.load(value, false)
		if err != nil {
			err = fmt.Errorf("env:%s: %w", name, err)
		}
		return c, err
	case strings.HasPrefix(source, "{"):
		return c.loadJSON("JSON text", []byte(source))
	case looksLikeURL.MatchString(source):
		return c.loadURL(source)
	}
	// What is no path is not repeated in an error: it may be a mistyped URL or JSON with
	// a password in it, or, in a variable, a password alone.
	f, err := os.Open(source)
	if err != nil && (!env || len(source) > 4096 || !looksLikePath.MatchString(source) || !strings.ContainsAny(source, `./\`)) {
		return c, fmt.Errorf("source: it is neither JSON text that begins with {, nor a URL, nor the path of a file that can be opened (not shown: it may hold a secret): %w", pathError(err))
	}
	return c.loadFile(source, f, err)
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

// loadFile takes what os.Open returned for path.
func (c Config) loadFile(path string, f *os.File, err error) (Config, error) {
	name := "file " + quote(path)
	if err != nil {
		return c, fmt.Errorf("%s: %w", name, pathError(err))
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return c, fmt.Errorf("%s: it cannot be read: %w", name, pathError(err))
	}
	if len(data) > maxSource {
		return c, fmt.Errorf("%s: it has more than %d bytes", name, maxSource)
	}
	return c.loadJSON(name, data)
}

// pathError is err without the path, which has been named already, or must not be.
func pathError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (c Config) loadJSON(name string, data []byte) (Config, error) {
	var backend json.RawMessage
	given, err := decodeConfig(&c, &backend, data)
	if err != nil {
		return c, fmt.Errorf("%s: %w", name, err)
	}
	var layers []*layer
	if len(backend) > 0 {
		layers = []*layer{{source: name, json: backend}}
	}
	return c.lay(name, given, layers)
}

// decodeConfig decodes data over c, but for the backend's part, which it sets aside, and
// for Type, which it returns, or "" if data gives none.
func decodeConfig(c *Config, backend *json.RawMessage, data []byte) (string, error) {
	was := c.Type
	c.Type = ""
	d := decoder{aside: map[string]*json.RawMessage{"backend": backend}, fill: fillRetry}
	err := d.decode(data, c)
	given := c.Type
	c.Type = was
	return given, err
}

// fillRetry makes {"retry": {"attempts": 3}} keep the default delay and jitter.
func fillRetry(v any) {
	if r, ok := v.(*Retry); ok {
		*r = DefaultRetry()
	}
}

func (c Config) loadURL(source string) (Config, error) {
	name, _, _ := strings.Cut(source, ":")
	name = strings.ToLower(name)
	u, err := url.Parse(source)
	if err != nil || !strings.HasPrefix(source[len(name):], "://") || u.Fragment != "" ||
		strings.Contains(u.EscapedPath()+u.RawQuery, "@") {
		// A / ? or # in a password ends the authority early: the @ is what gives it away.
		// url.Parse's own words quote the URL, and with it a password.
		return c, fmt.Errorf("URL %s://…: it is malformed; write %s://[user:password@]host[:port][/path][?field=value] and percent-encode special characters (not shown: it may hold a secret)", name, name)
	}
	if name == "file" {
		if u.Host != "" || u.RawQuery != "" {
			return c, errors.New("URL file://…: write file:///path/of/the/file")
		}
		f, err := os.Open(u.Path)
		return c.loadFile(u.Path, f, err)
	}
	r, bad := lookUpScheme(name)
	if bad != nil {
		bad.Op = "load"
		return c, bad
	}
	label := "URL " + name + "://" + quoteBare(u.Host)
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return c, fmt.Errorf("%s: the query is malformed; percent-encode special characters", label)
	}
	d := decoder{aside: map[string]*json.RawMessage{"backend": nil, "type": nil}, fill: fillRetry}
	for _, field := range slices.Sorted(maps.Keys(query)) {
		known, err := d.setText(&c, field, query[field])
		if err != nil {
			return c, fmt.Errorf("%s: %w", label, err)
		}
		if known {
			delete(query, field)
		}
	}
	u.RawQuery = ""
	return c.lay(label, r.name, []*layer{{source: label, url: u, query: query}})
}

// lay finishes a source: it may have chosen the type, and what it said of the backend
// is checked now if the type is known, so that the error comes from where the mistake is.
func (c Config) lay(name, typ string, layers []*layer) (Config, error) {
	if typ != "" {
		if !sameBackend(c.Type, typ) {
			c.Backend, c.layers = nil, nil
		}
		c.Type = typ
	}
	c.layers = append(c.layers[:len(c.layers):len(c.layers)], layers...)
	if _, err := c.settings(); err != nil {
		return c, fmt.Errorf("%s: %w", name, err)
	}
	if c.Type == "" {
		return c, nil
	}
	r, bad := lookUp(c.Type)
	if bad != nil {
		bad.Op = "load"
		bad.Err = fmt.Errorf("%s: %w", name, bad.Err)
		return c, bad
	}
	_, err := r.merge(nil, c.layers)
	return c, err
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

// queryFields are the fields of Config that a URL's query can give.
var queryFields = []string{"namespace", "ttl", "retry.attempts", "retry.delay", "retry.jitter", "driftFactor"}

// layer is what one source said of the backend's configuration.
type layer struct {
	source string
	json   json.RawMessage
	url    *url.URL
	query  url.Values
}

// apply lays l over the configuration that c points to.
func (l *layer) apply(c any) error {
	if l.url == nil {
		return (&decoder{path: "backend"}).decode(l.json, c)
	}
	if uc, ok := c.(URLConfig); ok {
		u := *l.url
		if err := uc.UnmarshalURL(&u); err != nil {
			return err
		}
	} else if l.url.Host != "" || l.url.User != nil || strings.Trim(l.url.Path, "/") != "" {
		return errors.New("this backend takes no user, host or path in its URL; use ?field=value")
	}
	var d decoder
	for _, field := range slices.Sorted(maps.Keys(l.query)) {
		known, err := d.setText(c, field, l.query[field])
		if err != nil {
			return err
		}
		if !known {
			return unknownField(field, append(fieldNames(reflect.TypeOf(c).Elem()), queryFields...))
		}
	}
	return nil
}
