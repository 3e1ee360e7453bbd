package postgres

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var captured Config

func init() {
	driver.Register("capture", func(_ context.Context, c Config) (driver.Backend, error) {
		captured = c
		return nil, driver.ErrUnsupported
	})
}

// load is what Open gets from a source.
func load(t *testing.T, source string) Config {
	t.Helper()
	_, rest, _ := strings.Cut(source, ":")
	cfg, err := locker.LoadConfig("capture:" + rest)
	if err == nil {
		_, err = locker.Open(t.Context(), cfg)
	}
	if !errors.Is(err, driver.ErrUnsupported) {
		t.Fatal(err)
	}
	return captured
}

func TestURL(t *testing.T) {
	// What the environment of libpq says must not come through here.
	for _, v := range []string{"PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE", "PGSSLMODE", "PGPASSFILE"} {
		t.Setenv(v, "")
	}
	for source, want := range map[string][]string{
		"postgres://app:secret@db:5433/locks?sslmode=disable&target_session_attrs=any&application_name=me&connect_timeout=7": {"host db", "port 5433", "user app", "password secret", "database locks", "name me", "timeout 7s"},
		"postgresql://app@db/locks?sslmode=disable":                           {"host db", "port 5432", "user app", "name lockstep", "timeout 5s"},
		"pgx://a,b:5433/locks?sslmode=disable":                                {"host a", "port 5432", "fallback b:5433"},
		"postgres:///locks?host=/run/postgresql&sslmode=disable&user=x":       {"host /run/postgresql", "port 5432", "user x"},
		"postgres:///locks?host=a:1&host=b&sslmode=disable&pool_max_conns=3":  {"host a", "port 1", "fallback b:5432", "conns 3"},
		"postgres://app:p%27%5C@db/lo%20cks?sslmode=disable":                  {`password p'\`, "database lo cks"},
		"postgres://db/x?sslmode=disable&options=-c%20statement_timeout%3D1s": {"options -c statement_timeout=1s"},
	} {
		t.Run(source, func(t *testing.T) {
			c := load(t, source)
			pc, err := c.poolConfig(c.Host)
			if err != nil {
				t.Fatal(err)
			}
			cc := pc.ConnConfig
			got := []string{"host " + cc.Host, "port " + strconv.Itoa(int(cc.Port)), "user " + cc.User, "password " + cc.Password, "database " + cc.Database,
				"name " + cc.RuntimeParams["application_name"], "timeout " + cc.ConnectTimeout.String(), "conns " + strconv.Itoa(int(pc.MaxConns)), "options " + cc.RuntimeParams["options"]}
			for _, f := range cc.Fallbacks {
				got = append(got, "fallback "+f.Host+":"+strconv.Itoa(int(f.Port)))
			}
			for _, w := range want {
				if !slices.Contains(got, w) {
					t.Errorf("not %q: %q", w, got)
				}
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	for source, want := range map[string]string{
		"postgres://u:hunter2@h/db?sslmode=never":                `sslmode: "never" is not one of`,
		"postgres://u:hunter2@h/db?target_session_attrs=standby": `target_session_attrs: "standby" is not one of`,
		"postgres://u:hunter2@h:99999/db":                        `host[0]: "h:99999" is not a host`,
		"postgres:///db?host=u:hunter2@h":                        "",
		"postgres://h/db?listen=off&listenHost=a":                `listen: "off", but listenHost is "a"`,
		"postgres://h/db?sslcert=a":                              "sslkey: it is empty, but sslcert is",
		"postgres://h/db?port=1":                                 "port: unknown field",
		"postgres://h/db?table=a%00b":                            "table: ",
		"postgres://h/db?schema=$lockstep$":                      "schema: ",
		"postgres://h/db?connect_timeout=0s":                     "connect_timeout: ",
		"postgres://h/db?validity=1ms":                           "validity: 1ms is not between 500ms and 1h",
	} {
		_, err := locker.LoadConfig(source)
		if !errors.Is(err, driver.ErrInvalidConfig) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// No part of the configuration that is a secret is shown.
func TestSecrets(t *testing.T) {
	cfg, err := locker.LoadConfig("postgres://u:hunter2@h/db?sslpassword=hunter3")
	if err != nil {
		t.Fatal(err)
	}
	if text := cfg.String(); strings.Contains(text, "hunter") || !strings.Contains(text, "(hidden)") {
		t.Error(text)
	}
	c := load(t, "postgres://u:hunter2@h/db?sslpassword=hunter3")
	c.SSLMode = "nonsense"
	if _, err := c.poolConfig(c.Host); err == nil || strings.Contains(err.Error(), "hunter") {
		t.Error(err)
	}
}

// What pgx refuses is told whole, but for the password of the key, of which nothing is shown or
// kept in the error.
func TestKeyPassword(t *testing.T) {
	for _, v := range []string{"PGSERVICE", "PGSSLMODE", "PGSSLROOTCERT"} {
		t.Setenv(v, "")
	}
	t.Setenv("PGSSLPASSWORD", "another one")
	dir := t.TempDir()
	file := func(name, kind string, data []byte, password string) string {
		block := &pem.Block{Type: kind, Bytes: data}
		if password != "" {
			var err error
			//lint:ignore SA1019 it is what pgx reads
			if block, err = x509.EncryptPEMBlock(rand.Reader, kind, data, []byte(password), x509.PEMCipherAES256); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	const password = `it's a "secret phrase" \ of many words`
	c := Config{Host: []string{"h"}, SSLMode: "require", SSLPassword: driver.NewSecret(password)}
	c.SSLCert = file("cert", "CERTIFICATE", cert, "")
	c.SSLKey = file("key", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), password)
	c.ServiceFile, c.Service = filepath.Join(dir, "services"), "app"
	if err := os.WriteFile(c.ServiceFile, []byte("[app]\npool_min_conns=3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.SetDefaults()
	pc, err := c.poolConfig(c.Host)
	if err != nil {
		t.Fatal(err)
	}
	cc := pc.ConnConfig
	if n := len(cc.TLSConfig.Certificates); n != 1 || cc.SSLCertMode == "disable" || cc.Host != "h" || pc.MinConns != 3 || pc.MaxConns != 8 {
		t.Errorf("%d certificates, sslcertmode %q, host %q, %d to %d connections", n, cc.SSLCertMode, cc.Host, pc.MinConns, pc.MaxConns)
	}
	for name := range cc.RuntimeParams {
		if strings.HasPrefix(name, "pool_") {
			t.Errorf("the server is sent %s", name)
		}
	}
	for want, change := range map[string]func(*Config){
		"sslkey": func(c *Config) { c.SSLKey += ".missing" },
		// Which of two errors it is depends on what a wrong password makes of the key.
		"(unable to ":          func(c *Config) { c.SSLPassword = driver.NewSecret(password + "!") },
		"target_session_attrs": func(c *Config) { c.TargetSessionAttrs = "secret" },
		"sslmode is invalid":   func(c *Config) { c.SSLMode = "nonsense" },
	} {
		c := c
		change(&c)
		_, err := c.poolConfig(c.Host)
		if !errors.Is(err, driver.ErrInvalidConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to name %s", err, want)
		}
		said := fmt.Sprintf("%v %+v", err, err)
		if e := (*pgconn.ParseConfigError)(nil); errors.As(err, &e) {
			said += e.ConnString
		}
		if strings.Contains(said, "phrase") || strings.Contains(said, "words") {
			t.Errorf("a part of the password is shown: %s", said)
		}
	}
}

func TestAddress(t *testing.T) {
	for in, want := range map[string][2]string{
		"db": {"db", ""}, "db:1": {"db", "1"}, "[::1]": {"::1", ""}, "[::1]:2": {"::1", "2"}, "/run/pg": {"/run/pg", ""}, "/run/pg:3": {"/run/pg", "3"},
	} {
		host, port, err := address(in)
		if err != nil || host != want[0] || port != want[1] {
			t.Errorf("%s: %q %q %v", in, host, port, err)
		}
	}
}

// Names are quoted, and none can break out of where it stands.
func TestScriptQuotes(t *testing.T) {
	script := Script(Config{Schema: `s"; DROP TABLE x; --`, Table: `t'a\b"c`, Unlogged: true})
	for _, want := range []string{
		`CREATE SCHEMA "s""; DROP TABLE x; --";`, `CREATE UNLOGGED TABLE IF NOT EXISTS "s""; DROP TABLE x; --"."t'a\b""c"`,
	} {
		if !strings.Contains(script, want) {
			t.Errorf("%s is not in\n%s", want, script)
		}
	}
	if strings.Contains(script, "@") {
		t.Error("a placeholder is left")
	}
	if Script(Config{}) == Script(Config{Table: "other"}) || newNames(Config{Schema: "a", Table: "b"}).channel == newNames(Config{Schema: "ab"}).channel {
		t.Error("two configurations share a name")
	}
}

func TestUnmarshalURL(t *testing.T) {
	var c Config
	u, _ := url.Parse("postgres://h/db/x")
	if err := c.UnmarshalURL(u); err != nil || c.Database != "db/x" {
		t.Errorf("%q, %v", c.Database, err)
	}
}
