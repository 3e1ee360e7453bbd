package proof

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// What AcquireAll owes where the suite has no way to bring it about.

func togetherOf(t *testing.T, b driver.Backend) driver.Together {
	t.Helper()
	all, ok := driver.As[driver.Together](b)
	if !ok {
		t.Fatal("no Together")
	}
	return all
}

// askAll asks for keys, in their order, by owners from seq on.
func askAll(keys []string, seq uint64, ttl time.Duration) (rs []driver.Request) {
	for i, key := range slices.Sorted(slices.Values(keys)) {
		r, _ := ask(key, seq+uint64(i), ttl)
		rs = append(rs, r)
	}
	return rs
}

func isFree(t *testing.T, b driver.Backend, key string) bool {
	t.Helper()
	in, ok := driver.As[driver.Inspector](b)
	if !ok {
		t.Fatal("no Inspector")
	}
	_, held, err := in.Inspect(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return !held
}

// An attempt that comes after one of its owners was taken back fails as a whole, and so does one that
// meets a key that somebody holds; what its owners held before stays.
func lateTogether(t *testing.T, b driver.Backend) {
	all := togetherOf(t, b)
	for _, ttl := range []time.Duration{time.Hour, 0} {
		for late := range 3 {
			name := fmt.Sprint(ttl, late)
			rs := askAll([]string{name + "x", name + "y", name + "z"}, uint64(10*late+1), ttl)
			gone := driver.Holder{Key: rs[late].Key, Owner: rs[late].Owner, Session: ttl == 0}
			if err := b.Release(t.Context(), gone); !errors.Is(err, driver.ErrLost) {
				t.Fatalf("a take-back of what has not come: %v", err)
			}
			if _, _, err := all.AcquireAll(t.Context(), rs); !errors.Is(err, driver.ErrLost) {
				t.Errorf("%s: after one was taken back: %v; want ErrLost", name, err)
			}
			for _, r := range rs {
				if !isFree(t, b, r.Key) {
					t.Errorf("%s: %s is held", name, r.Key)
				}
			}
		}
		rs := askAll([]string{"x" + ttl.String(), "y" + ttl.String()}, 100, ttl)
		grant(t, b, rs[0])
		gone, _ := ask(rs[1].Key, 105, ttl)
		if err := b.Release(t.Context(), driver.Holder{Key: gone.Key, Owner: gone.Owner, Session: ttl == 0}); !errors.Is(err, driver.ErrLost) {
			t.Fatalf("a take-back of what has not come: %v", err)
		}
		if _, _, err := all.AcquireAll(t.Context(), []driver.Request{rs[0], gone}); !errors.Is(err, driver.ErrLost) {
			t.Errorf("after one was taken back: %v; want ErrLost", err)
		}
		other, _ := ask(rs[1].Key, 110, ttl)
		held := grant(t, b, other)
		if _, at, err := all.AcquireAll(t.Context(), rs); !errors.Is(err, driver.ErrHeld) || at != 1 {
			t.Errorf("one is held: %v, of number %d", err, at)
		}
		if isFree(t, b, rs[0].Key) {
			t.Error("what an owner held before is free")
		}
		if err := b.Release(t.Context(), held); err != nil {
			t.Fatal(err)
		}
		if _, _, err := all.AcquireAll(t.Context(), rs); err != nil {
			t.Errorf("one of two is his own: %v", err)
		}
	}
}

func TestTogetherLateRedis(t *testing.T) {
	srv := redistest.Start(t)
	lateTogether(t, openDriver(t, redis.Config{Addrs: []string{srv.Addr()}, Validity: 3 * time.Second}))
}

func TestTogetherLatePostgres(t *testing.T) {
	w := newPGWorld(t)
	lateTogether(t, openPostgresDriver(t, w))
}

// What fails after some were taken is undone, and the error names what stands there.
func TestTogetherUndone(t *testing.T) {
	srv := redistest.Start(t)
	b := openDriver(t, redis.Config{Addrs: []string{srv.Addr()}})
	for what, spoil := range map[string]string{
		"a list in the place of a lock":    lockKey("lockstep", "y"),
		"a list in the place of a counter": "token:lockstep:{:y}",
	} {
		srv.Do(t, "RPUSH", spoil, "a")
		for i, ttl := range []time.Duration{time.Hour, 0} {
			rs := askAll([]string{"x", "y", "z"}, uint64(10*i+1), ttl)
			_, at, err := togetherOf(t, b).AcquireAll(t.Context(), rs)
			if !errors.Is(err, driver.ErrRefused) || at != 1 || !strings.Contains(err.Error(), spoil) {
				t.Errorf("%s: %v, of number %d", what, err, at)
			}
			for _, key := range []string{"x", "z"} {
				if !isFree(t, b, key) {
					t.Errorf("%s: %s is held", what, key)
				}
			}
		}
		srv.Do(t, "DEL", spoil)
	}
}

// The server tracks the locks for their holder, and not the counters, which change with each grant.
func TestTogetherIsTracked(t *testing.T) {
	srv := redistest.Start(t)
	b := openDriver(t, redis.Config{Addrs: []string{srv.Addr()}})
	rs := askAll([]string{"a", "b", "c", "d"}, 1, time.Hour)
	for range 2 { // the first time, there is no counter
		grants, _, err := togetherOf(t, b).AcquireAll(t.Context(), rs)
		if err != nil {
			t.Fatal(err)
		}
		if n := srv.Info(t, "stats")["tracking_total_keys"]; n != "4" {
			t.Errorf("the server tracks %s keys, not 4", n)
		}
		for i, r := range rs {
			if err := b.Release(t.Context(), driver.Holder{Key: r.Key, Owner: r.Owner, Token: grants[i].Token}); err != nil {
				t.Fatal(err)
			}
			rs[i].Owner.Seq += 10
		}
	}
}

// Keys of several slots, and too many keys, are refused before anything is sent.
func TestNotTogether(t *testing.T) {
	cluster := redistest.Cluster(t)
	b := openDriver(t, redis.Config{Addrs: cluster.Addrs(), Prefix: fmt.Sprintf("apart-%x", processID)})
	all := togetherOf(t, b)
	if _, _, err := all.AcquireAll(t.Context(), askAll([]string{"x", "y"}, 1, time.Minute)); !errors.Is(err, driver.ErrNotTogether) {
		t.Errorf("two slots: %v", err)
	}
	for _, n := range []int{2, 128, 129} {
		var keys []string
		for i := range n {
			keys = append(keys, fmt.Sprintf("%d}%d", n, i))
		}
		_, _, err := all.AcquireAll(t.Context(), askAll(keys, uint64(1000*n), time.Minute))
		if n <= 128 && err != nil || n > 128 && !errors.Is(err, driver.ErrNotTogether) {
			t.Errorf("%d keys of one slot: %v", n, err)
		}
	}
}

// A key that is taken between the look at all of them and the step is a refusal, and nothing stays.
func TestTogetherTakenMeanwhile(t *testing.T) {
	w := newPGWorld(t)
	b := openPostgresDriver(t, w)
	rs := askAll([]string{"x", "y"}, 1, time.Hour)
	h := grant(t, b, rs[1])
	if err := b.Release(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	tx, err := w.srv.Admin(t, w.db).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "UPDATE lockstep.locks SET owner = '\\x00', until = clock_timestamp() + interval '1 h' WHERE key = 'y'"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		rs[0].Owner.Seq, rs[1].Owner.Seq = 11, 12
		if _, at, err := togetherOf(t, b).AcquireAll(t.Context(), rs); !errors.Is(err, driver.ErrHeld) || at != 1 {
			t.Errorf("%v, of number %d; want ErrHeld of the second one", err, at)
		}
	}()
	for end := time.Now().Add(promptly); w.number("SELECT count(*)::int FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())") == 0; {
		if time.Now().After(end) {
			t.Fatal("the step does not wait for the row")
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	if !isFree(t, b, "x") {
		t.Error("what came before the key that is held stays")
	}
}

func openPostgresDriver(t *testing.T, w pgWorld) driver.Backend {
	t.Helper()
	b := openPostgres(t, postgresConfig(w.srv.Addr(), w.db))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), promptly)
		defer cancel()
		_ = b.Close(ctx)
	})
	return b
}
