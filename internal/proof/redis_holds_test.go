package proof

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// What ends a hold on Redis, and who hears of it, where the suite has no way to bring it about.

var bothKinds = []struct {
	name string
	opts []locker.Option
}{{"lease", []locker.Option{locker.WithTTL(time.Hour)}}, {"session", nil}}

// heard is a listener.
type heard chan error

func (h heard) Lost(cause error) {
	select {
	case h <- cause:
	default:
	}
}

func (h heard) wait(t *testing.T, what string) error {
	t.Helper()
	select {
	case err := <-h:
		return err
	case <-time.After(promptly):
		t.Fatalf("%s: its holder has heard nothing after %s", what, promptly)
		return nil
	}
}

func openDriver(t *testing.T, c redis.Config) driver.Backend {
	t.Helper()
	b, err := redis.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), promptly)
		defer cancel()
		_ = b.Close(ctx)
	})
	return b
}

func ask(key string, seq uint64, ttl time.Duration) (driver.Request, heard) {
	h := make(heard, 1)
	return driver.Request{Key: key, Owner: driver.Owner{Instance: [16]byte{1}, Seq: seq}, TTL: ttl, Hold: h}, h
}

func grant(t *testing.T, b driver.Backend, r driver.Request) driver.Holder {
	t.Helper()
	g, err := b.Acquire(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return driver.Holder{Key: r.Key, Owner: r.Owner, Token: g.Token, Session: r.TTL == 0}
}

// attempt is one attempt, of a Lock that waits or of another.
func attempt(t *testing.T, b driver.Backend, r driver.Request, waiting bool) (driver.Grant, error) {
	t.Helper()
	if !waiting {
		return b.Acquire(t.Context(), r)
	}
	q, ok := driver.As[driver.Queuer](b)
	if !ok {
		t.Fatal("no Queuer")
	}
	return q.Queue(t.Context(), r)
}

func handOffOf(t *testing.T, b driver.Backend) driver.Handoff {
	t.Helper()
	h, ok := driver.As[driver.Handoff](b)
	if !ok {
		t.Fatal("no Handoff")
	}
	return h
}

// LOSS-003: whatever a server answers at a reconnect, the holds are looked at until it is known
// whether they stand.
func TestRefusedAtReconnect(t *testing.T) {
	for name, fault := range map[string]struct{ begin, end []string }{
		"no password": {[]string{"CONFIG", "SET", "requirepass", "pw"}, []string{"CONFIG", "SET", "requirepass", ""}},
		"no right":    {[]string{"ACL", "SETUSER", "limited", "resetkeys"}, []string{"ACL", "SETUSER", "limited", "~*"}},
	} {
		for _, kind := range bothKinds {
			t.Run(name+"/"+kind.name, func(t *testing.T) {
				t.Parallel()
				srv := redistest.Start(t)
				srv.Do(t, "ACL", "SETUSER", "limited", "on", ">pass", "~*", "&*", "+@all")
				c := redis.Config{Addrs: []string{srv.Addr()}, Validity: 10 * time.Second}
				if name == "no right" {
					c.Username, c.Password = "limited", locker.Secret("pass")
				}
				l := open(t, c, locker.Config{})
				lease := mustLock(t, l, "k", kind.opts...)
				srv.Do(t, fault.begin...)
				admin := func(args ...string) {
					t.Helper()
					if name == "no password" {
						opt := srv.ClientOption()
						opt.Password = "pw"
						client := adminClient(t, opt)
						if err := client.Do(t.Context(), client.B().Arbitrary(args...).Build()).Error(); err != nil {
							t.Fatal(err)
						}
						return
					}
					srv.Do(t, args...)
				}
				admin("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
				time.Sleep(300 * time.Millisecond) // several looks are refused
				admin(fault.end...)
				srv.Do(t, "DEL", lockKey("lockstep", "k"))
				waitDone(t, lease, locker.ReasonLost)
			})
		}
	}
}

// LOSS-003: a lock that was replaced by something of another type, or renamed away, is lost, and
// nobody hears of types but who wants the lock. He hears what to do, and waits.
func TestForeignTypes(t *testing.T) {
	srv := redistest.Start(t)
	lock := lockKey("lockstep", "k")
	for _, kind := range bothKinds {
		for name, commands := range map[string][][]string{
			"hash":         {{"HSET", "h", "a", "b"}, {"RENAME", "h", lock}},
			"list":         {{"DEL", lock}, {"RPUSH", lock, "a"}},
			"renamed away": {{"RENAME", lock, "elsewhere"}},
		} {
			t.Run(kind.name+"/"+name, func(t *testing.T) {
				srv.Do(t, "FLUSHALL")
				l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
				hears := mustLock(t, l, "k", kind.opts...)
				for _, c := range commands {
					srv.Do(t, c...)
				}
				waitDone(t, hears, locker.ReasonLost)
				if err := hears.Unlock(t.Context()); !errors.Is(err, locker.ErrLost) {
					t.Errorf("Unlock: %v; want ErrLost", err)
				}
				if name == "renamed away" {
					return
				}
				_, err := l.TryLock(t.Context(), "k", kind.opts...)
				for _, part := range []string{strconv.Quote(lock), "holds a " + name, "delete it or change prefix"} {
					if !errors.Is(err, locker.ErrUnavailable) || !strings.Contains(err.Error(), part) {
						t.Errorf("TryLock: %v; want ErrUnavailable that says %s", err, part)
					}
				}
				if _, ok, err := l.Inspect(t.Context(), "k"); ok || err == nil || !strings.Contains(err.Error(), "holds a "+name) {
					t.Errorf("Inspect: %v, %v; want the same error", ok, err)
				}
				got := make(chan error, 1)
				go func() {
					ctx, cancel := context.WithTimeout(context.Background(), 5*promptly)
					defer cancel()
					_, err := l.Lock(ctx, "k", kind.opts...)
					got <- err
				}()
				time.Sleep(settle)
				srv.Do(t, "DEL", lock)
				if err := <-got; err != nil {
					t.Errorf("Lock, when it had been deleted: %v", err)
				}
			})
		}
	}
}

// The driver's own words for it: nothing surfaces WRONGTYPE.
func TestForeignTypeInDriver(t *testing.T) {
	srv := redistest.Start(t)
	b := openDriver(t, redis.Config{Addrs: []string{srv.Addr()}, Tracking: redis.TrackingOff})
	r, _ := ask("k", 1, time.Hour)
	h := grant(t, b, r)
	srv.Do(t, "DEL", lockKey("lockstep", "k"))
	srv.Do(t, "RPUSH", lockKey("lockstep", "k"), "a")
	if _, err := b.Extend(t.Context(), h, time.Hour); !errors.Is(err, driver.ErrLost) {
		t.Errorf("Extend: %v; want ErrLost", err)
	}
	next, _ := ask("k", 2, time.Hour)
	if g, err := handOffOf(t, b).HandOff(t.Context(), h, next); !errors.Is(err, driver.ErrLost) {
		t.Errorf("HandOff: %+v, %v; want ErrLost", g, err)
	}
	for _, token := range []uint64{h.Token, 0} {
		h.Token = token
		if err := b.Release(t.Context(), h); !errors.Is(err, driver.ErrLost) {
			t.Errorf("Release with token %d: %v; want ErrLost", token, err)
		}
	}
	for _, waiting := range []bool{false, true} {
		if _, err := attempt(t, b, next, waiting); !errors.Is(err, driver.ErrRefused) || errors.Is(err, driver.ErrUnsupported) {
			t.Errorf("Acquire, waiting: %t: %v; want ErrRefused", waiting, err)
		}
	}
}

// LOSS-003: who is granted a lock ends an older hold of the same client, of whose end the server
// said nothing: the attempt itself found it expired.
func TestSuperseded(t *testing.T) {
	srv := redistest.Start(t, redistest.Args("--enable-debug-command", "yes"))
	srv.Do(t, "DEBUG", "SET-ACTIVE-EXPIRE", "0")
	for _, kinds := range [][2]time.Duration{{time.Hour, time.Hour}, {time.Hour, 0}, {0, time.Hour}, {0, 0}} {
		t.Run(fmt.Sprint(kinds[0] == 0, kinds[1] == 0), func(t *testing.T) {
			b := openDriver(t, redis.Config{Addrs: []string{srv.Addr()}, Validity: time.Hour})
			key := t.Name()
			r, hears := ask(key, 1, kinds[0])
			old := grant(t, b, r)
			srv.Do(t, "PEXPIRE", lockKey("lockstep", key), "1")
			// An announcement of this may come first; what counts is what comes after.
			time.Sleep(settle)
			r2, _ := ask(key, 2, kinds[1])
			deadline := time.Now().Add(promptly)
			g, err := b.Acquire(t.Context(), r2)
			for errors.Is(err, driver.ErrHeld) && time.Now().Before(deadline) {
				g, err = b.Acquire(t.Context(), r2)
			}
			if err != nil || g.Token <= old.Token {
				t.Fatalf("%+v, %v", g, err)
			}
			if err := hears.wait(t, "superseded"); !errors.Is(err, driver.ErrLost) {
				t.Errorf("the older hold ended with %v; want ErrLost", err)
			}
		})
	}
}

// LOSS-001: a session's clock can be asked, and says what the server said last (ERR-002).
func TestSessionClock(t *testing.T) {
	srv := redistest.Start(t)
	const validity = time.Second
	b := openDriver(t, redis.Config{Addrs: []string{srv.Addr()}, Validity: validity})
	clock, ok := driver.As[driver.SessionClock](b)
	if !ok {
		t.Fatal("no SessionClock")
	}
	r, hears := ask("k", 1, 0)
	h := grant(t, b, r)
	if err := clock.SessionErr(h); err != nil {
		t.Errorf("a session that has just been granted: %v", err)
	}
	foreign := h
	foreign.Owner.Seq = 99
	if err := clock.SessionErr(foreign); err != nil {
		t.Errorf("a session that is not known: %v", err)
	}
	srv.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	began := time.Now()
	var err error
	for err == nil && time.Since(began) < 2*validity {
		time.Sleep(time.Millisecond)
		err = clock.SessionErr(h)
		if len(hears) > 0 {
			err = hears.wait(t, "the session")
		}
	}
	if !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), "no renewal was confirmed for 1s") || !strings.Contains(err.Error(), "NOREPLICAS") {
		t.Errorf("it ended with %v; want ErrUnavailable that says NOREPLICAS", err)
	}
	if strings.Contains(err.Error(), "script") {
		t.Errorf("%v: nobody wants to know of scripts", err)
	}
}

// An expired lease leaves nothing in the server's tracking table.
func TestExpiredIsNotTracked(t *testing.T) {
	srv := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
	const n = 500
	for i := range n {
		mustLock(t, l, fmt.Sprint(i), locker.WithTTL(200*time.Millisecond))
	}
	tracked := func() int {
		left, err := strconv.Atoi(srv.Info(t, "stats")["tracking_total_keys"])
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	for end := time.Now().Add(5 * promptly); tracked() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d leases that have expired are still tracked", tracked(), n)
		}
	}
}

// A table that is too small for what is held is noticed, and leases are looked at in turns.
func TestTrackingTableFull(t *testing.T) {
	srv := redistest.Start(t)
	for _, setting := range []struct{ name, user string }{{"limit known", ""}, {"limit unknown", "limited"}} {
		t.Run(setting.name, func(t *testing.T) {
			srv.Do(t, "FLUSHALL")
			srv.Do(t, "ACL", "SETUSER", "limited", "on", ">pass", "~*", "&*", "+@all", "-config")
			srv.Do(t, "CONFIG", "SET", "tracking-table-max-keys", "100")
			c := redis.Config{Addrs: []string{srv.Addr()}}
			if setting.user != "" {
				c.Username, c.Password = setting.user, locker.Secret("pass")
			}
			before, warnings := slog.Default(), new(warned)
			slog.SetDefault(slog.New(warnings))
			defer slog.SetDefault(before)
			l := open(t, c, locker.Config{})
			const n = 400
			leases := make([]*locker.Lease, n)
			for i := range leases {
				leases[i] = mustLock(t, l, fmt.Sprint(i), locker.WithTTL(time.Hour))
			}
			for i := range leases {
				srv.Do(t, "DEL", lockKey("lockstep", fmt.Sprint(i)))
			}
			end := time.After(20 * time.Second)
			for i, lease := range leases {
				select {
				case <-lease.Done():
				case <-end:
					t.Fatalf("lease %d was deleted, and its holder has not heard of it in 20 s", i)
				}
			}
			if n := warnings.Load(); n != 1 {
				t.Errorf("%d warnings; want one", n)
			}
		})
	}
}

// warned counts the warnings of a full table.
type warned struct{ atomic.Int64 }

func (*warned) Enabled(context.Context, slog.Level) bool { return true }
func (w *warned) WithAttrs([]slog.Attr) slog.Handler     { return w }
func (w *warned) WithGroup(string) slog.Handler          { return w }
func (w *warned) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn && strings.Contains(r.Message, "tracking-table-max-keys") {
		w.Add(1)
	}
	return nil
}

// A thousand processes that died in the queue cost the living one a bounded time, and the queue
// does not outlive them for ever.
func TestDeadQueue(t *testing.T) {
	srv := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{TTL: time.Minute, Retry: never})
	other := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{TTL: time.Minute, Retry: never})
	lease := mustLock(t, other, "k")
	const queue = "token:lockstep:{:k}:queue"
	const dead = 1000
	srv.Do(t, "EVAL", "for i = 1, ARGV[1] do redis.call('ZADD', KEYS[1], i, 'dead' .. i) end", "1", queue, strconv.Itoa(dead))
	got := make(chan *locker.Lease, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		lease, err := l.Lock(ctx, "k")
		if err != nil {
			t.Error(err)
		}
		got <- lease
	}()
	time.Sleep(settle)
	began := time.Now()
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := <-got
	if took := time.Since(began); took > 5*time.Second { // one bounded wait for each would take longer
		t.Errorf("it took %s", took)
	}
	if err := next.Unlock(t.Context()); err != nil {
		t.Error(err)
	}
	if ttl, err := srv.Do(t, "PTTL", queue).AsInt64(); err != nil || ttl == -1 {
		t.Errorf("the queue has no end: %d, %v", ttl, err)
	}
}

// Processes that live keep their order among the dead.
func TestQueueKeepsItsOrder(t *testing.T) {
	srv := redistest.Start(t)
	// On a machine that is busy the first may not come in its time, and lose its place. Without an
	// order it is first in one round of four.
	const rounds = 9
	kept := 0
	for i := range rounds {
		if firstOfTheLiving(t, srv, fmt.Sprint("k", i)) {
			kept++
		}
	}
	if kept < 5 {
		t.Errorf("the first that waited was the first to have the lock in %d of %d rounds", kept, rounds)
	}
}

func firstOfTheLiving(t *testing.T, srv *redistest.Server, key string) bool {
	t.Helper()
	c, queue := redis.Config{Addrs: []string{srv.Addr()}}, "token:lockstep:{:"+key+"}:queue"
	first := mustLock(t, open(t, c, locker.Config{}), key, locker.WithTTL(time.Minute))
	srv.Do(t, "ZADD", queue, "1", "dead1", "2", "dead2")
	const n = 4
	order := make(chan int, n)
	for i := range n {
		l := open(t, c, locker.Config{TTL: time.Minute, Retry: never})
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*promptly)
			defer cancel()
			lease, err := l.Lock(ctx, key)
			if err != nil {
				t.Error(err)
				order <- -1
				return
			}
			order <- i
			if err := lease.Unlock(ctx); err != nil {
				t.Error(err)
			}
		}()
		queued(t, srv, queue, int64(i+3))
	}
	if err := first.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := <-order
	for range n - 1 {
		<-order
	}
	return got == 0
}

// What neighbours may put where the lock or its counter stands. Nothing of it is loaded as a whole.
func TestNeighbours(t *testing.T) {
	srv := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
	lock, counter := lockKey("lockstep", "k"), "token:lockstep:{:k}"
	minute := locker.WithTTL(time.Minute)
	for name, tt := range map[string]struct {
		setup [][]string
		names string // the Redis key in the error
	}{
		"a counter without end":           {[][]string{{"SET", counter, "99999999999999999999:1"}}, counter},
		"a counter at the end and a note": {[][]string{{"SET", counter, "9007199254740991:8000000000"}}, counter},
		"a counter beyond int64":          {[][]string{{"SET", counter, "9223372036854775807"}}, counter},
		"a note without end":              {[][]string{{"SET", counter, "1:99999999999999999999"}}, counter},
		"a colon":                         {[][]string{{"SET", counter, "12:"}}, counter},
		"a hash for a counter":            {[][]string{{"HSET", counter, "a", "b"}}, counter},
		"a huge counter":                  {[][]string{{"SETRANGE", counter, "64000000", "x"}}, counter},
		"a huge lock":                     {[][]string{{"SETRANGE", lock, "64000000", "x"}}, lock},
	} {
		t.Run(name, func(t *testing.T) {
			srv := redistest.Start(t)
			l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
			for _, c := range tt.setup {
				srv.Do(t, c...)
			}
			before := srv.Info(t, "stats")["total_net_output_bytes"]
			for _, waits := range []bool{false, true} {
				limit := promptly // of the answer; a Lock waits for as long as it may
				if waits {
					limit = time.Second
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				var err error
				if waits {
					_, err = l.Lock(ctx, "k", minute)
				} else {
					_, err = l.TryLock(ctx, "k", minute)
				}
				cancel()
				if !errors.Is(err, locker.ErrUnavailable) || !strings.Contains(err.Error(), strconv.Quote(tt.names)) || strings.Contains(err.Error(), "-1ms") {
					t.Errorf("waiting %t: %v; want ErrUnavailable that names %s", waits, err, tt.names)
				}
			}
			if n, _ := srv.Do(t, "EXISTS", lock).AsInt64(); tt.names == counter && n != 0 {
				t.Error("an attempt that failed has left its lock")
			}
			if _, _, err := l.Inspect(t.Context(), "k"); tt.names == lock && (err == nil || !strings.Contains(err.Error(), strconv.Quote(lock))) {
				t.Errorf("Inspect: %v", err)
			}
			after := srv.Info(t, "stats")["total_net_output_bytes"]
			a, _ := strconv.Atoi(after)
			if z, _ := strconv.Atoi(before); a-z > 1_000_000 {
				t.Errorf("the server sent %d bytes", a-z)
			}
		})
	}
	t.Run("a holder's lock becomes huge", func(t *testing.T) {
		srv.Do(t, "FLUSHALL")
		lease := mustLock(t, l, "k", locker.WithTTL(time.Hour))
		before, _ := strconv.Atoi(srv.Info(t, "stats")["total_net_output_bytes"])
		srv.Do(t, "SETRANGE", lock, "64000000", "x")
		// It still begins with the owner, so it is the holder's, and keeps others out; what stands
		// behind is for people, and is not loaded.
		if err := lease.Extend(t.Context(), time.Hour); err != nil {
			t.Error(err)
		}
		if _, err := l.TryLock(t.Context(), "k", locker.WithTTL(time.Minute)); !errors.Is(err, locker.ErrHeld) {
			t.Errorf("TryLock by another: %v; want ErrHeld", err)
		}
		if info, ok, err := l.Inspect(t.Context(), "k"); err != nil || !ok || info.Token != lease.Token() {
			t.Errorf("Inspect: %+v, %v, %v", info, ok, err)
		}
		if err := lease.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
		if after, _ := strconv.Atoi(srv.Info(t, "stats")["total_net_output_bytes"]); after-before > 1_000_000 {
			t.Errorf("the server sent %d bytes", after-before)
		}
	})
	t.Run("a ttl without end", func(t *testing.T) {
		srv.Do(t, "FLUSHALL")
		srv.Do(t, "SET", lock, "maintenance", "PX", "4611686018427387904")
		_, err := l.TryLock(t.Context(), "k", minute)
		if d, ok := driver.Remaining(err); !errors.Is(err, locker.ErrHeld) || ok && d < 0 {
			t.Errorf("TryLock: %v, %s; want ErrHeld", err, d)
		}
		if _, ok, err := l.Inspect(t.Context(), "k"); ok || err == nil || !strings.Contains(err.Error(), "maintenance") {
			t.Errorf("Inspect: %v, %v; want an error that says maintenance", ok, err)
		}
	})
}

// A server that refuses writes still says who holds a lock, and frees it if it can.
func TestRefusingServer(t *testing.T) {
	for name, fault := range map[string]struct {
		begin, end []string
		frees      bool
	}{
		"full":        {[]string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}, true},
		"no replicas": {[]string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			srv := redistest.Start(t)
			b := openDriver(t, redis.Config{Addrs: []string{srv.Addr()}})
			held, _ := ask("held", 1, time.Hour)
			h := grant(t, b, held)
			back, _ := ask("back", 2, time.Hour)
			taken := grant(t, b, back)
			turn, _ := ask("turn", 3, time.Hour)
			turned := grant(t, b, turn)
			srv.Do(t, fault.begin...)
			for _, waiting := range []bool{false, true} {
				r, _ := ask("held", 4, time.Minute)
				_, err := attempt(t, b, r, waiting)
				if d, ok := driver.Remaining(err); !errors.Is(err, driver.ErrHeld) || !ok || d < 50*time.Minute {
					t.Errorf("Acquire of what is held, waiting %t: %v; want ErrHeld with an hour remaining", waiting, err)
				}
				r.Key = "free"
				if g, err := attempt(t, b, r, waiting); !errors.Is(err, driver.ErrUnavailable) || errors.Is(err, driver.ErrHeld) {
					t.Errorf("Acquire of what is free, waiting %t: %+v, %v; want a refusal", waiting, g, err)
				}
			}
			if fault.frees {
				next, _ := ask("turn", 5, time.Hour)
				if g, err := handOffOf(t, b).HandOff(t.Context(), turned, next); err != nil || g.Token <= turned.Token {
					t.Errorf("handed off: %+v, %v", g, err)
				}
				if err := b.Release(t.Context(), turned); err != nil {
					t.Errorf("Release: %v", err)
				}
				taken.Token = 0
				for _, h := range []driver.Holder{h, taken} {
					if err := b.Release(t.Context(), h); err != nil {
						t.Errorf("Release of %q, token %d: %v", h.Key, h.Token, err)
					}
				}
			}
			srv.Do(t, fault.end...)
			if n, _ := srv.Do(t, "EVAL", "return #redis.call('KEYS', 'lockstep:0:*')", "0").AsInt64(); fault.frees && n != 0 {
				t.Errorf("%d locks are left", n)
			}
		})
	}
}

// REL-002: a Release by somebody else, of a token or of none, ends nobody's renewals.
func TestForeignRelease(t *testing.T) {
	srv := redistest.Start(t)
	const validity = 2 * time.Second // a busy machine can sleep through half a second
	b := openDriver(t, redis.Config{Addrs: []string{srv.Addr()}, Validity: validity})
	r, hears := ask("k", 1, 0)
	h := grant(t, b, r)
	for _, other := range []driver.Owner{{Instance: r.Owner.Instance, Seq: 2}, {Instance: [16]byte{2}, Seq: 1}} {
		for _, token := range []uint64{0, h.Token} {
			if err := b.Release(t.Context(), driver.Holder{Key: "k", Owner: other, Token: token, Session: true}); !errors.Is(err, driver.ErrLost) {
				t.Errorf("Release by %v: %v; want ErrLost", other, err)
			}
		}
	}
	for end := time.Now().Add(validity * 3 / 2); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		r2, _ := ask("k", 3, time.Minute)
		if _, err := b.Acquire(t.Context(), r2); !errors.Is(err, driver.ErrHeld) {
			t.Fatalf("the session is not held any more: %v, %v", err, hears.wait(t, "the session"))
		}
	}
	if len(hears) > 0 {
		t.Errorf("it was lost: %v", <-hears)
	}
}

// REL-001: after a Release that failed a session is not renewed any more.
func TestFailedRelease(t *testing.T) {
	srv := redistest.Start(t)
	b := openDriver(t, redis.Config{Addrs: []string{srv.Addr()}, Validity: minValidity})
	r, _ := ask("k", 1, 0)
	h := grant(t, b, r)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Release(ctx, h); err == nil {
		t.Fatal("a Release with a ctx that has ended succeeded")
	}
	for end := time.Now().Add(minValidity + promptly); ; time.Sleep(10 * time.Millisecond) {
		if n, _ := srv.Do(t, "EXISTS", lockKey("lockstep", "k")).AsInt64(); n == 0 {
			break
		} else if time.Now().After(end) {
			t.Fatal("it is still renewed")
		}
	}
}

// LOSS-003 after an Extend: the server goes on watching.
func TestExtendedIsTracked(t *testing.T) {
	srv := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
	lease := mustLock(t, l, "k", locker.WithTTL(time.Minute))
	if err := lease.Extend(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	srv.Do(t, "DEL", lockKey("lockstep", "k"))
	waitDone(t, lease, locker.ReasonLost)
}

// FLT-008: a release during a disconnect is found at the reconnect, however patient the waiter.
func TestReconnectWakes(t *testing.T) {
	srv := redistest.Start(t)
	proxy := redistest.NewProxy(t, srv.Addr())
	holder := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
	l := open(t, redis.Config{Addrs: []string{proxy.Addr()}}, locker.Config{})
	lease := mustLock(t, holder, "k", locker.WithTTL(time.Hour))
	got := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*promptly)
		defer cancel()
		_, err := l.Lock(ctx, "k", locker.WithTTL(time.Minute), locker.WithRetry(never))
		got <- err
	}()
	time.Sleep(settle)
	proxy.Cut()
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy.Heal()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// A slot that is being migrated: a hand-off to another process, which frees the key, succeeds.
func TestHandOffInMigratingSlot(t *testing.T) {
	cluster := redistest.StartCluster(t)
	b := openDriver(t, redis.Config{Addrs: cluster.Addrs()})
	lock := lockKey("lockstep", "k")
	r, _ := ask("k", 1, time.Hour)
	var h driver.Holder
	migrate(t, cluster, lock, func() {
		h = grant(t, b, r)
		cluster.NodeOf(t, lock).Do(t, "ZADD", "token:lockstep:{:k}:queue", strconv.Itoa(math.MaxInt32), "another process")
	})
	var g driver.Handed
	var err error
	// The first hand-offs may stay in this process; its turn ends with its time.
	for owner, n := h.Owner, uint64(2); n < 10_000; n++ {
		next, _ := ask("k", n, time.Hour)
		h.Owner = owner
		if g, err = handOffOf(t, b).HandOff(t.Context(), h, next); err != nil {
			break
		}
		h.Token, owner = g.Token, g.Owner
	}
	if !errors.Is(err, driver.ErrYielded) {
		t.Errorf("handed off to another process: %+v, %v; want ErrYielded", g, err)
	}
}

// There a take-back cannot note that a late attempt is to be refused, which is an error, but it
// frees the key.
func TestTakeBackInMigratingSlot(t *testing.T) {
	cluster := redistest.StartCluster(t)
	b := openDriver(t, redis.Config{Addrs: cluster.Addrs()})
	lock := lockKey("lockstep", "k")
	node := migrate(t, cluster, lock, func() {
		r, _ := ask("k", 1, time.Hour)
		grant(t, b, r)
	})
	r, _ := ask("k", 1, time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), promptly)
	defer cancel()
	if err := b.Release(ctx, driver.Holder{Key: "k", Owner: r.Owner}); !errors.Is(err, driver.ErrUnavailable) {
		t.Errorf("Release without a token: %v; want ErrUnavailable, so that it is repeated", err)
	}
	slot, _ := node.Do(t, "CLUSTER", "KEYSLOT", lock).AsInt64()
	left, err := node.Do(t, "CLUSTER", "GETKEYSINSLOT", strconv.FormatInt(slot, 10), "10").AsStrSlice()
	if err != nil || len(left) != 1 || left[0] == lock {
		t.Errorf("%q, %v are left; want the counter only", left, err)
	}
}

// migrate begins to move the slot of lock away from its node, which it returns, after before.
func migrate(t *testing.T, cluster *redistest.ClusterServer, lock string, before func()) *redistest.Server {
	t.Helper()
	before()
	node := cluster.NodeOf(t, lock)
	var target *redistest.Server
	for _, n := range cluster.Nodes {
		if n.Addr() != node.Addr() {
			target = n
		}
	}
	slot, err := node.Do(t, "CLUSTER", "KEYSLOT", lock).AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	id, err := target.Do(t, "CLUSTER", "MYID").ToString()
	if err != nil {
		t.Fatal(err)
	}
	node.Do(t, "CLUSTER", "SETSLOT", strconv.FormatInt(slot, 10), "MIGRATING", id)
	return node
}

// A session is renewed ever more rarely by a server that refuses, and in time once it does not.
func TestRefusedRenewals(t *testing.T) {
	srv := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}, Validity: 10 * time.Second}, locker.Config{})
	lease := mustLock(t, l, "k")
	srv.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	before := srv.CommandStats(t)
	select {
	case <-lease.Done():
		t.Fatal("it ended before its validity")
	case <-time.After(8 * time.Second):
	}
	stats := srv.CommandStats(t).Since(before)
	// The first attempt is after 3.3 s; at each 50 ms it would be some ninety.
	if n := stats["evalsha"] + stats["eval"]; n < 2 || n > 40 {
		t.Errorf("%d attempts", n)
	}
	srv.Do(t, "CONFIG", "SET", "min-replicas-to-write", "0")
	select {
	case <-lease.Done():
		t.Errorf("it was not renewed: %v", lease.Err())
	case <-time.After(4 * time.Second):
	}
}

// A session whose grant took most of its validity is renewed at once.
func TestLateGrantIsRenewed(t *testing.T) {
	srv := redistest.Start(t)
	proxy := redistest.NewProxy(t, srv.Addr())
	b := openDriver(t, redis.Config{Addrs: []string{proxy.Addr()}, Validity: 3 * time.Second, Timeout: 3 * time.Second})
	first, _ := ask("k", 1, 0)
	if err := b.Release(t.Context(), grant(t, b, first)); err != nil { // the connections are there
		t.Fatal(err)
	}
	proxy.Latency(0, 2200*time.Millisecond)
	r, hears := ask("k", 2, 0)
	h := grant(t, b, r)
	proxy.Latency(0, 0)
	select {
	case err := <-hears:
		t.Errorf("lost: %v", err)
	case <-time.After(3 * time.Second):
	}
	if err := b.Release(t.Context(), h); err != nil {
		t.Errorf("Release: %v", err)
	}
}
