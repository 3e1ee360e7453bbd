package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

const secret = "hunter2-hunter2"

// Bad configuration names the field and both numbers where two disagree, and no secret.
func TestInvalidConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Config
		want []string
	}{
		{"no port", Config{Addrs: []string{"localhost"}}, []string{"addrs[0]", `"localhost"`}},
		{"port 0", Config{Addrs: []string{"a:1", "b:0"}}, []string{"addrs[1]", "65535"}},
		{"no host", Config{Addrs: []string{":6379"}}, []string{"addrs[0]"}},
		{"URL as address", Config{Addrs: []string{"redis://u:" + secret + "@h:1"}}, []string{"addrs[0]", "not shown"}},
		{"socket among others", Config{Addrs: []string{"a:1", "/tmp/s"}}, []string{"addrs[1]", "stands alone"}},
		{"negative db", Config{DB: -1}, []string{"db", "-1"}},
		{"db in a Cluster", Config{Addrs: []string{"a:1", "b:1"}, DB: 3}, []string{"db: 3", "2 addrs"}},
		{"sentinel password without a set", Config{SentinelPassword: secret}, []string{"masterSet"}},
		{"user without password", Config{Username: secret}, []string{"password", "username is given", "redis://:password@host"}},
		{"brace in the prefix", Config{Prefix: "a{b"}, []string{"prefix", `"a{b"`}},
		{"prefix of the counters", Config{Prefix: "token:lockstep"}, []string{"prefix", "token:"}},
		{"long prefix", Config{Prefix: strings.Repeat("p", 129)}, []string{"prefix", "129", "128"}},
		{"short validity", Config{Validity: time.Millisecond}, []string{"validity", "1ms", "500ms", "1h"}},
		{"negative validity", Config{Validity: -time.Second}, []string{"validity", "-1s"}},
		{"long timeout", Config{Timeout: time.Hour}, []string{"timeout", "1h", "5m"}},
		{"negative dial timeout", Config{DialTimeout: -1}, []string{"dialTimeout", "-1ns"}},
		{"key without certificate", Config{TLS: &TLS{KeyFile: "k.pem"}}, []string{"tls.certFile", "tls.keyFile", `"k.pem"`}},
		{"tracking", Config{Tracking: "maybe"}, []string{"tracking", `"maybe"`, "auto, on, off"}},
		{"client name", Config{ClientName: "a b"}, []string{"clientName", `"a b"`}},
		{"certificate without key", Config{TLS: &TLS{CertFile: "c.pem"}}, []string{"tls.certFile", `"c.pem"`}},
		{"missing authority", Config{TLS: &TLS{CAFile: "/nowhere/ca.pem"}}, []string{"tls.caFile", "/nowhere/ca.pem"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Open(t.Context(), tt.c)
			if !errors.Is(err, locker.ErrInvalidConfig) {
				t.Fatalf("got %v, want ErrInvalidConfig", err)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error %q does not mention %q", err, w)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error shows the secret: %q", err)
			}
		})
	}
}

// What a URL says, through the same path as locker.Open, with the connection caught just
// before it would be made.
func TestConfigFromSources(t *testing.T) {
	var got Config
	catch := func(_ context.Context, c Config) (driver.Backend, error) {
		got = c
		return nil, driver.ErrUnsupported
	}
	locker.Register("caught", catch, locker.Names{Schemes: []string{"caughts"}})
	for _, name := range os.Environ() { // the environment goes over the sources
		if name, _, _ := strings.Cut(name, "="); strings.HasPrefix(name, "LOCKSTEP_") {
			t.Setenv(name, "")
		}
	}
	for _, tt := range []struct {
		source string
		want   Config
	}{
		{"caught://", Config{}},
		{"caught://h", Config{Addrs: []string{"h:6379"}}},
		{"caught://h:7000/2", Config{Addrs: []string{"h:7000"}, DB: 2}},
		{"caught://u:" + secret + "@[::1]:1/?validity=20s&tracking=off", Config{Addrs: []string{"[::1]:1"}, Username: "u", Password: secret, Validity: 20 * time.Second, Tracking: "off"}},
		{"caught://:" + secret + "@h", Config{Addrs: []string{"h:6379"}, Password: secret}},
		{"caughts://h?tls.serverName=x", Config{Addrs: []string{"h:6379"}, TLS: &TLS{ServerName: "x"}}},
		{"caught:///?masterSet=m&addrs=a:1&addrs=b:2", Config{Addrs: []string{"a:1", "b:2"}, MasterSet: "m"}},
		{`{"type":"caught","backend":{"addrs":["a:1"],"password":"` + secret + `","tls":{"caFile":"f"},"timeout":"2s"}}`,
			Config{Addrs: []string{"a:1"}, Password: secret, TLS: &TLS{CAFile: "f"}, Timeout: 2 * time.Second}},
	} {
		got = Config{}
		tt.want.SetDefaults()
		cfg, err := locker.LoadConfig(tt.source)
		if err != nil {
			t.Errorf("%s: %v", tt.source, err)
			continue
		}
		if _, err := locker.Open(t.Context(), cfg); !errors.Is(err, locker.ErrUnsupported) {
			t.Errorf("%s: %v", tt.source, err)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:\ngot  %#v\nwant %#v", tt.source, got, tt.want)
		}
	}
}

func TestURLScheme(t *testing.T) {
	for _, tt := range []struct {
		url  string
		want Config
		bad  string
	}{
		{url: "rediss://h", want: Config{Addrs: []string{"h:6379"}, TLS: &TLS{}}},
		{url: "unix:///run/redis.sock", want: Config{Addrs: []string{"/run/redis.sock"}}},
		{url: "unix://host/run/redis.sock", bad: "unix:///path"},
		{url: "redis://h/zero", bad: "db"},
	} {
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		var got Config
		err = got.UnmarshalURL(u)
		switch {
		case tt.bad == "" && (err != nil || !reflect.DeepEqual(got, tt.want)):
			t.Errorf("%s: got %+v, %v; want %+v", tt.url, got, err, tt.want)
		case tt.bad != "" && (err == nil || !strings.Contains(err.Error(), tt.bad)):
			t.Errorf("%s: got error %v, want one that mentions %q", tt.url, err, tt.bad)
		}
	}
}

// A Config may be printed and logged.
func TestConfigHidesSecrets(t *testing.T) {
	c := Config{Addrs: []string{"h:1"}, Username: "u", Password: secret, MasterSet: "m", SentinelPassword: secret}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c)
	for _, printed := range []string{
		fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%v", &c), fmt.Sprintf("%q", c),
		fmt.Sprintf("%v", []Config{c}), log.String(),
	} {
		if strings.Contains(printed, secret) {
			t.Errorf("the secret is shown: %s", printed)
		}
		if !strings.Contains(printed, "h:1") {
			t.Errorf("nothing else is shown either: %s", printed)
		}
	}
}

func TestNewRefusesTypeAndBackend(t *testing.T) {
	_, err := New(t.Context(), Config{}, locker.Config{Type: "redis"})
	if !errors.Is(err, locker.ErrInvalidConfig) {
		t.Errorf("got %v, want ErrInvalidConfig", err)
	}
}

// Nobody listens there: the answer is that the backend is unavailable, soon.
func TestOpenWithoutServer(t *testing.T) {
	_, err := Open(t.Context(), Config{Addrs: []string{"127.0.0.1:1"}, Password: secret})
	if !errors.Is(err, locker.ErrUnavailable) || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v, want ErrUnavailable without the secret", err)
	}
}
