package proof

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// Servers that answer, but do not do what is asked.

var minute = locker.WithTTL(time.Minute)

// refusals are states in which a server refuses writes.
var refusals = []struct {
	name, word string
	on, off    []string
}{
	{"memory", "OOM", []string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}},
	{"replicas", "NOREPLICAS", []string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}},
	{"replica", "READONLY", []string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}},
}

// What is refused leaves nothing behind, and nothing is repeated in the background.
func TestRefusedAttempts(t *testing.T) {
	const attempts = 2000
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			srv := redistest.Start(t)
			l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
			srv.Do(t, r.on...)
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					for j := range attempts / 20 {
						_, err := l.TryLock(t.Context(), fmt.Sprint("k", i, j), locker.WithTTL(time.Hour))
						if !errors.Is(err, driver.ErrRefused) || !errors.Is(err, locker.ErrUnavailable) || !strings.Contains(err.Error(), r.word) {
							t.Errorf("TryLock: %v; want ErrRefused that says %s", err, r.word)
							return
						}
					}
				})
			}
			wg.Wait()
			if err := l.Ping(t.Context()); !errors.Is(err, driver.ErrRefused) || !strings.Contains(err.Error(), r.word) {
				t.Errorf("Ping where no lock can be had: %v; want ErrRefused that says %s", err, r.word)
			}
			scripts := func(s redistest.Stats) int64 { return s["evalsha"] + s["eval"] }
			before := srv.CommandStats(t)
			time.Sleep(time.Second) // nothing is to happen in this time
			if n := scripts(srv.CommandStats(t).Since(before)); n != 0 {
				t.Errorf("%d scripts in a second in which nobody asked for anything", n)
			}
			srv.Do(t, r.off...)
			before = srv.CommandStats(t)
			time.Sleep(time.Second)
			if n := scripts(srv.CommandStats(t).Since(before)); n != 0 {
				t.Errorf("%d scripts in the second after it", n)
			}
			if n, err := srv.Do(t, "DBSIZE").AsInt64(); n != 0 || err != nil {
				t.Errorf("%d keys are left, %v; nothing was ever granted", n, err)
			}
			if err := l.Ping(t.Context()); err != nil {
				t.Errorf("Ping where locks can be had again: %v", err)
			}
		})
	}
}

// A held key is held, and its holder can free it, whatever else the server refuses.
func TestHeldWhileRefusing(t *testing.T) {
	for _, r := range refusals[:2] { // a replica refuses to free as well
		t.Run(r.name, func(t *testing.T) {
			srv := redistest.Start(t)
			l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
			other := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
			lease := mustLock(t, l, "k", minute)
			srv.Do(t, r.on...)
			for _, opts := range [][]locker.Option{nil, {minute}} {
				if _, err := other.TryLock(t.Context(), "k", opts...); !errors.Is(err, locker.ErrHeld) {
					t.Errorf("TryLock of a key that is held: %v; want ErrHeld", err)
				}
			}
			if r.word != "OOM" { // with too few replicas DEL is refused like all writes
				srv.Do(t, r.off...)
			}
			if err := lease.Unlock(t.Context()); err != nil {
				t.Errorf("Unlock: %v", err)
			}
			if _, held, err := other.Inspect(t.Context(), "k"); held || err != nil {
				t.Errorf("after Unlock: held %v, %v", held, err)
			}
		})
	}
}

// A lock that was waited for through refusals is an ordinary one: Unlock frees it while memory
// is short again, and an Extend counts in full.
func TestGrantAfterRefusals(t *testing.T) {
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			srv := redistest.Start(t)
			l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
			srv.Do(t, r.on...)
			time.AfterFunc(300*time.Millisecond, func() { srv.Cmd(context.Background(), r.off...) })
			ctx, cancel := context.WithTimeout(t.Context(), 5*promptly)
			defer cancel()
			lease, err := l.Lock(ctx, "k", locker.WithTTL(time.Second))
			if err != nil {
				t.Fatalf("Lock through a refusal: %v", err)
			}
			if err := lease.Extend(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			time.Sleep(1500 * time.Millisecond) // past the first ttl
			if err := lease.Err(); err != nil {
				t.Errorf("extended by a minute, 1.5 s ago: %v", err)
			}
			if r.word == "OOM" {
				srv.Do(t, r.on...)
			}
			if err := lease.Unlock(t.Context()); err != nil {
				t.Errorf("Unlock: %v", err)
			}
			if n, err := srv.Do(t, "EXISTS", lockKey("lockstep", "k")).AsInt64(); n != 0 || err != nil {
				t.Errorf("after Unlock the lock is still there: %d, %v", n, err)
			}
		})
	}
}

// forwarder stands for a Service, a VIP or a DNS name: new connections lead to where it says.
type forwarder struct {
	net.Listener
	to atomic.Pointer[string]
}

func newForwarder(t *testing.T, to string) *forwarder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{Listener: ln}
	f.to.Store(&to)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", *f.to.Load())
				if err != nil {
					return
				}
				defer out.Close()
				go func() { io.Copy(out, in); out.Close() }()
				io.Copy(in, out)
			}()
		}
	}()
	return f
}

// A demoted master behind a name that leads to the new one: the connection is given up.
func TestWrongPeer(t *testing.T) {
	old, next := redistest.Start(t), redistest.Start(t)
	f := newForwarder(t, old.Addr())
	l := open(t, redis.Config{Addrs: []string{f.Addr().String()}}, locker.Config{})
	if err := mustLock(t, l, "before", minute).Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	nextAddr := next.Addr()
	f.to.Store(&nextAddr)
	host, port, _ := net.SplitHostPort(nextAddr)
	old.Do(t, "REPLICAOF", host, port)
	if err := l.Ping(t.Context()); !errors.Is(err, driver.ErrWrongPeer) {
		t.Errorf("Ping of a demoted master: %v; want ErrWrongPeer", err)
	}
	began := time.Now()
	mustLock(t, l, "k", minute) // within promptly
	t.Logf("healed after %s", time.Since(began))
	if err := l.Ping(t.Context()); err != nil {
		t.Errorf("Ping of the new master: %v", err)
	}
	if n, err := next.Do(t, "EXISTS", lockKey("lockstep", "k")).AsInt64(); n != 1 || err != nil {
		t.Errorf("the lock is not on the new master: %d, %v", n, err)
	}
}

// While the name goes on leading to a replica, connections are made anew at a bounded rate.
func TestWrongPeerStays(t *testing.T) {
	srv := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
	srv.Do(t, "REPLICAOF", "127.0.0.1", "1")
	before := srv.Info(t, "stats")["total_connections_received"]
	began := time.Now()
	var n, m int
	fmt.Sscan(before, &n)
	for time.Since(began) < time.Second || m-n < 3 && time.Since(began) < 10*time.Second {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, _ = l.TryLock(ctx, "k", minute)
		cancel()
		if time.Since(began) >= time.Second {
			fmt.Sscan(srv.Info(t, "stats")["total_connections_received"], &m)
		}
	}
	if took := time.Since(began); m-n < 3 || float64(m-n) > 25*took.Seconds() {
		t.Errorf("%d connections in %s; want about 10 a second", m-n, took)
	}
}

// A password that is changed, or a right that is taken away and given back, does not end a wait,
// and a release that is refused is repeated. At Open they are mistakes in the configuration.
func TestRightsComeAndGo(t *testing.T) {
	srv := redistest.Start(t)
	srv.Do(t, "ACL", "SETUSER", "u", "on", ">one", "~*", "&*", "+@all")
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	c := redis.Config{Addrs: []string{srv.Addr()}, Username: "u", PasswordFile: file}
	l := open(t, c, locker.Config{})

	waits := func(t *testing.T, off, on func()) {
		t.Helper()
		off()
		got := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*promptly)
			defer cancel()
			lease, err := l.Lock(ctx, t.Name(), minute)
			if err == nil {
				err = lease.Unlock(ctx)
			}
			got <- err
		}()
		select {
		case err := <-got:
			t.Fatalf("the wait ended with %v", err)
		case <-time.After(400 * time.Millisecond):
		}
		on()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	}
	t.Run("right", func(t *testing.T) {
		waits(t, func() {
			srv.Do(t, "ACL", "SETUSER", "u", "-set")
			if _, err := l.TryLock(t.Context(), "x", minute); !errors.Is(err, driver.ErrRefused) || errors.Is(err, locker.ErrUnsupported) {
				t.Errorf("without +set: %v; want ErrRefused", err)
			}
			if _, err := redis.New(t.Context(), c, locker.Config{}); !errors.Is(err, locker.ErrInvalidConfig) || !strings.Contains(err.Error(), "+set") {
				t.Errorf("Open without +set: %v; want ErrInvalidConfig that names it", err)
			}
		}, func() { srv.Do(t, "ACL", "SETUSER", "u", "+set") })
	})
	t.Run("password", func(t *testing.T) {
		waits(t, func() {
			srv.Do(t, "ACL", "SETUSER", "u", "resetpass", ">two")
			srv.Do(t, "CLIENT", "KILL", "USER", "u")
			deadline := time.Now().Add(promptly)
			for {
				_, err := l.TryLock(t.Context(), "x", minute)
				if errors.Is(err, driver.ErrRefused) && !errors.Is(err, locker.ErrInvalidConfig) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("after the password was changed: %v; want ErrRefused", err)
				}
			}
			if _, err := redis.New(t.Context(), c, locker.Config{}); !errors.Is(err, locker.ErrInvalidConfig) {
				t.Errorf("Open with the old password: %v; want ErrInvalidConfig", err)
			}
		}, func() { write("two") })
	})
	t.Run("release", func(t *testing.T) {
		lease := mustLock(t, l, "r", locker.WithTTL(time.Hour))
		srv.Do(t, "ACL", "SETUSER", "u", "-del")
		if err := lease.Unlock(t.Context()); !errors.Is(err, driver.ErrRefused) {
			t.Errorf("Unlock without +del: %v; want ErrRefused", err)
		}
		srv.Do(t, "ACL", "SETUSER", "u", "+del")
		deadline := time.Now().Add(promptly)
		for {
			if n, _ := srv.Do(t, "EXISTS", lockKey("lockstep", "r")).AsInt64(); n == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the release was not repeated")
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// No configured secret is in an error, even if the server quotes it.
func TestServerQuotesPassword(t *testing.T) {
	const secret = "hunter2-of-the-server"
	srv := redistest.Start(t, redistest.Args("--rename-command", "AUTH", "", "--rename-command", "HELLO", ""))
	for _, user := range []string{"", "u"} {
		_, err := redis.New(t.Context(), redis.Config{Addrs: []string{srv.Addr()}, Username: user, Password: locker.Secret(secret)}, locker.Config{})
		if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
			t.Errorf("user %q: %v", user, err)
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if strings.Contains(e.Error(), secret) {
				t.Errorf("inside of the error: %v", e)
			}
		}
	}
}

// Mistakes in the configuration that look like outages are named, within a second.
func TestMistakesAreNamed(t *testing.T) {
	a, b := redistest.Start(t), redistest.Start(t)
	secure := redistest.Start(t, redistest.TLS())
	set := redistest.StartSentinel(t)
	for _, tt := range []struct {
		name string
		c    redis.Config
		want []string
	}{
		{"several servers and no Cluster", redis.Config{Addrs: []string{a.Addr(), b.Addr()}}, []string{"addrs: ", "Cluster"}},
		{"a server as a Sentinel", redis.Config{Addrs: []string{a.Addr()}, MasterSet: "main"}, []string{"masterSet: ", `"main"`, a.Addr(), "no Sentinel", "26379"}},
		{"a Sentinel as a server", redis.Config{Addrs: set.Addrs()[:1]}, []string{"masterSet: ", set.Addrs()[0], "is a Sentinel"}},
		{"an unknown set", redis.Config{Addrs: set.Addrs()[:1], MasterSet: "typo"}, []string{"masterSet: ", `"typo"`, set.Addrs()[0]}},
		{"an unknown set of all", redis.Config{Addrs: set.Addrs(), MasterSet: "typo"}, []string{"masterSet: ", `"typo"`}},
		{"TLS to a plain port", redis.Config{Addrs: []string{a.Addr()}, TLS: &redis.TLS{}}, []string{"tls: ", a.Addr(), "redis://"}},
		{"TLS to a plain Sentinel", redis.Config{Addrs: set.Addrs(), MasterSet: set.MasterSet, TLS: &redis.TLS{}}, []string{"tls: ", "redis://"}},
		{"plain text to a TLS port", redis.Config{Addrs: []string{secure.Addr()}}, []string{"tls: ", secure.Addr(), "rediss://"}},
		{"a missing password file", redis.Config{Addrs: []string{a.Addr()}, PasswordFile: "/nowhere/pw"}, []string{"passwordFile: ", "/nowhere/pw"}},
		{"a Sentinel that needs no password", redis.Config{Addrs: set.Addrs(), MasterSet: set.MasterSet, SentinelUsername: "u", SentinelPassword: locker.Secret("p")}, []string{"sentinelPassword: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			began := time.Now()
			l, err := redis.New(t.Context(), tt.c, locker.Config{})
			took := time.Since(began)
			if err == nil {
				l.Close(t.Context())
			}
			if !errors.Is(err, locker.ErrInvalidConfig) {
				t.Fatalf("%v; want ErrInvalidConfig", err)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not mention %q", err, w)
				}
			}
			if took > 3*time.Second { // a connection has 5 s
				t.Errorf("it took %s", took)
			}
			t.Log(err)
		})
	}
}

// One of several Sentinels that does not answer, or knows nothing, is no mistake.
func TestSentinelAmongOthers(t *testing.T) {
	set := redistest.StartSentinel(t)
	addrs := append([]string{"127.0.0.1:1"}, set.Addrs()...)
	l := open(t, redis.Config{Addrs: addrs, MasterSet: set.MasterSet}, locker.Config{})
	mustLock(t, l, "k")
}

// A Cluster serves, and opens, without one of its masters; Ping says what is amiss.
func TestClusterWithoutMaster(t *testing.T) {
	cluster := redistest.StartCluster(t, redistest.Args("--cluster-require-full-coverage", "no", "--cluster-node-timeout", "60000"))
	c := redis.Config{Addrs: cluster.Addrs()[:2]}
	whole := open(t, c, locker.Config{})
	if err := whole.Ping(t.Context()); err != nil {
		t.Fatalf("Ping of a whole Cluster: %v", err)
	}
	opens := func(how string) *locker.Locker {
		t.Helper()
		began := time.Now()
		l := open(t, c, locker.Config{})
		if took := time.Since(began); took > 2*promptly {
			t.Errorf("opening with a master that %s took %s", how, took)
		}
		return l
	}
	cluster.Nodes[2].Pause(t)
	opens("hangs")
	cluster.Nodes[2].Resume(t)
	cluster.Nodes[2].Kill(t)
	l := opens("is down")
	granted := 0
	for i := range 30 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := l.TryLock(ctx, fmt.Sprint("k", i), minute); err == nil {
			granted++
		}
		cancel()
	}
	if granted < 5 {
		t.Errorf("%d of 30 locks were granted; two masters of three are well", granted)
	}
	if err := l.Ping(t.Context()); !errors.Is(err, locker.ErrUnavailable) {
		t.Errorf("Ping without one master: %v; want ErrUnavailable", err)
	}
}
