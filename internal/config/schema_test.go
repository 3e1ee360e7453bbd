package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// A subject is a schema, and the loader that it is to agree with.
type subject struct {
	name   string
	file   string // and, behind a #, where in it
	load   func(text string) error
	schema *jsonschema.Schema
}

func subjects(t testing.TB) []*subject {
	all := []*subject{
		{name: "whole", file: "docs/lockstep.schema.json", load: func(text string) error {
			_, err := locker.LoadConfig(text)
			return err
		}},
		{name: "sample", file: "internal/config/sample/config.schema.json", load: backendLoader("test-sample")},
		{name: "redis", file: "docs/lockstep.schema.json#/$defs/redis", load: backendLoader("test-redis")},
		{name: "memory", file: "docs/lockstep.schema.json#/$defs/memory", load: backendLoader("test-memory")},
		{name: "postgres", file: "docs/lockstep.schema.json#/$defs/postgres", load: backendLoader("test-postgres")},
	}
	for _, s := range all {
		s.schema = compile(t, s.file)
	}
	return all
}

func backendLoader(typ string) func(string) error {
	return func(text string) error {
		_, err := loadBackend(typ, text)
		return err
	}
}

func compile(t testing.TB, file string) *jsonschema.Schema {
	t.Helper()
	name, _, _ := strings.Cut(file, "#")
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(readSchema(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertVocabs()
	c.RegisterVocabulary(&jsonschema.Vocabulary{URL: "https://lockstep.invalid/duration", Compile: durationRange})
	if err := c.AddResource(name, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(file)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return s
}

// accepts is the schema's judgement.
func (s *subject) accepts(text string) error {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return s.schema.Validate(doc)
}

// between is what x-minimum and x-maximum mean: the standard has no words for durations.
type between struct{ least, most *time.Duration }

func durationRange(_ *jsonschema.CompilerContext, obj map[string]any) (jsonschema.SchemaExt, error) {
	var b between
	for name, into := range map[string]**time.Duration{"x-minimum": &b.least, "x-maximum": &b.most} {
		if text, ok := obj[name].(string); ok {
			d, err := time.ParseDuration(text)
			if err != nil {
				return nil, err
			}
			*into = &d
		}
	}
	if b.least == nil && b.most == nil {
		return nil, nil
	}
	return b, nil
}

func (b between) Validate(ctx *jsonschema.ValidatorContext, v any) {
	text, ok := v.(string)
	if !ok {
		return // type says so
	}
	d, err := time.ParseDuration(text)
	if err != nil || b.least != nil && d < *b.least || b.most != nil && d > *b.most {
		ctx.AddError(&kind.Format{Got: v, Want: "duration in range"})
	}
}

// beyond is everything that the loader refuses and a schema cannot say, with an example of
// each that the schema accepts. Nothing else may differ, and never the other way round.
var beyond = []struct{ why, subject, example, problem string }{
	{"the relation of two numbers (lockgen:atmost)",
		"whole", `{"retry": {"delay": "1s", "jitter": "2s"}}`, `^2s is larger than retry\.delay, 1s$`},
	{"bytes: maxLength counts characters",
		"whole", `{"namespace": "` + strings.Repeat("é", 200) + `"}`, `^it has 400 bytes; at most 256 are allowed$`},
	{"a field that is needed may also come from the code, a URL or the environment",
		"sample", `{}`, `^it is empty, but it is needed$`},
	{"a name that is there twice: parsers of JSON keep the last",
		"whole", `{"ttl": "1s", "ttl": "2s"}`, `^it is given twice$`},
	{"what a Go integer cannot hold, where there is no other limit",
		"whole", `{"retry": {"attempts": 1e30}}`, `^want a whole number, got "`},
	{"a field of type any is for Go: only the core knows what to make of its backend",
		"sample", `{"hosts": ["a"], "extra": {}}`, `^a interface \{\} cannot be configured$`},
	{"control characters: a pattern for them at every string would hide what else the schema says",
		"whole", `{"namespace": "a\u0007"}`, `^it holds a control character, '`},
	{"the same, in a list",
		"redis", `{"addrs": ["a:1\n"]}`, `^it ends in a newline$`},
	{"the same, in a secret",
		"sample", `{"hosts": ["a"], "tls": {"key": "a\n"}}`, `^it ends in a newline$`},
	{"lockgen:check checkName of the sample",
		"sample", `{"hosts": ["me"], "name": "me"}`, `^"me" is the first of hosts as well$`},
	{"lockgen:check checkShards of memory",
		"memory", `{"shards": 3}`, `^3 is not a power of two from 1 to 65536`},
	{"lockgen:check checkAddrs of redis: hosts and ports",
		"redis", `{"addrs": ["localhost"]}`, `is not host:port with a port from 1 to 65535$`},
	{"lockgen:check checkAddrs of redis: URLs",
		"redis", `{"addrs": ["redis://h:1"]}`, `^want host:port; user and password have fields of their own`},
	{"lockgen:check checkAddrs of redis: sockets",
		"redis", `{"addrs": ["/run/a.sock", "b:1"]}`, `is a unix socket, which stands alone, but `},
	{"lockgen:check checkDB of redis",
		"redis", `{"addrs": ["a:1", "b:1"], "db": 1}`, `^1 with 2 addrs: a Cluster has only database 0$`},
	{"lockgen:check checkPassword of redis",
		"redis", `{"username": "u"}`, `^it is empty, but username is given; `},
	{"lockgen:check checkHost of postgres: hosts and ports",
		"postgres", `{"host": ["h:0"]}`, ` is not a host, or host:port with a port from 1 to 65535, or the directory of a socket$`},
	{"lockgen:check checkHost of postgres: URLs",
		"postgres", `{"host": ["postgres://h"]}`, `^want a host, host:port or the directory of a socket; user and password`},
	{"lockgen:check checkListen of postgres",
		"postgres", `{"listen": "off", "listenHost": ["h"]}`, `^"off", but listenHost is `},
	{"lockgen:check checkPassword of redis: a password and a file of it",
		"redis", `{"password": "p", "passwordFile": "f"}`, `^it is "f", but password is given too$`},
	{"the same for the Sentinels",
		"redis", `{"masterSet": "m", "sentinelPassword": "p", "sentinelPasswordFile": "f"}`, `^it is "f", but sentinelPassword is given too$`},
	{"lockgen:check checkAddrs of redis: sockets have no TLS",
		"redis", `{"addrs": ["/run/a.sock"], "tls": {}}`, `is a unix socket, which has no TLS; leave tls out$`},
}

// isBeyond says whether err is one that no schema can foresee.
func isBeyond(err error) bool {
	var wrong *driver.FieldError
	if !errors.As(err, &wrong) {
		return false
	}
	for _, b := range beyond {
		if loosely(b.problem).MatchString(wrong.Problem) {
			return true
		}
	}
	return false
}

var value = regexp.MustCompile(`[0-9]+[smh]?|"[a-z]+"|retry\\\.delay`)

// loosely makes the problem of an example that of any value.
func loosely(problem string) *regexp.Regexp {
	return regexp.MustCompile(value.ReplaceAllString(problem, ".*"))
}

func TestBeyondTheSchema(t *testing.T) {
	for _, s := range subjects(t) {
		for _, b := range beyond {
			if b.subject != s.name {
				continue
			}
			if err := s.accepts(b.example); err != nil {
				t.Errorf("%s: the schema refuses it, so take it off the list: %v", b.why, err)
			}
			var wrong *driver.FieldError
			if err := s.load(b.example); !errors.As(err, &wrong) || !regexp.MustCompile(b.problem).MatchString(wrong.Problem) {
				t.Errorf("%s: %v", b.why, err)
			}
		}
	}
}

// agree fails if the schema and the loader judge text differently.
func (s *subject) agree(t testing.TB, text string) (accepted bool) {
	t.Helper()
	bySchema, byLoader := s.accepts(text), s.load(text)
	switch {
	case !utf8.ValidString(text) || twice(text):
		// The library of the schema takes what is not UTF-8 for U+FFFD, and of two fields of
		// one name the last: what it says is about another text.
		if byLoader == nil {
			t.Errorf("%s: the loader takes what is not UTF-8, or has a field twice\n%q", s.name, text)
		}
		return false
	case bySchema == nil && byLoader != nil && !isBeyond(byLoader):
		t.Errorf("%s: only the loader refuses\n%s\n%v", s.name, text, byLoader)
	case bySchema != nil && byLoader == nil:
		t.Errorf("%s: only the schema refuses\n%s\n%v", s.name, text, bySchema)
	}
	if byLoader != nil && !errors.Is(byLoader, locker.ErrInvalidConfig) && !errors.Is(byLoader, locker.ErrUnknownBackend) {
		t.Errorf("%s: %s\n%v", s.name, text, byLoader)
	}
	return byLoader == nil
}

// twice says whether an object in text has two fields of one name.
func twice(text string) bool {
	if !json.Valid([]byte(text)) {
		return false // and a Decoder would not end
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var inner func() bool
	inner = func() bool {
		open, err := dec.Token()
		if err != nil || open != json.Delim('{') && open != json.Delim('[') {
			return false
		}
		names := map[any]bool{}
		for dec.More() {
			if open == json.Delim('{') {
				name, err := dec.Token()
				if err != nil || names[name] {
					return err == nil
				}
				names[name] = true
			}
			if inner() {
				return true
			}
		}
		_, _ = dec.Token()
		return false
	}
	return inner()
}

// What FuzzText once took for a disagreement: the schema's library saw another text.
func TestOtherText(t *testing.T) {
	for _, s := range subjects(t) {
		for _, text := range []string{"{\"name\":\"\xa9\"}", `{"ttl":"","ttl":"0s"}`, `{"retry":{"delay":"1s","delay":"1s"}}`, `{"hosts":["a"],"hosts":["a"]}`} {
			if s.name == "whole" || utf8.ValidString(text) {
				s.agree(t, text)
			}
		}
	}
	for text, want := range map[string]bool{`{"a":1,"a":1}`: true, `{"a":{"b":[{"c":1,"c":2}]}}`: true, `{"a":{"a":1},"b":{"a":1}}`: false, `{"a":[`: false, `{"hosts": ["a`: false, ``: false} {
		if twice(text) != want {
			t.Errorf("twice(%s) is %v", text, !want)
		}
	}
}

func TestSchemaAgrees(t *testing.T) {
	type cases struct{ good, bad []string }
	for name, c := range map[string]cases{
		"whole": {
			good: []string{
				`{}`, `{"type": "memory"}`, `{"type": "inMemory", "backend": {"shards": 8}}`, `{"$schema": "./lockstep.schema.json", "type": "redis"}`,
				`{"ttl": "0"}`, `{"ttl": "1h30m0.5s"}`, `{"ttl": "876000h"}`, `{"ttl": "+.5s"}`, `{"ttl": "5µs"}`, `{"retry": {}}`, `{"retry": {"attempts": -1}}`,
				`{"retry": {"attempts": 1e2}}`, `{"retry": {"attempts": 3.0}}`, `{"retry": {"attempts": -0}}`, `{"driftFactor": 0.5}`, `{"driftFactor": 5e-1}`, `{"driftFactor": 0}`,
				`{"namespace": "` + strings.Repeat("n", 256) + `"}`, `{"backend": {"anything": 1}}`,
				`{"type": "redis", "backend": {"addrs": ["a:1"], "tls": {"certFile": "c", "keyFile": "k"}, "tracking": "off", "validity": "500ms"}}`,
				`{"type": "redis", "backend": {"masterSet": "m", "sentinelPassword": "p", "sentinelUsername": "u"}}`,
				`{"type": "redis", "backend": {"tls": {"certFile": "", "keyFile": ""}}}`, `{"type": "redis", "backend": {"tls": true}}`, `{"type": "redis", "backend": {"tls": false}}`,
				`{"retry": {"attempts": 0, "jitter": "0s"}}`, `{"openWait": "24h"}`, `{"retry": {"delay": "1ms"}}`,
			},
			bad: []string{
				``, `{`, `{}}`, `{"tll": "1s"}`, `{"Type": "memory"}`, `{"type": "etcd"}`, `{"type": ""}`, `{"type": null}`, `{"type": 1}`, `{"$schema": 1}`,
				`{"ttl": 30}`, `{"ttl": "30"}`, `{"ttl": ""}`, `{"ttl": "-1s"}`, `{"ttl": "876000h1ns"}`, `{"ttl": "9999999999999h"}`, `{"ttl": "1 s"}`, `{"ttl": "1s "}`, `{"ttl": "1S"}`, `{"ttl": "."}`, `{"ttl": ".s"}`,
				`{"retry": []}`, `{"retry": null}`, `{"retry": {"attempts": -2}}`, `{"retry": {"attempts": 1.5}}`, `{"retry": {"attempts": "1"}}`, `{"retry": {"delay": "0s"}}`,
				`{"retry": {"delay": "24h1ns"}}`, `{"retry": {"jitter": "-1ns"}}`, `{"retry": {"x": 1}}`, `{"driftFactor": 0.51}`, `{"driftFactor": -0.1}`, `{"driftFactor": 1e999}`, `{"driftFactor": "0.1"}`,
				`{"namespace": ""}`, `{"namespace": "a:b"}`, `{"namespace": "` + strings.Repeat("n", 257) + `"}`, `{"backend": null}`, `{"backend": "redis://h"}`, `{"backend": []}`,
				`{"type": "memory", "backend": {"store": ""}}`, `{"type": "memory", "backend": {"shards": -1}}`, `{"type": "memory", "backend": {"shards": 65537}}`, `{"type": "inMemory", "backend": {"addrs": []}}`,
				`{"type": "redis", "backend": {"addrs": []}}`, `{"type": "redis", "backend": {"addrs": "a:1"}}`, `{"type": "redis", "backend": {"addrs": [1]}}`, `{"type": "redis", "backend": {"addrs": [null]}}`,
				`{"type": "redis", "backend": {"db": -1}}`, `{"type": "redis", "backend": {"db": 1048577}}`, `{"type": "redis", "backend": {"db": 1e30}}`, `{"type": "redis", "backend": {"db": "1"}}`,
				`{"type": "redis", "backend": {"prefix": "a{"}}`, `{"type": "redis", "backend": {"prefix": "token:a"}}`, `{"type": "redis", "backend": {"prefix": ""}}`, `{"type": "redis", "backend": {"prefix": "` + strings.Repeat("p", 129) + `"}}`,
				`{"type": "redis", "backend": {"validity": "499ms"}}`, `{"type": "redis", "backend": {"validity": "5h"}}`, `{"type": "redis", "backend": {"timeout": "9ms"}}`, `{"type": "redis", "backend": {"dialTimeout": "6m"}}`,
				`{"type": "redis", "backend": {"tracking": "maybe"}}`, `{"type": "redis", "backend": {"tracking": ""}}`, `{"type": "redis", "backend": {"clientName": "a b"}}`, `{"type": "redis", "backend": {"clientName": "a\n"}}`,
				`{"type": "redis", "backend": {"sentinelUsername": "u"}}`, `{"type": "redis", "backend": {"sentinelPassword": "p", "masterSet": ""}}`, `{"type": "redis", "backend": {"tls": {"certFile": "c"}}}`,
				`{"type": "redis", "backend": {"tls": {"keyFile": "k", "certFile": ""}}}`, `{"type": "redis", "backend": {"tls": "true"}}`, `{"type": "redis", "backend": {"tls": 1}}`, `{"type": "redis", "backend": {"tls": {"insecureSkipVerify": "true"}}}`, `{"type": "redis", "backend": {"ClientOption": 1}}`,
			},
		},
		"sample": {
			good: []string{
				`{"hosts": ["a"]}`, `{"hosts": ["a", "b", "c"], "kind": "b", "rate": 0.125, "count": 1099511627776}`, `{"hosts": ["a"], "count": -9223372036854775808}`,
				`{"hosts": ["a"], "name": "ab", "pool": {}, "tls": {"retry": {}}}`, `{"hosts": ["a"], "pool": {"size": 1}, "tls": {"key": "12345678", "retry": {"attempts": 0}}}`,
			},
			bad: []string{
				`{"hosts": []}`, `{"hosts": ["a", "b", "c", "d"]}`, `{"hosts": ["A"]}`, `{"hosts": ["a"], "kind": "c"}`, `{"hosts": ["a"], "kind": ""}`,
				`{"hosts": ["a"], "name": ""}`, `{"hosts": ["a"], "name": "{"}`, `{"hosts": ["a"], "name": "100%"}`, `{"hosts": ["a"], "name": "` + strings.Repeat("n", 65) + `"}`,
				`{"hosts": ["a"], "count": 1099511627777}`, `{"hosts": ["a"], "rate": 0}`, `{"hosts": ["a"], "rate": 0.6}`,
				`{"hosts": ["a"], "pool": {"size": 0}}`, `{"hosts": ["a"], "tls": {"key": "123456789"}}`, `{"hosts": ["a"], "tls": {"retry": {"attempts": -2}}}`,
			},
		},
	} {
		for _, s := range subjects(t) {
			if s.name != name {
				continue
			}
			for _, text := range c.good {
				if !s.agree(t, text) {
					t.Errorf("%s: refused, want accepted: %s: %v", name, text, s.load(text))
				}
			}
			for _, text := range c.bad {
				if s.agree(t, text) || s.accepts(text) == nil {
					t.Errorf("%s: accepted, want refused by both: %s", name, text)
				}
			}
		}
	}
}
