package readme

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/locker"
)

// The documents show what is loaded without any variables.
func init() {
	for _, s := range os.Environ() {
		if name, _, _ := strings.Cut(s, "="); strings.HasPrefix(name, "LOCKSTEP_") {
			os.Unsetenv(name)
		}
	}
}

func Example_errors() {
	dir, err := os.MkdirTemp("", "lockstep")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "locks.json"), []byte("{\n  \"type\": \"redis\",\n  \"backend\": {\"addrs\": [\"localhost\"]}\n}\n"), 0o600); err != nil {
		panic(err)
	}
	show := func(err error) {
		fmt.Println(strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), ""))
	}
	for _, source := range []string{
		`{"type": "redis", "tll": "30s"}`,
		`{"type": "redis", "ttl": 30}`,
		`{"type": "redis", "retry": {"delay": "50ms", "jitter": "80ms"}}`,
		`{"type": "redis", "backend": {"password": ["s3cret"]}}`,
		`{"type": "redis",`,
		`{"type": "etcd"}`,
		`redis://app:s3cret@localhost:6379/locks`,
		`redis://app:s3:cret@[localhost/0`,
		`locks.yaml`,
		`env:LOCKSTEP_NOT_SET`,
	} {
		_, err := locker.LoadConfig(source)
		show(err)
	}
	_, err = locker.LoadConfig(filepath.Join(dir, "locks.json"))
	show(err)
	os.Setenv("LOCKSTEP_REDIS_VALIDITY", "5h")
	_, err = locker.LoadConfig("redis://localhost:6379")
	show(err)
	os.Unsetenv("LOCKSTEP_REDIS_VALIDITY")
	for _, cfg := range []locker.Config{
		{Type: "redis", Backend: redis.Config{Validity: time.Second / 10}},
		{Type: "redis", Backend: memory.Config{}},
		{Type: "memory", Namespace: "a:b"},
	} {
		_, err := locker.Open(context.Background(), cfg)
		show(err)
	}
	// Output:
	// lockstep: load: invalid configuration: JSON text, line 1, column 19: tll: unknown field (known: type, namespace, ttl, retry, driftFactor, openWait, identity, backend)
	// lockstep: load: invalid configuration: JSON text, line 1, column 26: ttl: want a duration with a unit, such as "1.5s" or "250ms", got 30
	// lockstep: load: invalid configuration: JSON text, line 1, column 56: retry.jitter: 80ms is larger than retry.delay, 50ms
	// lockstep: load: invalid configuration: JSON text, line 1, column 43: backend.password: want a string
	// lockstep: load: invalid configuration: JSON text, line 1, column 17: this is not JSON: unexpected EOF
	// lockstep: load: unknown backend: JSON text, line 1, column 10: type: "etcd" (registered: memory, postgres, redis)
	// lockstep: load: invalid configuration: URL redis://localhost:6379: db: the URL's path is the number of the database, not "/locks"
	// lockstep: load: invalid configuration: URL redis://…: it is malformed; write redis://[user:password@]host[:port][/path][?field=value] and percent-encode special characters (not shown: it may hold a secret)
	// lockstep: load: invalid configuration: file "locks.yaml": no such file or directory
	// lockstep: load: invalid configuration: env:LOCKSTEP_NOT_SET: the variable is not set or empty
	// lockstep: load: invalid configuration: file "locks.json", line 3, column 25: backend.addrs[0]: "localhost" is not host:port with a port from 1 to 65535
	// lockstep: load: invalid configuration: LOCKSTEP_REDIS_VALIDITY: validity: 5h is not between 500ms and 1h
	// lockstep: open on redis: invalid configuration: validity: 100ms is not between 500ms and 1h
	// lockstep: open on redis: invalid configuration: backend: type "redis" takes a redis.Config, not a memory.Config
	// lockstep: open on memory: invalid configuration: namespace: "a:b" holds a colon, which separates the namespace from the key
}

func Example_layers() {
	code := locker.Config{
		Type:    "redis",
		Retry:   locker.Retry{Attempts: 10, Delay: 50 * time.Millisecond, Jitter: 25 * time.Millisecond},
		Backend: redis.Config{Addrs: []string{"localhost:6379"}, Password: locker.Secret("secret"), Validity: 20 * time.Second},
	}
	one, err := code.Load(`{"retry": {"attempts": 3}, "backend": {"addrs": ["redis:6379"]}}`)
	fmt.Println(one, err)
	two, err := one.Load("redis://cache:6380/2?ttl=30s")
	fmt.Println(two, err)
	other, err := code.Load("memory://?store=mine")
	fmt.Println(other, err)
	// Output:
	// {"type":"redis","retry":{"attempts":3,"delay":"50ms","jitter":"25ms"},"backend":{"addrs":["redis:6379"],"password":"(hidden)","validity":"20s"}} <nil>
	// {"type":"redis","ttl":"30s","retry":{"attempts":3,"delay":"50ms","jitter":"25ms"},"backend":{"addrs":["cache:6380"],"db":2,"validity":"20s"}} <nil>
	// {"type":"memory","retry":{"attempts":10,"delay":"50ms","jitter":"25ms"},"backend":{"store":"mine"}} <nil>
}

func Example_environment() {
	os.Setenv("LOCKSTEP_REDIS_ADDRS", "cache-1:6379,cache-2:6379")
	defer os.Unsetenv("LOCKSTEP_REDIS_ADDRS")
	os.Setenv("LOCKSTEP_RETRY_DELAY", "1s")
	defer os.Unsetenv("LOCKSTEP_RETRY_DELAY")
	cfg, err := locker.LoadConfig(`{"type": "redis", "ttl": "30s", "backend": {"addrs": ["localhost:6379"]}}`)
	fmt.Println(cfg, err)
	// Output:
	// {"type":"redis","ttl":"30s","retry":{"delay":"1s"},"backend":{"addrs":["cache-1:6379","cache-2:6379"]}} <nil>
}

// Development.
func development(ctx context.Context) (*locker.Locker, error) {
	cfg := locker.Config{Type: "memory", Namespace: "billing"}
	if os.Getenv("LOCKSTEP_CONFIG") != "" {
		var err error
		if cfg, err = cfg.Load("env:LOCKSTEP_CONFIG"); err != nil {
			return nil, err
		}
	}
	return locker.Open(ctx, cfg)
}

var _ = development

// At boot.
var atBoot = locker.Config{Type: "redis", OpenWait: 30 * time.Second}

var _ = atBoot

// Production, in code.
var production = locker.Config{
	Type:      "redis",
	Namespace: "billing",
	Backend: redis.Config{
		MasterSet: "locks",
		Addrs:     []string{"sentinel-1:26379", "sentinel-2:26379", "sentinel-3:26379"},
		Username:  "billing",
		Password:  locker.Secret(os.Getenv("REDIS_PASSWORD")),
		TLS:       &redis.TLS{CAFile: "/etc/ssl/redis-ca.pem"},
		Validity:  15 * time.Second,
	},
}

var _ = production

// The same as JSON.
func TestProductionJSON(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := fenced(string(data), "json")
	if len(blocks) == 0 {
		t.Fatal("docs/configuration.md has no JSON block")
	}
	for _, b := range blocks {
		if _, err := locker.LoadConfig(b.text); err != nil {
			t.Errorf("docs/configuration.md:%d: %v", b.line, err)
		}
	}
}

// A test: a store of its own, in virtual time.
func TestNightlyReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l, err := locker.Open(ctx, locker.Config{Type: "memory", Backend: memory.Config{Store: t.Name()}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(context.Background())

		if _, err := l.Lock(ctx, "report", locker.WithTTL(time.Hour)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := l.Lock(ctx, "report"); err != nil { // an hour passes at once
			t.Fatal(err)
		}
		if waited := time.Since(began); waited != time.Hour {
			t.Errorf("waited %s, want 1h", waited)
		}
	})
}
