package locker_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// The programs of a hostile configuration: what is refused, and what an error does not show.
func TestLoaderTruth(t *testing.T) {
	t.Setenv("LOCKSTEP_TEST_ADDRESS", "localhost:46379")
	for _, c := range []struct{ source, says string }{
		{"localhost:46379", "fake://localhost:46379"},
		{"[::1]:46379", "fake://[::1]:46379"},
		{"env:LOCKSTEP_TEST_ADDRESS", "fake://host:port"},
		{`{"namespace": "shop\n"}`, "namespace: it ends in a newline"},
		{`{"namespace": "sh\u0000op"}`, `namespace: it holds a control character, '\x00'`},
		{"fake://?namespace=shop%0A", "namespace: it ends in a newline"},
		{"fake://?tls=false&tls.caFile=x", "tls: it is false, but tls.caFile is given"},
		{"zero://h/0?db=1", "db: it is given twice, before the ? and after it"},
		{"zero://h/1?db=0", "db: it is given twice, before the ? and after it"},
		{"fake://?password=" + secret[:4] + "&" + secret[4:], "a field in the query (not shown: it may be part of a secret): unknown field"},
		{"fake://?password=a&" + secret + "=b", "a field in the query (not shown"},
		{`{"ttl": "redis://:` + secret + `@h"}`, "ttl: want a duration"},
		{`{"redis://:` + secret + `@h": 1}`, "a name that is not shown (it may hold a secret): unknown field"},
		{`{"type": "fake", "backend": {"names": "fake://:` + secret + `@h"}}`, "backend.names: want a list, got a value that is not shown"},
		{`{"type": "fake", "backend": {"size": "` + secret + `://"}}`, "backend.size: want a number, got a value that is not shown"},
		{`{"namespace": "` + secret + `:@"}`, "namespace: a value that is not shown (it may hold a secret) holds a colon"},
	} {
		_, err := locker.LoadConfig(c.source)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v\ndoes not say %s", c.source, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), secret[4:]) {
			t.Errorf("%s: the secret is shown: %v", c.source, err)
		}
	}
	_, err := newLocker(t, &fake{}, locker.Config{}).TryLockNS(context.Background(), "k", locker.WithNamespace("a\n"))
	wantError(t, err, locker.CodeInvalidKey, locker.ErrInvalidKey)
}

// zeroConfig takes a number from the path of a URL, whose zero counts as given.
type zeroConfig struct {
	Host     string        `json:"host" lockstep:"connection"`
	Password driver.Secret `json:"password" lockstep:"connection"`
	DB       int           `json:"db" lockstep:"connection"`
	TLS      *fakeTLS      `json:"tls" lockstep:"connection"`
	Wait     time.Duration `json:"wait"`
}

func (c *zeroConfig) UnmarshalURL(u *url.URL) error {
	if u.Host != "" {
		c.Host = u.Hostname()
	}
	if u.User != nil {
		password, _ := u.User.Password()
		c.Password = driver.NewSecret(password)
	}
	if u.Scheme == "zeros" {
		c.TLS = &fakeTLS{}
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		n, err := strconv.Atoi(db)
		if err != nil {
			return errors.New("db: no number")
		}
		c.DB = n
	}
	return nil
}

func (c *zeroConfig) SetDefaults() {
	if c.Host == "" {
		c.Host = "localhost"
	}
}

func (c zeroConfig) Validate() error {
	if c.Host == "" {
		return driver.Invalid("host", "it is empty")
	}
	return nil
}

func (c *zeroConfig) LoadEnv(env *driver.Env) {
	env.Set("LOCKSTEP_ZERO_HOST", "host", &c.Host)
	env.Set("LOCKSTEP_ZERO_PASSWORD", "password", &c.Password)
	driver.Object(env, "LOCKSTEP_ZERO_TLS", "tls", []string{"LOCKSTEP_ZERO_TLS_CA_FILE", "LOCKSTEP_ZERO_TLS_KEY"}, &c.TLS, nil, func(own *fakeTLS) {
		env.Set("LOCKSTEP_ZERO_TLS_CA_FILE", "tls.caFile", &own.CAFile)
		env.Set("LOCKSTEP_ZERO_TLS_INSECURE", "tls.insecure", &own.Insecure)
	})
}

var zeroed atomic.Pointer[zeroConfig]

func init() {
	driver.Register("zero", func(_ context.Context, c zeroConfig) (driver.Backend, error) {
		zeroed.Store(&c)
		return &fake{}, nil
	}, driver.Names{Schemes: []string{"zeros"}})
}

// A URL is the whole connection, a zero makes no object, and a source can switch one off.
func TestConnection(t *testing.T) {
	const ca, pw = "ca.pem", "of-the-code"
	code := zeroConfig{Host: "code", Password: driver.NewSecret(pw), DB: 3, TLS: &fakeTLS{CAFile: ca}, Wait: time.Second}
	for _, c := range []struct {
		name, source string
		env          map[string]string
		code         any
		want         zeroConfig
	}{
		{"nothing", "{}", nil, code, code},
		{"another host", "zero://h", nil, code, zeroConfig{Host: "h", Wait: time.Second}},
		{"no host", "zero:///?wait=2s", nil, code, zeroConfig{Host: "localhost", Wait: 2 * time.Second}},
		{"with password", "zero://:pw@h/7", nil, code, zeroConfig{Host: "h", Password: driver.NewSecret("pw"), DB: 7, Wait: time.Second}},
		{"TLS of its own", "zeros://h?tls.caFile=b", nil, code, zeroConfig{Host: "h", TLS: &fakeTLS{CAFile: "b"}, Wait: time.Second}},
		{"and the environment", "zero://h", map[string]string{"LOCKSTEP_ZERO_PASSWORD": "env"}, code, zeroConfig{Host: "h", Password: driver.NewSecret("env"), Wait: time.Second}},
		{"JSON switches TLS off", `{"backend": {"tls": false}}`, nil, code, zeroConfig{Host: "code", Password: code.Password, DB: 3, Wait: time.Second}},
		{"the environment does", "{}", map[string]string{"LOCKSTEP_ZERO_TLS": "false"}, code, zeroConfig{Host: "code", Password: code.Password, DB: 3, Wait: time.Second}},
		{"JSON keeps it", `{"backend": {"tls": true}}`, nil, code, code},
		{"JSON switches it on", `{"backend": {"tls": true}}`, nil, nil, zeroConfig{Host: "localhost", TLS: &fakeTLS{}}},
		{"or as an object", `{"backend": {"tls": {}}}`, nil, nil, zeroConfig{Host: "localhost", TLS: &fakeTLS{}}},
		{"the URL does", "zero://h?tls=true", nil, nil, zeroConfig{Host: "h", TLS: &fakeTLS{}}},
		{"the environment switches it on", "{}", map[string]string{"LOCKSTEP_ZERO_TLS": "true"}, nil, zeroConfig{Host: "localhost", TLS: &fakeTLS{}}},
		{"a zero in the URL does not", "zero://h?tls.insecure=false", nil, nil, zeroConfig{Host: "h"}},
		{"nor an empty one", "zero://h?tls.caFile=", nil, nil, zeroConfig{Host: "h"}},
		{"nor a variable", "{}", map[string]string{"LOCKSTEP_ZERO_TLS_INSECURE": "false"}, nil, zeroConfig{Host: "localhost"}},
		{"a variable with a value does", "{}", map[string]string{"LOCKSTEP_ZERO_TLS_CA_FILE": "x"}, nil, zeroConfig{Host: "localhost", TLS: &fakeTLS{CAFile: "x"}}},
		{"a zero is laid over what is there", "{}", map[string]string{"LOCKSTEP_ZERO_TLS_INSECURE": "false"}, zeroConfig{TLS: &fakeTLS{CAFile: ca, Insecure: true}}, zeroConfig{Host: "localhost", TLS: &fakeTLS{CAFile: ca}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			cfg, err := locker.Config{Type: "zero", Backend: c.code}.Load(c.source)
			if err != nil {
				t.Fatal(err)
			}
			l, err := locker.Open(context.Background(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close(context.Background())
			if got := *zeroed.Load(); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %+v, want %+v, %+v", got, got.TLS, c.want, c.want.TLS)
			}
			if code.TLS.CAFile != ca || code.TLS.Insecure {
				t.Error("the program's own values have changed")
			}
		})
	}
	for variable, says := range map[string]string{"LOCKSTEP_ZERO_TLS_CA_FILE": "LOCKSTEP_ZERO_TLS: tls: it is false, but LOCKSTEP_ZERO_TLS_CA_FILE is set"} {
		t.Setenv("LOCKSTEP_ZERO_TLS", "false")
		t.Setenv(variable, "x")
		if _, err := locker.LoadConfig("zero://"); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %s", err, says)
		}
	}
}

// texts are all the ways by which a value leaves a process, here in other values too.
func texts(v any) (all []string) {
	type exported struct {
		V  any
		In map[string]any
	}
	type unexported struct {
		v any
		p *exported
		s []any
	}
	for _, v := range []any{v, &v, []any{v}, map[string]any{"k": v}, exported{v, map[string]any{"k": v}}, unexported{v: v}, unexported{s: []any{v}, p: &exported{V: v}}, struct{ u unexported }{unexported{v: v}}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			all = append(all, fmt.Sprintf(verb, v))
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		raw, _ := json.Marshal(v)
		all = append(all, log.String(), string(raw))
	}
	var sent bytes.Buffer
	err := gob.NewEncoder(&sent).Encode(v)
	return append(all, sent.String(), fmt.Sprint(err))
}

// looksLike says whether text shows value: as it is, or as the bytes that a verb makes of it.
func looksLike(text, value string) bool {
	for _, s := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value), fmt.Sprint([]byte(value))[1:]} {
		if strings.Contains(text, strings.TrimSuffix(s, "]")) {
			return true
		}
	}
	return false
}

func TestSecret(t *testing.T) {
	c := zeroConfig{Host: "h", Password: locker.Secret(secret)}
	cfg := locker.Config{Type: "zero", Backend: c}
	loaded, err := cfg.Load("zero://:" + secret + "@h")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{c, &c, cfg, &cfg, loaded, c.Password, &c.Password, []driver.Secret{c.Password}} {
		for _, text := range texts(v) {
			if looksLike(text, secret) {
				t.Errorf("%T: the secret is shown: %s", v, text)
			}
		}
	}
	if c.Password.Reveal() != secret || c.Password != locker.Secret(string([]byte(secret))) || c.Password == locker.Secret("x") || locker.Secret("") != (driver.Secret{}) || (driver.Secret{}).Reveal() != "" {
		t.Error("the secret is not what it was made of")
	}
	if fmt.Sprint(c.Password, driver.Secret{}) != "(hidden) " {
		t.Errorf("printed as %s", fmt.Sprint(c.Password, driver.Secret{}))
	}
	var back zeroConfig
	raw, _ := json.Marshal(c)
	if err := json.Unmarshal(raw, &back); err == nil {
		t.Error("a printed configuration is taken for a source")
	}
	if err := json.Unmarshal([]byte(`{"Password": "x"}`), &back); err != nil || back.Password.Reveal() != "x" {
		t.Errorf("%v, %q", err, back.Password.Reveal())
	}
	var sent bytes.Buffer
	if err := gob.NewEncoder(&sent).Encode(c); err != nil {
		t.Error(err)
	}
	if err := gob.NewDecoder(&sent).Decode(&back); err != nil || back.Password != (driver.Secret{}) || back.Host != "h" {
		t.Errorf("%v, %v", err, back)
	}
}

// FuzzSecrets: a secret in any field, by any way in, is in nothing that is printed.
func FuzzSecrets(f *testing.F) {
	f.Add("fake", "x", uint8(0))
	f.Add("zero", "h\n", uint8(3))
	f.Add("fake", "@://", uint8(7))
	f.Fuzz(func(t *testing.T, typ, around string, at uint8) {
		planted := "Zq7" + strconv.Itoa(1000003*(1+int(at))) + "qZ"
		if strings.Contains(typ+around, "Zq7") || typ != "fake" && typ != "zero" {
			t.Skip()
		}
		as := planted // a field that is no secret shows what is in it, unless it may be a URL with a password
		field := []string{"password", "pin", "passes", "tls.key", "addr", "host", "names", "size", "ttl", "namespace", "retry.delay", "openWait", "driftFactor", "type"}[int(at)%14]
		isSecret := field == "password" || field == "pin" || field == "passes" || field == "tls.key"
		if !isSecret {
			as = around + "fake://u:" + planted + "@h"
		} else if at%2 == 0 {
			as = around + planted
		}
		text, _ := json.Marshal(as)
		inner := `"` + strings.ReplaceAll(field, ".", `": {"`) + `": ` + string(text) + strings.Repeat("}", strings.Count(field, "."))
		list := `"` + field + `": [` + string(text) + `]`
		// A URL with a secret where none belongs is refused as a whole, or shown in no error.
		sources := []string{
			`{"type": "` + typ + `", "backend": {` + inner + `}}`, `{"type": "` + typ + `", "backend": {` + list + `}}`, `{"type": "` + typ + `", ` + inner + `}`,
			typ + "://h?" + url.QueryEscape(field) + "=" + url.QueryEscape(as),
			typ + "://:" + url.QueryEscape(planted) + "@h?" + around,
			typ + "://h?password=a&" + planted + "=" + url.QueryEscape(around),
			typ + "://h?password=a&" + planted,
		}
		if !strings.Contains(as, "\x00") {
			name := "LOCKSTEP_" + map[bool]string{true: "", false: "ZERO_"}[field == "ttl" || field == "namespace" || field == "type"] + strings.ToUpper(field)
			os.Setenv(name, as)
			defer os.Unsetenv(name)
			sources = append(sources, `{"type": "zero"}`)
		}
		for _, source := range sources {
			c, err := locker.LoadConfig(source)
			printed := fmt.Sprint(err)
			if err == nil {
				l, err := locker.Open(context.Background(), c)
				printed += fmt.Sprint(err)
				_ = l.Close(context.Background())
				all := texts(c)
				if isSecret {
					all = append(append(all, texts(*zeroedOr())...), texts(*openedOr())...)
				}
				printed += strings.Join(all, "\n")
			}
			if looksLike(printed, planted) {
				t.Fatalf("%s: the secret is shown: %s", source, printed)
			}
		}
	})
}

func zeroedOr() *zeroConfig {
	if c := zeroed.Load(); c != nil {
		return c
	}
	return &zeroConfig{}
}

func openedOr() *fakeSecrets {
	c := opened.Load()
	if c == nil {
		return &fakeSecrets{}
	}
	return &fakeSecrets{c.Password, c.TLS}
}

// fakeSecrets are the secrets of a fakeConfig that are of type driver.Secret: of others, only
// locker.Config knows by their tag.
type fakeSecrets struct {
	Password driver.Secret
	tls      *fakeTLS
}
