package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
)

// want fails the test for each pattern that out does not match.
func want(t *testing.T, out string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)` + p).MatchString(out) {
			t.Errorf("no line matches %q", p)
		}
	}
	if t.Failed() {
		t.Logf("the output was\n%s", out)
	}
}

// everywhere is what every run shows.
var everywhere = []string{
	`w1 +holds +\d+  a lease`,
	`w2 +holds +\d+  a session`,
	`w1 +extends +\d+  it had .* now it ends in 700ms`,
	`w1 +works on`,
	`w1 +ended +\d+  Done is closed; reason: expired`,
	`w1 +REFUSED +\d+  its write of`,
	`w1 +unlocks +\d+  ErrLost, reason: expired`,
	`w1 +ended +\d+  reason: closed`,
	`w\d +leads +\d+`,
	`w\d +retires +\d+  led for`,
	`w\d +reports +\d+  for 00:00`,
	`w\d +reports +\d+  for 02:00`,
	`tokens .* each greater than the one before`,
	`late writes that were refused +1$`,
	`updates that were lost +0$`,
	`violations of mutual exclusion +0$`,
}

func TestOnMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		began := time.Now()
		violations, err := perform(t.Context(), &out, "memory://?store="+t.Name())
		if err != nil || violations != 0 {
			t.Errorf("violations %d, error %v", violations, err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %s; it should be over in 5s", took)
		}
		want(t, out.String(), everywhere...)
		want(t, out.String(), `Not shown: nobody but the holder`, `all +18 `,
			// In virtual time everything happens to the millisecond.
			`^  0\.003s  w1 .* a lease that ends in 2s, after a wait of 0s$`,
			`w6 +holds +\d+  a session, after a wait of 485ms$`,
			`works on .* 100ms after the first deadline$`)
		for what, n := range map[string]int{"leads": workers, "reports": 3} {
			if got := strings.Count(out.String(), "  "+what+" "); got != n {
				t.Errorf("%q stands %d times, want %d", what, got, n)
			}
		}
	})
}

// A Locker whose locks do not exclude anybody is found out, by the holds and by the
// numbers in the store.
func TestOverlapIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lockers []*locker.Locker
		for i := range 2 {
			l, err := open(t.Context(), fmt.Sprintf("memory://?store=%s-%d", t.Name(), i), &administrator{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close(t.Context())
			lockers = append(lockers, l)
		}
		var out bytes.Buffer
		s := &stage{out: &out, tokenWidth: 5}
		p := &program{stage: s, key: "k"}
		clock := clock{time.Now()}
		for n := 1; n <= workers; n++ {
			p.cast = append(p.cast, &worker{number: n, key: p.key, locker: lockers[n%2], stage: s, clock: clock})
		}
		if err := play(t.Context(), acts[0], p.cast); err != nil {
			t.Fatal(err)
		}
		if n := p.summary(); n == 0 {
			t.Error("no violation was found")
		}
		want(t, out.String(), `violations of mutual exclusion +[1-9]`)
	})
}

func TestCheck(t *testing.T) {
	span := func(from, until int, token uint64) hold {
		return hold{from: time.Duration(from), until: time.Duration(until), token: token}
	}
	for name, test := range map[string]struct {
		holds               []hold
		overlaps, disorders int
	}{
		"nothing":                     {nil, 0, 0},
		"one after the other":         {[]hold{span(0, 10, 1), span(10, 20, 2)}, 0, 0},
		"told in another order":       {[]hold{span(10, 20, 2), span(0, 10, 1)}, 0, 0},
		"two at once":                 {[]hold{span(0, 10, 1), span(9, 20, 2)}, 1, 0},
		"one within a longer one":     {[]hold{span(0, 100, 1), span(10, 20, 2), span(30, 40, 3)}, 2, 0},
		"a token that falls":          {[]hold{span(0, 10, 2), span(10, 20, 1)}, 0, 1},
		"a token that is given twice": {[]hold{span(0, 10, 1), span(10, 20, 1)}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			overlaps, disorders := check(test.holds)
			if len(overlaps) != test.overlaps || len(disorders) != test.disorders {
				t.Errorf("got %d overlaps %v and %d disorders %v, want %d and %d",
					len(overlaps), overlaps, len(disorders), disorders, test.overlaps, test.disorders)
			}
		})
	}
}

const password = "se/cret+word"

func TestOnAServerWithTwoClients(t *testing.T) {
	for name, url := range map[string]func(t *testing.T) string{
		"one Redis": func(t *testing.T) string { return redistest.Start(t, redistest.Password(password)).URL() },
		"Postgres": func(t *testing.T) string {
			srv := pgtest.Single(t)
			return srv.URL(srv.Database(t))
		},
		"a Cluster": func(t *testing.T) string { return redistest.Cluster(t).Nodes[0].URL() }, // the others are found by it
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(configVariable, url(t))
			var out, errOut bytes.Buffer
			if code := demo(nil, &out, &errOut); code != 0 {
				t.Errorf("exit code %d: %s", code, &errOut)
			}
			want(t, out.String(), everywhere...)
			want(t, out.String(), `client 2 +w2 +holds +\d{16} `,
				`admin +deletes`, `client 1 +w1 +ended +\d+  reason: lost`, `all +20 `)
			noSecret(t, out.String()+errOut.String())
		})
	}
}

// A configuration that cannot work is explained, with nothing of the secret in it.
func TestNotReady(t *testing.T) {
	for name, test := range map[string]struct{ config, pattern string }{
		"unknown field":   {`{"type": "redis", "backend": {"addresses": ["h:1"], "password": "se/cret+word"}}`, `addresses: unknown field`},
		"unknown backend": {`{"type": "paper"}`, `registered: memory, postgres, redis`},
		"missing file":    {`./no-such-file.json`, `no such file`},
		"bad URL":         {`redis://:se/cret+word@localhost`, `malformed`},
		"wrong namespace": {`{"type": "memory", "namespace": "a:b"}`, `namespace: "a:b"`},
		"nobody listens":  {`redis://:se%2Fcret%2Bword@127.0.0.1:1`, `does not answer.*\n.*`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(configVariable, test.config)
			var out, errOut bytes.Buffer
			if code := demo(nil, &out, &errOut); code != exitNotReady {
				t.Errorf("exit code %d, want %d", code, exitNotReady)
			}
			want(t, errOut.String(), test.pattern, `^Without LOCKSTEP_CONFIG the demo runs on`)
			noSecret(t, out.String()+errOut.String())
		})
	}
}

func noSecret(t *testing.T, out string) {
	t.Helper()
	for _, secret := range []string{password, "cret+word", "%2Fcret"} {
		if strings.Contains(out, secret) {
			t.Errorf("the output shows the password:\n%s", out)
			return
		}
	}
}
