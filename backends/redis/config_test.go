package redis

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
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
		{"plus in the port", Config{Addrs: []string{"a:+46379"}}, []string{"addrs[0]", `"a:+46379"`}},
		{"space in the port", Config{Addrs: []string{"a: 1"}}, []string{"addrs[0]"}},
		{"space before the address", Config{Addrs: []string{" a:1"}}, []string{"addrs[0]", `" a:1"`}},
		{"list in one address", Config{Addrs: []string{"a:1,b:2"}}, []string{"addrs[0]"}},
		{"list of hosts", Config{Addrs: []string{"a,b:2"}}, []string{"addrs[0]", `"a,b:2"`}},
		{"bare IPv6", Config{Addrs: []string{"::1"}}, []string{"addrs[0]"}},
		{"brackets around a colon", Config{Addrs: []string{"[:]:1"}}, []string{"addrs[0]"}},
		{"newline in an address", Config{Addrs: []string{"a:1\n"}}, []string{"addrs[0]", "newline"}},
		{"newline in a socket", Config{Addrs: []string{"/run/s\n"}}, []string{"addrs[0]", "newline"}},
		{"newline in the prefix", Config{Prefix: "p\n"}, []string{"prefix", "newline"}},
		{"newline in masterSet", Config{MasterSet: "m\n"}, []string{"masterSet", "newline"}},
		{"newline in the user", Config{Username: "u\n", Password: driver.NewSecret(secret)}, []string{"username", "newline"}},
		{"newline in the Sentinels' user", Config{MasterSet: "m", SentinelUsername: "u\x7f"}, []string{"sentinelUsername", "control character"}},
		{"newline in the password", Config{Password: driver.NewSecret(secret + "\n")}, []string{"password", "newline"}},
		{"newline in a file's name", Config{TLS: &TLS{CAFile: "f\n"}}, []string{"tls.caFile", "newline"}},
		{"newline in the password's file", Config{PasswordFile: "f\r"}, []string{"passwordFile", "newline"}},
		{"newline in the client's name", Config{ClientName: "n\n"}, []string{"clientName", "does not allow"}},
		{"password twice", Config{Password: driver.NewSecret(secret), PasswordFile: "f"}, []string{"passwordFile", `"f"`, "password is given too"}},
		{"no such password file", Config{PasswordFile: "/nowhere/pw"}, []string{"passwordFile", "/nowhere/pw"}},
		{"password file of the Sentinels without a set", Config{SentinelPasswordFile: "f"}, []string{"masterSet", `"f"`}},
		{"TLS over a socket", Config{Addrs: []string{"/run/s"}, TLS: &TLS{}}, []string{"tls", `"/run/s"`}},
		{"socket among others", Config{Addrs: []string{"a:1", "/tmp/s"}}, []string{"addrs[1]", "stands alone"}},
		{"negative db", Config{DB: -1}, []string{"db", "-1"}},
		{"db in a Cluster", Config{Addrs: []string{"a:1", "b:1"}, DB: 3}, []string{"db: 3", "2 addrs"}},
		{"sentinel password without a set", Config{SentinelPassword: driver.NewSecret(secret)}, []string{"masterSet"}},
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
	driver.Register("caught", catch, driver.Names{Schemes: []string{"caughts"}})
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
		{"caught://u:" + secret + "@[::1]:1/?validity=20s&tracking=off", Config{Addrs: []string{"[::1]:1"}, Username: "u", Password: driver.NewSecret(secret), Validity: 20 * time.Second, Tracking: "off"}},
		{"caught://:" + secret + "@h", Config{Addrs: []string{"h:6379"}, Password: driver.NewSecret(secret)}},
		{"caughts://h?tls.serverName=x", Config{Addrs: []string{"h:6379"}, TLS: &TLS{ServerName: "x"}}},
		{"caught:///?masterSet=m&addrs=a:1&addrs=b:2", Config{Addrs: []string{"a:1", "b:2"}, MasterSet: "m"}},
		{`{"type":"caught","backend":{"addrs":["a:1"],"password":"` + secret + `","tls":{"caFile":"f"},"timeout":"2s"}}`,
			Config{Addrs: []string{"a:1"}, Password: driver.NewSecret(secret), TLS: &TLS{CAFile: "f"}, Timeout: 2 * time.Second}},
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
		{url: "redis://[::1]:7000/2", want: Config{Addrs: []string{"[::1]:7000"}, DB: 2}},
		{url: "unix:///run/redis.sock", want: Config{Addrs: []string{"/run/redis.sock"}}},
		{url: "unix://host/run/redis.sock", bad: "unix:///path"},
		{url: "unix:///", bad: "unix:///path"},
		{url: "redis://h/zero", bad: "db"},
		{url: "redis://h/+1", bad: "db"},
		{url: "redis://h1:6379,h2:6379", bad: "several hosts"},
		{url: "redis://h1,h2", bad: "several hosts"},
		{url: "redis://::1", bad: "brackets"},
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

// Each connection has its own look at the certificates.
func TestFreshTLS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	c := Config{TLS: &TLS{CAFile: file}}
	was, other := &tls.Config{}, &tls.Config{}
	var dialled []*tls.Config
	dial := c.freshTLS(func(_ context.Context, _ string, _ *net.Dialer, conf *tls.Config) (net.Conn, error) {
		dialled = append(dialled, conf)
		return nil, nil
	}, was)
	if _, err := dial(t.Context(), "h:1", nil, was); err == nil || !strings.Contains(err.Error(), "tls.caFile") || len(dialled) > 0 {
		t.Errorf("without the file: %v, %d dials", err, len(dialled))
	}
	if _, err := dial(t.Context(), "h:1", nil, other); err != nil || len(dialled) != 1 || dialled[0] != other {
		t.Errorf("what ClientOption has put there: %v, %v", err, dialled)
	}
	key, err1 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true}
	der, err2 := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	err3 := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t.Context(), "h:1", nil, was); err != nil || len(dialled) != 2 || dialled[1] == was || dialled[1].RootCAs == nil {
		t.Errorf("with the file: %v, %d dials", err, len(dialled))
	}
}

func TestPasswordFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pw")
	for content, want := range map[string]string{"pw": "pw", "pw\n": "pw", "pw\r\n": "pw", "p w\n\n": "p w\n", " pw ": " pw "} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readPassword(file); got != want || err != nil {
			t.Errorf("%q: %q, %v; want %q", content, got, err, want)
		}
	}
	for _, content := range []string{"", "\n", strings.Repeat("p", maxPassword+1)} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readPassword(file); err == nil || !strings.Contains(err.Error(), "pw") {
			t.Errorf("%d bytes: %d bytes, %v; want an error that names the file", len(content), len(got), err)
		}
	}
	c := Config{Username: "u", Password: driver.NewSecret("own"), SentinelUsername: "s", SentinelPasswordFile: file}
	if err := os.WriteFile(file, []byte("theirs\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	own, err1 := c.login(rueidis.AuthCredentialsContext{Address: &net.TCPAddr{}})
	theirs, err2 := c.login(rueidis.AuthCredentialsContext{Address: sentinelAddr{&net.TCPAddr{}}})
	if own.Username+own.Password != "uown" || theirs.Username+theirs.Password != "stheirs" || err1 != nil || err2 != nil {
		t.Errorf("%v, %v; %v, %v", own, theirs, err1, err2)
	}
}

// A Config may be printed and logged.
func TestConfigHidesSecrets(t *testing.T) {
	c := Config{Addrs: []string{"h:1"}, Username: "u", Password: driver.NewSecret(secret), MasterSet: "m", SentinelPassword: driver.NewSecret(secret)}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c)
	for _, printed := range []string{
		fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%v", &c), fmt.Sprintf("%s", c.Addrs) + fmt.Sprintf("%q", []any{c}),
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
	_, err := Open(t.Context(), Config{Addrs: []string{"127.0.0.1:1"}, Password: driver.NewSecret(secret)})
	if !errors.Is(err, locker.ErrUnavailable) || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v, want ErrUnavailable without the secret", err)
	}
}
