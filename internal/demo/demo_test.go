package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
)

// The demo starts itself a second time; in a test that is the test's own program.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == peerArgument {
		main()
	}
	os.Exit(m.Run())
}

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
		s := &house{out: &out, tokenWidth: 5}
		p := &program{house: s, key: "k"}
		clock := newClock(time.Now())
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
	span := func(from, until int, token uint64) Hold {
		return Hold{From: time.Duration(from), Until: time.Duration(until), Token: token}
	}
	for name, test := range map[string]struct {
		holds               []Hold
		overlaps, disorders int
	}{
		"nothing":                     {nil, 0, 0},
		"one after the other":         {[]Hold{span(0, 10, 1), span(10, 20, 2)}, 0, 0},
		"told in another order":       {[]Hold{span(10, 20, 2), span(0, 10, 1)}, 0, 0},
		"two at once":                 {[]Hold{span(0, 10, 1), span(9, 20, 2)}, 1, 0},
		"one within a longer one":     {[]Hold{span(0, 100, 1), span(10, 20, 2), span(30, 40, 3)}, 2, 0},
		"a token that falls":          {[]Hold{span(0, 10, 2), span(10, 20, 1)}, 0, 1},
		"a token that is given twice": {[]Hold{span(0, 10, 1), span(10, 20, 1)}, 0, 1},
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

func TestOnRedisWithTwoProcesses(t *testing.T) {
	for name, url := range map[string]func(t *testing.T) string{
		"one Redis": func(t *testing.T) string { return redistest.Start(t, redistest.Password(password)).URL() },
		"a Cluster": func(t *testing.T) string { return redistest.Cluster(t).Nodes[0].URL() }, // the others are found by it
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(configVariable, url(t))
			var out, errOut bytes.Buffer
			if code := demo(nil, &out, &errOut); code != 0 {
				t.Errorf("exit code %d: %s", code, &errOut)
			}
			want(t, out.String(), everywhere...)
			want(t, out.String(), `process 2 +w2 +holds +\d{16} `,
				`admin +deletes`, `process 1 +w1 +ended +\d+  reason: lost`, `all +20 `)
			noSecret(t, out.String()+errOut.String())
		})
	}
}

// A configuration that cannot work is explained, with nothing of the secret in it.
func TestNotReady(t *testing.T) {
	for name, test := range map[string]struct{ config, pattern string }{
		"unknown field":   {`{"type": "redis", "backend": {"addresses": ["h:1"], "password": "se/cret+word"}}`, `addresses: unknown field`},
		"unknown backend": {`{"type": "paper"}`, `registered: memory, redis`},
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

// The second process ends when the first does, even in the middle of a wait.
func TestPeerEndsWithTheStage(t *testing.T) {
	t.Setenv(configVariable, "")
	in, far, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- performAsPeer(ctx, in, discard{}) }()
	far.Close()
	if err := <-ended; err == nil || explain(&bytes.Buffer{}, err) != exitFailed {
		t.Errorf("got %v, want errStageGone", err)
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Close() error                { return nil }
