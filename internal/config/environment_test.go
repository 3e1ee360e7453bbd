package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// fieldVariables are the variables that LoadConfig looks at: of the core by the table of its
// fields, of the backends by asking for all of them.
func fieldVariables(t *testing.T) (names []string) {
	env := driver.Env{Lookup: func(name string) (string, bool) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		// What is in an object is asked for only if the object is there.
		return "1", strings.Contains(name, "_TLS")
	}}
	for _, c := range []driver.Config{&redis.Config{}, &postgres.Config{}, &memory.Config{}} {
		c.LoadEnv(&env)
	}
	doc, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(doc), "<!-- lockgen:locker -->")
	table, _, _ = strings.Cut(table, "<!-- /lockgen -->")
	return append(names, regexp.MustCompile("LOCKSTEP_[A-Z_]+").FindAllString(table, -1)...)
}

var inGo = regexp.MustCompile(`"(LOCKSTEP_[A-Z_]+)"`)

// Tests and tools of this repository have variables of their own. None is that of a field:
// setting it would change what the tests load.
func TestVariablesDoNotClash(t *testing.T) {
	fields := fieldVariables(t)
	if !slices.Contains(fields, "LOCKSTEP_REDIS_ADDRS") || !slices.Contains(fields, "LOCKSTEP_RETRY_DELAY") || !slices.Contains(fields, "LOCKSTEP_TYPE") {
		t.Fatalf("the variables of the fields are %v", fields)
	}
	others := map[string]string{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_gen.go"):
			return nil
		}
		switch filepath.Base(filepath.Dir(path)) {
		case "locker", "config", "readme", "lockstep": // they are about the variables of fields
			return nil
		}
		data, err := os.ReadFile(path)
		for _, m := range inGo.FindAllSubmatch(data, -1) {
			others[string(m[1])] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"LOCKSTEP_REDIS_URL", "LOCKSTEP_REDIS_SERVER", "LOCKSTEP_CONFIG", "LOCKSTEP_SOAK"} {
		if others[name] == "" {
			t.Errorf("%s was not found; is the search broken?", name)
		}
	}
	for name, path := range others {
		if slices.Contains(fields, name) {
			t.Errorf("%s: %s is the variable of a field as well", path, name)
		}
	}
}

// What Kubernetes injects for services called lockstep, lockstep-redis and lockstep-memory,
// and what this repository uses itself, changes nothing.
func TestOtherVariablesAreIgnored(t *testing.T) {
	const source = `{"type": "redis", "backend": {"addrs": ["a:1"]}}`
	want, err := locker.LoadConfig(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"LOCKSTEP", "LOCKSTEP_REDIS", "LOCKSTEP_MEMORY"} {
		for name, value := range map[string]string{
			"_SERVICE_HOST": "10.0.0.1", "_SERVICE_PORT": "6379", "_SERVICE_PORT_REDIS": "6379", "_PORT": "tcp://10.0.0.1:6379",
			"_PORT_6379_TCP": "tcp://10.0.0.1:6379", "_PORT_6379_TCP_PROTO": "tcp", "_PORT_6379_TCP_PORT": "6379", "_PORT_6379_TCP_ADDR": "10.0.0.1",
		} {
			t.Setenv(service+name, value)
		}
	}
	for _, name := range []string{"LOCKSTEP_REDIS_URL", "LOCKSTEP_CONFIG", "LOCKSTEP_REDIS_ADDR", "LOCKSTEP_TLL"} {
		t.Setenv(name, "redis://elsewhere:1")
	}
	t.Setenv("LOCKSTEP_TTL", "")
	got, err := locker.LoadConfig(source)
	if err != nil || got.String() != want.String() {
		t.Errorf("got %v, %v\nwant %v", got, err, want)
	}
}

// The error names the variable and the field, and no secret.
func TestVariableErrors(t *testing.T) {
	const secret = "hunter2-s3cr3t"
	for _, c := range []struct{ name, value, says string }{
		{"LOCKSTEP_REDIS_VALIDITY", "5h", "LOCKSTEP_REDIS_VALIDITY: validity: 5h is not between 500ms and 1h"},
		{"LOCKSTEP_REDIS_VALIDITY", "5", `LOCKSTEP_REDIS_VALIDITY: validity: want a duration with a unit, such as "1.5s" or "250ms", got "5"`},
		{"LOCKSTEP_REDIS_ADDRS", "a:1, b", `LOCKSTEP_REDIS_ADDRS: addrs[1]: "b" is not host:port`},
		{"LOCKSTEP_REDIS_TLS_CERT_FILE", "c.pem", `LOCKSTEP_REDIS_TLS_CERT_FILE: tls.keyFile: it is empty, but tls.certFile is "c.pem"`},
		{"LOCKSTEP_REDIS_SENTINEL_PASSWORD", secret, "LOCKSTEP_REDIS_SENTINEL_PASSWORD: masterSet: it is empty, but sentinelPassword is given"},
		{"LOCKSTEP_REDIS_DB", "one", `LOCKSTEP_REDIS_DB: db: want a whole number, got "one"`},
		{"LOCKSTEP_REDIS_TLS_INSECURE_SKIP_VERIFY", "maybe", `tls.insecureSkipVerify: want true or false, got "maybe"`},
		{"LOCKSTEP_RETRY_JITTER", "1m", "LOCKSTEP_RETRY_JITTER: retry.jitter: 1m is larger than retry.delay, 100ms"},
		{"LOCKSTEP_TYPE", "etcd", `LOCKSTEP_TYPE: type: "etcd" (registered: `},
		{"LOCKSTEP_TYPE", "redis://u:" + secret + "@h", "LOCKSTEP_TYPE: type: it is not the name of a type (not shown: it may hold a secret)"},
		{"LOCKSTEP_SAMPLE_TLS_KEY", "short\n", "LOCKSTEP_SAMPLE_TLS_KEY: tls.key: it ends in a newline"},
		{"LOCKSTEP_SAMPLE_TLS_KEY", secret, "LOCKSTEP_SAMPLE_TLS_KEY: tls.key: it has 14 bytes; at most 8 are allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(c.name, c.value)
			source := `{"type": "redis"}`
			if strings.HasPrefix(c.name, "LOCKSTEP_SAMPLE") {
				source = `{"type": "test-sample", "backend": {"hosts": ["a"]}}`
			}
			_, err := locker.LoadConfig(source)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v\ndoes not say %s", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the secret is shown: %v", err)
			}
			if !errors.Is(err, locker.ErrInvalidConfig) && !errors.Is(err, locker.ErrUnknownBackend) {
				t.Errorf("%v matches neither", err)
			}
		})
	}
}
