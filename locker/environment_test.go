package locker_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// No test is to see what the shell that runs it has in its environment.
func init() {
	for _, s := range os.Environ() {
		if name, _, _ := strings.Cut(s, "="); strings.HasPrefix(name, "LOCKSTEP_") && !strings.Contains(name, "MUTANT") {
			os.Unsetenv(name)
		}
	}
}

// ruledConfig is a configuration as lockgen would make it.
type ruledConfig struct {
	Host     string        `json:"host"`
	Names    []string      `json:"names"`
	Wait     time.Duration `json:"wait"`
	Password driver.Secret `json:"password"`
	Most     int           `json:"most"`
}

func (c *ruledConfig) SetDefaults() {
	if c.Wait == 0 {
		c.Wait = time.Second
	}
}

func (c ruledConfig) Validate() error {
	switch {
	case c.Wait < time.Millisecond:
		return driver.Invalid("wait", "%v is below 1ms", c.Wait)
	case c.Most > 9:
		return driver.Invalid("most", "%v is above 9", c.Most)
	}
	for i, name := range c.Names {
		if name == "" {
			return driver.Invalid("names["+string(rune('0'+i))+"]", "it is empty")
		}
	}
	if c.Password != (driver.Secret{}) && c.Host == "" {
		return (&driver.FieldError{Field: "host", Problem: "it is empty, but password is given"}).With("password")
	}
	return nil
}

func (c *ruledConfig) LoadEnv(env *driver.Env) {
	env.Set("LOCKSTEP_RULED_HOST", "host", &c.Host)
	env.Set("LOCKSTEP_RULED_NAMES", "names", &c.Names)
	env.Set("LOCKSTEP_RULED_WAIT", "wait", &c.Wait)
	env.Set("LOCKSTEP_RULED_PASSWORD", "password", &c.Password)
	env.Set("LOCKSTEP_RULED_MOST", "most", &c.Most)
}

func (c *ruledConfig) UnmarshalURL(u *url.URL) error {
	c.Host = u.Hostname()
	if u.Port() != "" {
		c.Most = len(u.Port()) * 5
	}
	return nil
}

var ruled atomic.Pointer[ruledConfig]

func init() {
	driver.Register("ruled", func(_ context.Context, c ruledConfig) (driver.Backend, error) {
		ruled.Store(&c)
		return &fake{}, nil
	})
}

func openRuled(t *testing.T, c locker.Config) ruledConfig {
	t.Helper()
	l, err := locker.Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(context.Background()); err != nil {
		t.Error(err)
	}
	return *ruled.Load()
}

// Defaults < code < source < later source < environment, field by field, for the core and
// the backend alike.
func TestPrecedence(t *testing.T) {
	code := locker.Config{Type: "ruled", Namespace: "code", TTL: time.Minute, DriftFactor: 0.1,
		Retry: locker.Retry{Attempts: 1}, Backend: ruledConfig{Host: "code", Most: 1, Names: []string{"code"}}}
	t.Setenv("LOCKSTEP_NAMESPACE", "env")
	t.Setenv("LOCKSTEP_RETRY_DELAY", "3s")
	t.Setenv("LOCKSTEP_RULED_HOST", "env")
	t.Setenv("LOCKSTEP_RULED_WAIT", "") // counts as not set

	c := code
	var err error
	for _, source := range []string{
		`{"namespace": "source", "ttl": "2m", "retry": {"attempts": 2, "delay": "2s"}, "backend": {"host": "source", "most": 2}}`,
		"ruled://?ttl=3m&most=3",
	} {
		if c, err = c.Load(source); err != nil {
			t.Fatal(err)
		}
	}
	if c.Namespace != "env" || c.TTL != 3*time.Minute || c.DriftFactor != 0.1 || c.Retry != (locker.Retry{Attempts: 2, Delay: 3 * time.Second}) {
		t.Errorf("the core: %v", c)
	}
	want := ruledConfig{Host: "env", Most: 3, Names: []string{"code"}, Wait: time.Second}
	if got := openRuled(t, c); got.Host != want.Host || got.Most != want.Most || got.Names[0] != "code" || got.Wait != want.Wait {
		t.Errorf("the backend: %+v, want %+v", got, want)
	}
	if code.Retry.Delay != 0 || code.Namespace != "code" {
		t.Error("the program's own values have changed")
	}

	// What Load has found stays as it is.
	t.Setenv("LOCKSTEP_RULED_HOST", "later")
	if got := openRuled(t, c); got.Host != "env" {
		t.Errorf("opened with %+v", got)
	}
	if s := c.String(); !strings.Contains(s, `"host":"env"`) || strings.Contains(s, "wait") {
		t.Errorf("printed as %s, want what was said, without defaults", s)
	}

	// A type that the program chooses after Load gets its variables, too.
	if c, err = locker.LoadConfig("{}"); err != nil {
		t.Fatal(err)
	}
	c.Type = "ruled"
	if got := openRuled(t, c); got.Host != "later" {
		t.Errorf("opened with %+v", got)
	}

	// Code alone does not look.
	if got := openRuled(t, code); got.Host != "code" {
		t.Errorf("opened with %+v", got)
	}
}

// LOCKSTEP_TYPE chooses the backend, and what was said of another one is dropped.
func TestTypeFromEnvironment(t *testing.T) {
	code := locker.Config{Type: "fake", Backend: fakeConfig{Addr: "code"}}
	t.Setenv("LOCKSTEP_TYPE", "ruled")
	t.Setenv("LOCKSTEP_RULED_MOST", "7")
	for _, source := range []string{
		`{"type": "fake", "backend": {"addr": "source"}}`, `{"backend": {"addr": "source"}}`, "fake://source", "{}", `{"type": "unheard-of"}`,
	} {
		c, err := code.Load(source)
		if err != nil || c.Type != "ruled" {
			t.Errorf("%s: %v, %v", source, c, err)
			continue
		}
		if got := openRuled(t, c); got.Most != 7 || got.Host != "" {
			t.Errorf("%s: opened with %+v", source, got)
		}
	}
	c, err := code.Load(`{"type": "ruled", "backend": {"host": "source"}}`)
	if err != nil {
		t.Fatal(err)
	}
	if got := openRuled(t, c); got.Most != 7 || got.Host != "source" {
		t.Errorf("opened with %+v", got)
	}
}

// An error names the place of the value that is wrong, wherever it comes from; of what the
// program gave, the field.
func TestWrongValueIsLocated(t *testing.T) {
	file := writeFile(t, "lockstep.json", "{\n  \"type\": \"ruled\",\n  \"backend\": {\n    \"wait\":  \"0s\", \"most\": 3\n  }\n}\n")
	t.Setenv("LOCKSTEP_TEST", `{"type": "ruled", "backend": {"most": 10}}`)
	for _, c := range []struct {
		code         locker.Config
		source, says string
	}{
		{locker.Config{}, file, `file "` + file + `", line 4, column 14: backend.wait: 0s is below 1ms`},
		{locker.Config{}, `{"type": "ruled", "backend": {"most": 10}}`, "JSON text, line 1, column 39: backend.most: 10 is above 9"},
		{locker.Config{}, "env:LOCKSTEP_TEST", "env:LOCKSTEP_TEST: JSON text, line 1, column 39: backend.most: 10 is above 9"},
		{locker.Config{}, "ruled://h?most=10", "URL ruled://h: most: 10 is above 9"},
		{locker.Config{}, "ruled://h:6379", "URL ruled://h:6379: most: 20 is above 9"},
		{locker.Config{}, `{"type": "ruled", "backend": {"names": ["a", ""]}}`, "JSON text, line 1, column 46: backend.names[1]: it is empty"},
		{locker.Config{}, `{"type": "ruled", "backend": {"password": "` + secret + `"}}`, "line 1, column 43: backend.host: it is empty, but password is given"},
		{locker.Config{}, `{"retry": {"jitter": "1s"}}`, "line 1, column 22: retry.jitter: 1s is larger than retry.delay, 100ms"},
		{locker.Config{Retry: locker.Retry{Jitter: 90 * time.Millisecond}}, `{"retry": {"delay": "80ms"}}`, "line 1, column 21: retry.jitter: 90ms is larger than retry.delay, 80ms"},
		{locker.Config{Backend: ruledConfig{Most: 10}}, `{"type": "ruled"}`, "lockstep: load: invalid configuration: most: 10 is above 9"},
		{locker.Config{TTL: -1}, `{}`, "lockstep: load: invalid configuration: ttl: -1ns is not between 0s and 876000h"},
		{locker.Config{}, `{"type": ""}`, "line 1, column 10: type: it is empty"},
		{locker.Config{}, `{"namespace": ""}`, "line 1, column 15: namespace: it is empty; leave it out for app"},
		{locker.Config{}, "{\"ttl\": \"1s\",\n\t\"ttl\": \"1s\"}", "line 2, column 2: ttl: it is given twice"},
		{locker.Config{}, "ruled://h?x=1", "x: unknown field (known: host, names, wait, password, most, namespace, ttl, retry.attempts, retry.delay, retry.jitter, driftFactor, openWait, identity)"},
		{locker.Config{}, "fake://h?tls.x=1", "auth.user, auth.pin, tls.caFile, tls.key, tls.insecure, size"},
	} {
		got, err := c.code.Load(c.source)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v\nwant an error that says %s", c.source, got, err, c.says)
		}
		if !errors.Is(err, locker.ErrInvalidConfig) {
			t.Errorf("%s: %v is no ErrInvalidConfig", c.source, err)
		}
		noSecret(t, err)
	}
	_, err := locker.LoadConfig("ruled://h?most=10")
	var wrong *driver.FieldError
	if !errors.As(err, &wrong) || wrong.Field != "most" {
		t.Errorf("no FieldError in %v", err)
	}
}
