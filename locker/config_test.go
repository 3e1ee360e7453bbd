package locker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// fakeConfig has one field of every kind.
type fakeConfig struct {
	Addr     string        `json:"addr"`
	Password driver.Secret `json:"password"`
	PIN      int           `json:"pin" lockstep:"secret"`
	Pass     []string      `json:"passes" lockstep:"secret"`
	Auth     *fakeAuth     `json:"auth" lockstep:"secret"`
	TLS      *fakeTLS      `json:"tls"`
	Size     int8          `json:"size"`
	Max      uint          `json:"max"`
	Rate     float32       `json:"rate"`
	Flag     bool          `json:"flag"`
	Maybe    *bool         `json:"maybe"`
	Wait     time.Duration `json:"wait"`
	Names    []string      `json:"names"`
	Any      any           `json:"any"`
	Dial     func()        `json:"-"`
	private  int
}

type fakeAuth struct {
	User string `json:"user"`
	PIN  int    `json:"pin"`
}

type fakeTLS struct {
	CAFile   string        `json:"caFile"`
	Key      driver.Secret `json:"key"`
	Insecure bool          `json:"insecure"`
}

func (c *fakeConfig) UnmarshalURL(u *url.URL) error {
	c.Addr = u.Host
	password, _ := u.User.Password()
	c.Password = driver.NewSecret(password)
	u.Host = "mine now" // must not be another's
	return nil
}

var opened atomic.Pointer[fakeConfig]

func init() {
	driver.Register("fake", func(_ context.Context, c fakeConfig) (driver.Backend, error) {
		if c.Size < 0 {
			return nil, fmt.Errorf("%w: size: %d is negative", driver.ErrInvalidConfig, c.Size)
		}
		opened.Store(&c)
		return &fake{}, nil
	}, driver.Names{Aliases: []string{"Fake", "fake"}, Schemes: []string{"Fake", "fakes"}})
	driver.Register("nothing", func(context.Context, struct{}) (driver.Backend, error) { return nil, nil })
	driver.Register("nilpointer", func(context.Context, struct{}) (driver.Backend, error) { return (*fake)(nil), nil })
	driver.Register("down", func(context.Context, struct{}) (driver.Backend, error) { return nil, errBoom })
	driver.Register("twice", func(context.Context, struct{}) (driver.Backend, error) { return &fake{}, nil })
	driver.Register("twice", func(context.Context, struct{}) (driver.Backend, error) { return &fake{}, nil })
	driver.Register("", func(context.Context, struct{}) (driver.Backend, error) { return &fake{}, nil })
	driver.Register("nostruct", func(context.Context, int) (driver.Backend, error) { return &fake{}, nil })
	driver.Register[struct{}]("noopen", nil)
}

const secret = "hunter2-s3cr3t"

// noSecret fails if any way of printing v shows the secret.
func noSecret(t testing.TB, v any) {
	t.Helper()
	var text, js bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("x", "v", v)
	slog.New(slog.NewJSONHandler(&js, nil)).Info("x", "v", v, "in", []any{v})
	raw, _ := json.Marshal(v)
	for _, s := range append(sprints(v), text.String(), js.String(), string(raw)) {
		if strings.Contains(s, secret) {
			t.Errorf("the secret is shown: %s", s)
		}
	}
}

func sprints(v any) (all []string) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		all = append(all, fmt.Sprintf(verb, v), fmt.Sprintf(verb, []any{v}))
	}
	return append(all, fmt.Sprintf("%v %s", struct{ C any }{v}, struct{ C any }{v}))
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadConfigErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.json")
	dir := t.TempDir()
	file := writeFile(t, "c.json", `{"type": "fake", "backend": {"password": 1, "x": "`+secret+`"}}`)
	empty := writeFile(t, "empty.json", "\n")
	marked := writeFile(t, "marked.json", "\ufeff{}")
	wide := writeFile(t, "wide.json", "\xff\xfe{\x00}\x00")
	bare := writeFile(t, "password", `"`+secret+`"`)
	t.Setenv("LOCKSTEP_TEST", secret)
	t.Setenv("LOCKSTEP_TEST_URL", "fake://u:"+secret+"@h:x/")
	t.Setenv("LOCKSTEP_TEST_EMPTY", " ")
	t.Setenv("LOCKSTEP_TEST_PATH", "a/b."+secret)
	t.Setenv("LOCKSTEP_TEST_AGAIN", "env:HOME")
	for name, c := range map[string]struct {
		source string
		says   string
	}{
		"empty":              {" ", "source: it is empty"},
		"too long":           {"{" + strings.Repeat("x", 1<<20), "at most 1048576"},
		"unknown field":      {`{"typ": "fake"}`, "JSON text, line 1, column 2: typ: unknown field (known: type, namespace, ttl, retry, driftFactor, openWait, identity, backend)"},
		"no name":            {`{"": 1}`, "unknown field"},
		"hidden field":       {`{"-": 1}`, "unknown field"},
		"Go name":            {`{"Logger": {}}`, "unknown field"},
		"unexported":         {`{"layers": []}`, "unknown field"},
		"other case":         {`{"Type": "fake"}`, "unknown field"},
		"in retry":           {`{"retry": {"tries": 1}}`, "retry.tries: unknown field (known: attempts, delay, jitter)"},
		"in backend":         {`{"type": "fake", "backend": {"pasword": "` + secret + `"}}`, "backend.pasword: unknown field (known: addr, password,"},
		"no name in backend": {`{"type": "fake", "backend": {"": 1}}`, "unknown field"},
		"number for string":  {`{"type": 1}`, `type: want a string, got 1`},
		"string for number":  {`{"driftFactor": "1"}`, `driftFactor: want a number, got "1"`},
		"object for number":  {`{"driftFactor": {"password": "` + secret + `"}}`, `driftFactor: want a number, got an object`},
		"list for number":    {`{"type": "fake", "backend": {"size": ["` + secret + `"]}}`, `size: want a number, got a list`},
		"number for ttl":     {`{"ttl": 30}`, `ttl: want a duration with a unit, such as "1.5s" or "250ms", got 30`},
		"ttl without a unit": {`{"ttl": "30"}`, `ttl: want a duration with a unit`},
		"ttl negative":       {`{"ttl": "-1s"}`, `JSON text, line 1, column 9: ttl: -1s is not between 0s and 876000h`},
		"float attempts":     {`{"retry": {"attempts": 1.5}}`, "retry.attempts: want a whole number, got \"1.5\""},
		"attempts":           {`{"retry": {"attempts": -2}}`, "line 1, column 24: retry.attempts: -2 is below -1"},
		"jitter":             {`{"retry": {"jitter": "1s"}}`, "retry.jitter: 1s is larger than retry.delay, 100ms"},
		"string for retry":   {`{"retry": "` + secret + `"}`, "retry: want an object"},
		"list for all":       {bare, "want an object: {…}"},
		"URL for backend":    {`{"type": "fake", "backend": "fake://u:` + secret + `@h"}`, "backend: want an object"},
		"null":               {`{"ttl": null}`, "ttl: null is not allowed"},
		"null backend":       {`{"type": "fake", "backend": null}`, "backend: want an object"},
		"overflow":           {`{"type": "fake", "backend": {"size": 128}}`, "backend.size: want a whole number"},
		"negative uint":      {`{"type": "fake", "backend": {"max": -1}}`, "backend.max: want a whole number that is not negative"},
		"no bool":            {`{"type": "fake", "backend": {"flag": "yes"}}`, "backend.flag: want true or false"},
		"in a list":          {`{"type": "fake", "backend": {"names": ["a", 1]}}`, "backend.names[1]: want a string"},
		"no list":            {`{"type": "fake", "backend": {"names": "a"}}`, "backend.names: want a list"},
		"any":                {`{"type": "fake", "backend": {"any": 1}}`, "cannot be configured"},
		"func":               {`{"type": "fake", "backend": {"Dial": 1}}`, "unknown field"},
		"secret type":        {`{"type": "fake", "backend": {"password": ["` + secret + `"]}}`, "backend.password: want a string"},
		"secret number":      {`{"type": "fake", "backend": {"pin": "` + secret + `"}}`, "backend.pin: want a number"},
		"secret list":        {`{"type": "fake", "backend": {"passes": [["` + secret + `"]]}}`, "backend.passes[0]: want a string"},
		"secret object":      {`{"type": "fake", "backend": {"auth": {"user": {"` + secret + `": 1}}}}`, "backend.auth.user: want a string"},
		"secret beneath":     {`{"type": "fake", "backend": {"auth": {"pin": "` + secret + `"}}}`, "backend.auth.pin: want a number"},
		"secret null":        {`{"type": "fake", "backend": {"password": null}}`, "null"},
		"secret in a struct": {`{"type": "fake", "backend": {"tls": {"key": {"` + secret + `":1}}}}`, "backend.tls.key: want a string"},
		"no JSON":            {`{"type": "fake", "backend": {"password": "` + secret + `}}`, "line 1, column "},
		"cut off":            {`{"type": "fake", "password": "` + secret, "this is not JSON"},
		"after the end":      {"{}\n{}", "line 2, column 1: there is something after the end"},
		"empty JSON":         {empty, "line 1, column 1: it is empty; want a JSON object"},
		"byte order mark":    {marked, "line 1, column 1: it begins with a byte order mark"},
		"UTF-16":             {wide, "line 1, column 1: this is not UTF-8"},
		"Latin-1":            {"{\"type\": \"fake\",\n\"backend\": {\"password\": \"" + secret + "\xe4\"}}", "line 2, column 40: this is not UTF-8"},
		"second line":        {"{\n  x}", "line 2, column 3: this is not JSON"},
		"unknown type":       {`{"type": "reddis"}`, `type: "reddis" (registered: down, fake, `},
		"URL for type":       {`{"type": "fake://u:` + secret + `@h"}`, "type: it is not the name of a type"},
		"wrong scheme":       {"reddis://u:" + secret + "@h", `no backend has the URL scheme "reddis" (registered: `},
		"twice":              {"twice://", "registered by two packages"},

		"missing file":       {missing, "missing.json"},
		"directory":          {dir, "is a directory"},
		"file":               {file, "password: want a string"},
		"file URL":           {"file://" + file, "password: want a string"},
		"file URL with host": {"file://c.json", "file:///path"},
		"a password alone":   {secret, "neither JSON text"},
		"no path":            {"fake:u:" + secret, "neither JSON text"},
		"no path either":     {"fake//u:" + secret + "@h", "neither JSON text"},
		"NUL":                {"./a\x00" + secret, "neither JSON text"},
		"a very long path":   {strings.Repeat("./", 3000), "neither JSON text"},
		"a list":             {`["` + secret + `"]`, "neither JSON text"},

		"variable":                             {"env:LOCKSTEP_TEST", "env:LOCKSTEP_TEST: source: it is neither"},
		"variable with a password like a path": {"env:LOCKSTEP_TEST_PATH", "env:LOCKSTEP_TEST_PATH: source: it is neither"},
		"variable with URL":                    {"env:LOCKSTEP_TEST_URL", "env:LOCKSTEP_TEST_URL: URL fake://…: it is malformed"},
		"unset":                                {"env:LOCKSTEP_TEST_UNSET", "env:LOCKSTEP_TEST_UNSET: the variable is not set or empty"},
		"blank":                                {"env:LOCKSTEP_TEST_EMPTY", "not set or empty"},
		"again":                                {"env:LOCKSTEP_TEST_AGAIN", "env:NAME again"},
		"no variable":                          {"env:fake://u:" + secret + "@h", "not the name of a variable"},

		"malformed port":   {"fake://u:" + secret + "@h:port/", "it is malformed"},
		"malformed escape": {"fake://u:" + secret + "%zz@h", "it is malformed"},
		"slash":            {"fake://u:1/" + secret + "@h", "it is malformed"},
		"question mark":    {"fake://u:1?" + secret + "@h", "it is malformed"},
		"number sign":      {"fake://u:1#" + secret + "@h", "it is malformed"},
		"control":          {"fake://u:" + secret + "\n@h", "it is malformed"},
		"one slash":        {"fake:/u:" + secret + "@h", "it is malformed"},
		"query":            {"fake://h?addr=%zz" + secret, "the query is malformed"},
		"query field":      {"fake://u:" + secret + "@h?sise=1", "sise: unknown field (known: addr, password, pin,"},
		"query no name":    {"fake://h?=1", "unknown field"},
		"query core":       {"fake://h?ttl=30", "ttl: want a duration"},
		"query deep":       {"fake://h?retry.x=1", "retry.x: unknown field"},
		"query deeper":     {"fake://h?addr.x=1", "addr.x: unknown field"},
		"query struct":     {"fake://h?tls=yes", "tls: give its fields: tls.caFile, tls.key"},
		"query retry":      {"fake://h?retry=1", "retry: give its fields: retry.attempts, retry.delay, retry.jitter"},
		"query type":       {"fake://h?type=redis", "type: unknown field"},
		"query secret":     {"fake://h?pin=" + secret, "pin: want a whole number, got a value that is not shown"},
		"query twice":      {"fake://h?password=a&password=" + secret, "password: it is given 2 times"},
		"query and host":   {"fake://h?addr=h", "addr: it is given twice, before the ? and after it"},
		"query and user":   {"fake://u:" + secret + "@h?password=" + secret, "password: it is given twice, before the ? and after it"},
		"no URL backend":   {"nothing://u:" + secret + "@h", "takes no user, host or path"},
	} {
		t.Run(name, func(t *testing.T) {
			base := locker.Config{Type: "fake", Backend: fakeConfig{Password: driver.NewSecret(secret)}}
			got, err := base.Load(c.source)
			if err == nil {
				t.Fatalf("it loads: %v", got)
			}
			var e *locker.Error
			if !errors.As(err, &e) || e.Op != "load" || e.Code != locker.CodeInvalidConfig && e.Code != locker.CodeUnknownBackend {
				t.Errorf("%#v", err)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			noSecret(t, err)
			noSecret(t, got)
		})
	}
	if _, err := locker.LoadConfig(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestLoadConfig(t *testing.T) {
	const text = `{"type": "fake", "namespace": "shop", "ttl": "30s", "retry": {"attempts": 3}, "driftFactor": 0.02,
		"backend": {"addr": "h:1", "password": "` + secret + `", "pin": 7, "passes": ["` + secret + `"], "auth": {"user": "` + secret + `"},
		"tls": {"key": "` + secret + `"}, "size": -0, "max": 3, "rate": 0.5, "flag": true, "maybe": false, "wait": "1m", "names": ["a", "b"]}}`
	no := false
	want := fakeConfig{
		Addr: "h:1", Password: driver.NewSecret(secret), PIN: 7, Pass: []string{secret}, Auth: &fakeAuth{User: secret}, TLS: &fakeTLS{Key: driver.NewSecret(secret)},
		Max: 3, Rate: 0.5, Flag: true, Maybe: &no, Wait: time.Minute, Names: []string{"a", "b"},
	}
	t.Setenv("LOCKSTEP_TEST", text)
	query := "fake://u:" + secret + "@h:1?namespace=shop&ttl=30s&retry.attempts=3&driftFactor=0.02&pin=7&passes=" + secret +
		"&auth.user=" + secret + "&tls.key=" + secret + "&max=3&rate=0.5&flag=true&maybe=false&wait=1m&names=a&names=b"
	path := writeFile(t, "c.json", "\n"+text+"\n")
	for name, source := range map[string]string{
		"JSON": text, "file": path, "file URL": "file://" + path, "env": "env:LOCKSTEP_TEST", "URL": query,
		"scheme": strings.Replace(query, "fake:", "FAKES:", 1), "alias": strings.Replace(text, `"fake"`, `"Fake"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := locker.LoadConfig(source)
			if err != nil {
				t.Fatal(err)
			}
			noSecret(t, c)
			noSecret(t, &c)
			if c.Namespace != "shop" || c.TTL != 30*time.Second || c.DriftFactor != 0.02 ||
				c.Retry != (locker.Retry{Attempts: 3}) {
				t.Errorf("got %v", c)
			}
			for range 2 { // opening changes nothing in it
				l, err := locker.Open(context.Background(), c)
				if err != nil {
					t.Fatal(err)
				}
				if got := opened.Load(); !reflect.DeepEqual(*got, want) {
					t.Errorf("the backend got\n%+v, want\n%+v", *got, want)
				}
				if err := l.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// Later sources win field by field, and what the program gave stays as it is.
func TestLoadMerges(t *testing.T) {
	retry := locker.Retry{Attempts: 9, Delay: time.Second}
	tls := fakeTLS{CAFile: "ca", Key: driver.NewSecret("own")}
	program := locker.Config{Type: "fake", TTL: time.Second, Retry: retry, Backend: &fakeConfig{Addr: "a", Size: 1, TLS: &tls, Names: []string{"x"}}}
	c := program
	var err error
	for _, source := range []string{
		`{"retry": {"attempts": 1}, "backend": {"size": 2, "tls": {"key": "b"}}}`,
		"fake://h2?max=4&retry.delay=2s",
		`{"ttl": "3s", "backend": {"names": ["y"]}}`,
	} {
		if c, err = c.Load(source); err != nil {
			t.Fatal(err)
		}
	}
	l, err := locker.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	want := fakeConfig{Addr: "h2", Size: 2, Max: 4, TLS: &fakeTLS{CAFile: "ca", Key: driver.NewSecret("b")}, Names: []string{"y"}}
	if got := *opened.Load(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if c.TTL != 3*time.Second || c.Retry != (locker.Retry{Attempts: 1, Delay: 2 * time.Second}) {
		t.Errorf("got %v", c)
	}
	if retry.Attempts != 9 || retry.Delay != time.Second || tls.Key != driver.NewSecret("own") || program.TTL != time.Second {
		t.Error("the program's own values have changed")
	}

	// Two from one do not disturb each other.
	one, err1 := c.Load(`{"backend": {"size": 11}}`)
	_, err2 := c.Load(`{"backend": {"size": 22}}`)
	if l, err = locker.Open(context.Background(), one); err != nil || err1 != nil || err2 != nil {
		t.Fatal(err, err1, err2)
	}
	defer l.Close(context.Background())
	if got := opened.Load(); got.Size != 11 {
		t.Errorf("size %d", got.Size)
	}

	// Another type drops the backend of this one; an alias does not.
	if c, err = c.Load(`{"type": "nothing"}`); err != nil || c.Backend != nil {
		t.Errorf("%v, %v", c.Backend, err)
	}
	if c, err = program.Load(`{"type": "Fake"}`); err != nil || c.Backend == nil {
		t.Errorf("%v, %v", c.Backend, err)
	}
	// The program gives the backend and leaves the type to the source.
	c = locker.Config{Backend: fakeConfig{Addr: "mine"}}
	if c, err = c.Load(`{"type": "fake", "backend": {"size": 5}}`); err != nil {
		t.Fatal(err)
	}
	if l, err = locker.Open(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	if got := opened.Load(); got.Addr != "mine" || got.Size != 5 {
		t.Errorf("%+v", got)
	}
}

func TestOpenErrors(t *testing.T) {
	bg := context.Background()
	cancelled, cancel := context.WithCancelCause(bg)
	cancel(errBoom)
	for name, c := range map[string]struct {
		ctx  context.Context
		cfg  locker.Config
		code locker.Code
		says string
	}{
		"no type":       {bg, locker.Config{}, locker.CodeUnknownBackend, "type: it is empty (registered: "},
		"unknown":       {bg, locker.Config{Type: "inMemori"}, locker.CodeUnknownBackend, "(registered: down, fake, "},
		"URL as type":   {bg, locker.Config{Type: "fake://u:" + secret + "@h"}, locker.CodeUnknownBackend, "not shown"},
		"twice":         {bg, locker.Config{Type: "twice"}, locker.CodeInvalidConfig, "registered by two packages"},
		"no struct":     {bg, locker.Config{Type: "nostruct", Backend: 1}, locker.CodeInvalidConfig, "no struct, but a int"},
		"no open":       {bg, locker.Config{Type: "noopen"}, locker.CodeInvalidConfig, "without a function"},
		"nil backend":   {bg, locker.Config{Type: "nothing"}, locker.CodeInvalidArgument, "backend is nil"},
		"nil pointer":   {bg, locker.Config{Type: "nilpointer"}, locker.CodeInvalidArgument, "backend is nil"},
		"down":          {bg, locker.Config{Type: "down"}, locker.CodeUnavailable, "boom"},
		"nil ctx":       {nil, locker.Config{Type: "fake"}, locker.CodeInvalidArgument, "ctx is nil"},
		"ended ctx":     {cancelled, locker.Config{Type: "fake"}, locker.CodeCanceled, "boom"},
		"other backend": {bg, locker.Config{Type: "fake", Backend: fakeTLS{Key: driver.NewSecret(secret)}}, locker.CodeInvalidConfig, "takes a locker_test.fakeConfig, not a locker_test.fakeTLS"},
		"string":        {bg, locker.Config{Type: "fake", Backend: "fake://u:" + secret + "@h"}, locker.CodeInvalidConfig, "not a string"},
		"pointer":       {bg, locker.Config{Type: "fake", Backend: new(*fakeConfig)}, locker.CodeInvalidConfig, "not a **"},
		"other pointer": {bg, locker.Config{Type: "fake", Backend: (*fakeTLS)(nil)}, locker.CodeInvalidConfig, "not a *locker_test.fakeTLS"},
		"settings":      {bg, locker.Config{Type: "fake", Namespace: "a:b"}, locker.CodeInvalidConfig, "namespace"},
		"refused":       {bg, locker.Config{Type: "fake", Backend: fakeConfig{Size: -1, Password: driver.NewSecret(secret)}}, locker.CodeInvalidConfig, "size: -1 is negative"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := locker.Open(c.ctx, c.cfg)
			wantError(t, err, c.code)
			if l != nil || err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, %q, want an error that says %q", l, err, c.says)
			}
			noSecret(t, err)
			noSecret(t, c.cfg)
		})
	}
	l, err := locker.Open(bg, locker.Config{Type: "fake", Backend: (*fakeConfig)(nil)})
	if err != nil {
		t.Errorf("a nil *Config is the defaults: %v", err)
	}
	l.Close(bg)
	if names := locker.Backends(); !slices.Contains(names, "fake") || slices.Contains(names, "Fake") {
		t.Errorf("Backends: %v", names)
	}
}

// loop refers to itself.
type loop struct {
	Next *loop `json:"next"`
	All  []any `json:"all"`
}

type ownPointer *ownPointer

// A Config can be printed and logged: it says what is set, and no secret.
func TestConfigPrints(t *testing.T) {
	c := locker.Config{Type: "fake", TTL: time.Second, Retry: locker.Retry{Attempts: -1}, Backend: &fakeConfig{
		Addr: "h", Password: driver.NewSecret(secret), PIN: 1, Pass: []string{secret}, Auth: &fakeAuth{User: secret}, TLS: &fakeTLS{Key: driver.NewSecret(secret), CAFile: "ca"},
		Names: []string{"redis://u:" + secret + "@h", "b"}, Any: map[string]string{"password": secret}, Dial: func() {}, private: 1,
	}}
	c, err := c.Load("fake://u:" + secret + "@h2?size=4")
	if err != nil {
		t.Fatal(err)
	}
	noSecret(t, c)
	noSecret(t, map[string]any{"config": c})
	noSecret(t, []*locker.Config{&c})
	const want = `{"type":"fake","ttl":"1s","retry":{"attempts":-1},"backend":{"addr":"h2","password":"(hidden)","pin":"(hidden)",` +
		`"passes":"(hidden)","auth":"(hidden)","tls":{"caFile":"ca","key":"(hidden)"},"size":4,"names":["(hidden)","b"],"any":"map[string]string"}}`
	if got := c.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c)
	if !strings.Contains(log.String(), `"config":`+want) {
		t.Errorf("logged as %s", &log)
	}

	l := &loop{}
	l.Next, l.All = l, []any{1, nil, l}
	var noTLS *fakeTLS
	var own ownPointer
	own = &own
	type pair struct{ A, B any }
	for _, backend := range []any{
		secret, 1, []string{secret}, map[string]string{"a": secret}, func() {}, make(chan int), noTLS, &noTLS, l, pair{secret, secret},
		&struct {
			A any `json:"a"`
		}{secret}, struct {
			A ownPointer `json:"a"`
		}{own}, struct {
			A []byte     `json:"a"`
			B complex128 `json:"b"`
			C [2]float64 `json:"c"`
			D error      `json:"d"`
		}{[]byte(secret), 1, [2]float64{1}, errors.New(secret)},
	} {
		c := locker.Config{Type: "unknown", Backend: backend}
		noSecret(t, c)
		if raw, err := json.Marshal(c); err != nil || !json.Valid(raw) {
			t.Errorf("%T: %s, %v", backend, raw, err)
		}
	}
	if got := fmt.Sprint(locker.Config{}); got != "{}" {
		t.Errorf("the zero Config is %s", got)
	}
}
