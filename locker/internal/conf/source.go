package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/internal/registry"
	"github.com/lockstep-go/lockstep/locker/internal/text"
)

// maxSource is the greatest size of a source in bytes: what is larger is no
// configuration, but a mistaken path.
const maxSource = 1 << 20

// readSource reads and parses a source. via is what led to it, such as "env:NAME: ".
func readSource(c Core, source, via string) (*layer, error) {
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
		return readSource(c, value, "env:"+name+": ")
	case strings.HasPrefix(source, "{"):
		return newJSON(via+"JSON text", []byte(source))
	case looksLikeURL.MatchString(source):
		return newURL(c, source, via)
	}
	// What is no path is not repeated in an error: it may be a mistyped URL or JSON with
	// a password in it, or, in a variable, a password alone.
	f, err := os.Open(source)
	if err != nil && (via != "" || len(source) > 4096 || !looksLikePath.MatchString(source) || !strings.ContainsAny(source, `./\`)) {
		return nil, fmt.Errorf("%ssource: it is neither JSON text that begins with {, nor a URL, nor the path of a file that can be opened%s (not shown: it may hold a secret): %w", via, meant(source, via), pathError(err))
	}
	return readFile(via, source, f, err)
}

// meant asks whether a source that is an address was meant as a URL. It repeats none that
// stands in a variable, where a password alone is a likelier mistake.
func meant(source, via string) string {
	if !looksLikeAddress.MatchString(source) {
		return ""
	}
	if via != "" {
		source = "host:port"
	}
	var urls []string
	for _, b := range registry.Backends() {
		if b.Wrong != "" {
			continue // it may have no Config
		}
		if _, ok := reflect.New(b.Config).Interface().(driver.URLConfig); ok {
			urls = append(urls, b.Name+"://"+source)
		}
	}
	if len(urls) == 0 || len(urls) > 3 {
		return ""
	}
	return "; did you mean " + strings.Join(urls, " or ") + "?"
}

var (
	looksLikeURL  = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]+:/`)
	looksLikePath = regexp.MustCompile(`^([a-zA-Z]:)?[^:@{}"\x00-\x1f]+$`)
	// A host and a port, of which the host is a name, an IPv4 address or an IPv6 one in brackets.
	looksLikeAddress = regexp.MustCompile(`^([a-zA-Z0-9.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{2,5}$`)
	isVariable       = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,255}$`)
	isType           = regexp.MustCompile(`^[a-zA-Z0-9_.+-]{1,64}$`)
)

// readFile takes what os.Open returned for path.
func readFile(via, path string, f *os.File, err error) (*layer, error) {
	name := via + "file " + text.Value(path)
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

func newURL(c Core, source, via string) (*layer, error) {
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
	b, err := findScheme(name)
	if err != nil {
		return nil, err
	}
	l := &layer{source: via + "URL " + name + "://" + text.Name(u.Host), typ: b.Name, url: u, raw: u.RawQuery, coreType: reflect.TypeOf(c).Elem()}
	if l.query, err = url.ParseQuery(u.RawQuery); err != nil {
		return nil, fmt.Errorf("%s: the query is malformed; percent-encode special characters", l.source)
	}
	u.RawQuery = ""
	l.core = url.Values{}
	for field, values := range l.query {
		first, _, _ := strings.Cut(field, ".")
		if _, _, ok := fieldByName(reflect.ValueOf(c).Elem(), first); ok && first != "type" && first != "backend" {
			if known, _ := setText(reflect.ValueOf(c.Clone()).Elem(), reflect.Value{}, field, values); known {
				l.core[field] = values
				delete(l.query, field)
			}
		}
	}
	return l, nil
}
