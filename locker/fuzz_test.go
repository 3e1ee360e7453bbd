package locker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/locker"
)

// FuzzLoadConfig: no source panics, and one that loads is valid. source is laid around a
// password, at the places where passwords stand; the password must not be seen again.
func FuzzLoadConfig(f *testing.F) {
	for _, source := range []string{
		"", "{}", "fake://", "fake://u:PW@h:1/?ttl=3s&size=4", `{"type":"fake","backend":{"password":"PW"}}`, `{"":1}`,
		`{"type":"fake","ttl":"3s","retry":{"attempts":-1},"backend":{"tls":{"key":"PW"},"names":["a"],"size":[{"key":"PW"}]}}`,
		"fake://h?password=PW&pin=PW&tls.key=PW", "env:PW", "file://PW", "{\"type\":\"PW\"}", "nothing://PW", "://", "fake://u:PW@h#x",
		`{"type":"fake","backend":"fake://u:PW@h"}`, "fake://u:1/PW@h", "fake://u:1?PW@h", "[\"PW\"]", "u:PW@h", "fake://u:PW%zz@h:y",
	} {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, around string) {
		if strings.Contains(around, secret) {
			t.Skip()
		}
		text, _ := json.Marshal(around)
		for i, source := range []string{
			around,
			// A password in a URL, with anything before and behind it.
			"fake://user:" + secret + "@" + around,
			"fake://" + clean(around, "/?#@") + ":" + secret + "@h/",
			"fake://u:" + clean(around, "/?#") + secret + "@h/?size=x",
			"fake://u:1" + around + secret + "@h/",
			"fake://h?" + around + "&password=" + secret,
			// In JSON, beside anything, and as or within the wrong thing.
			`{"type": "fake", "backend": {"password": "` + secret + `"}, ` + strings.TrimPrefix(around, "{"),
			`{"type": "fake", "backend": {"password": "` + secret + `", ` + strings.TrimPrefix(around, "{") + "}",
			`{"type": "fake", "backend": {"password": {` + string(text) + `: "` + secret + `"}}}`,
			`{"type": "fake", "backend": {` + string(text) + `: {"password": "` + secret + `"}}}`,
			`{` + string(text) + `: {"password": "` + secret + `"}}`,
		} {
			c, err := locker.Config{}.Load(source)
			if i == 0 && err == nil && c.Type == "fake" {
				l, err := locker.Open(context.Background(), c)
				if errors.Is(err, locker.ErrInvalidConfig) && !strings.Contains(err.Error(), "is negative") {
					t.Fatalf("%q loads, but does not open: %v", source, err)
				}
				_ = l.Close(context.Background())
			}
			if err != nil {
				var e *locker.Error
				if !errors.As(err, &e) || e.Code != locker.CodeInvalidConfig && e.Code != locker.CodeUnknownBackend {
					t.Fatalf("%q: %#v", source, err)
				}
			}
			if i == 0 {
				continue // it has no secret
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Fatalf("%q: the secret is in the error %q", source, err)
			}
			if s := fmt.Sprintf("%v %+v %#v %s", c, c, c, struct{ C any }{c}); strings.Contains(s, secret) {
				t.Fatalf("%q: the secret is in %s", source, s)
			}
			if raw, err := json.Marshal(c); err != nil || strings.Contains(string(raw), secret) {
				t.Fatalf("%q: as JSON %s, %v", source, raw, err)
			}
		}
	})
}

// clean is s without the bytes that end a URL's authority or userinfo.
func clean(s, without string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(without, r) {
			return -1
		}
		return r
	}, s)
}

// FuzzKey: any bytes are a key, or ErrInvalidKey; and no two pairs of namespace and key
// are the same key (KEY-002).
func FuzzKey(f *testing.F) {
	for i, key := range hostileKeys {
		f.Add("ns", key, "ns2", hostileKeys[(i+1)%len(hostileKeys)])
		f.Add("a", "b:c", "a:b", "c")
	}
	bg := context.Background()
	f.Fuzz(func(t *testing.T, ns1, key1, ns2, key2 string) {
		l := newLocker(t, &fake{}, locker.Config{})
		full1, err1 := l.Key(key1, ns1)
		full2, err2 := l.Key(key2, ns2)
		for _, c := range []struct {
			ns, key, full string
			err           error
		}{{ns1, key1, full1, err1}, {ns2, key2, full2, err2}} {
			s, err := l.TryLockNS(bg, c.key, locker.WithNamespace(c.ns))
			if c.err != nil {
				wantError(t, c.err, locker.CodeInvalidKey, locker.ErrInvalidKey)
				wantError(t, err, locker.CodeInvalidKey, locker.ErrInvalidKey)
				if strings.ContainsAny(c.err.Error(), "\n\r\x00\x1b") {
					t.Fatalf("the error is not fit for a log: %q", c.err)
				}
				continue
			}
			if err != nil || s.Key() != c.full {
				t.Fatalf("%q, %q: %v", c.ns, c.key, err)
			}
			if _, err := l.TryLock(bg, c.full); !errors.Is(err, locker.ErrHeld) {
				t.Fatalf("%q is not the same as %q in %q: %v", c.full, c.key, c.ns, err)
			}
			if err := s.Unlock(bg); err != nil {
				t.Fatal(err)
			}
		}
		if err1 == nil && err2 == nil && (full1 == full2) != (ns1 == ns2 && key1 == key2) {
			t.Fatalf("%q in %q and %q in %q: %q and %q", key1, ns1, key2, ns2, full1, full2)
		}
	})
}
