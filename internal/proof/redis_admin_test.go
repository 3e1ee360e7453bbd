package proof

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func listed(t *testing.T, l *locker.Locker, prefix string) map[string]locker.Info {
	t.Helper()
	all := map[string]locker.Info{}
	for info, err := range l.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all[info.Key] = info
	}
	return all
}

// Old and new clients beside each other: the value of an older one is the owner alone, with no
// word of who that is.
func TestRedisOlderValue(t *testing.T) {
	srv := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
	owner := strings.Repeat("ab", 16) + "-17"
	for _, kind := range []string{"lease", "session"} {
		srv.Do(t, "SET", lockKey("lockstep", kind), kind+":"+owner, "PX", "60000")
		srv.Do(t, "SET", "token:lockstep:{:"+kind+"}", "1700000000000000", "PX", "60000")
		_, err := l.TryLock(t.Context(), kind)
		if !errors.Is(err, locker.ErrHeld) {
			t.Errorf("a %s of an older version: %v", kind, err)
		}
		info, held, err := l.Inspect(t.Context(), kind)
		if err != nil || !held || info.Owner != owner || info.Session != (kind == "session") || info.Identity != "" || info.Note != "" ||
			info.Token != 1700000000000000 || info.Since.UTC().Year() != 2023 {
			t.Errorf("%+v, %v, %v", info, held, err)
		}
		if all := listed(t, l, kind); len(all) != 1 || all[kind].Owner != owner {
			t.Errorf("%+v", all)
		}
		if err := l.Break(t.Context(), kind, info.Token); err != nil {
			t.Error(err)
		}
		lease, err := l.TryLock(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		if err := lease.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// What others put where the locks are is left out of a List, whatever it is.
func TestRedisListAmongForeignKeys(t *testing.T) {
	srv := redistest.Start(t)
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{Identity: "me"})
	lease, err := l.Lock(t.Context(), "k", locker.WithNote("mine"))
	if err != nil {
		t.Fatal(err)
	}
	const p = "lockstep:0:"
	for _, args := range [][]string{
		{"SET", p + "{:by hand}", "maintenance"},
		{"SET", p + "{:large}", strings.Repeat("x", 1<<20)},
		{"SET", p + "{:nearly}", "lease:" + strings.Repeat("zz", 16) + "-1;"},
		{"SET", p + "{:empty}", ""},
		{"RPUSH", p + "{:list}", "a"},
		{"HSET", p + "{:hash}", "a", "b"},
		{"SET", p + "{:" + strings.Repeat("k", 2000) + "}", "x"},
		{"SET", p + "{:}", "x"},
		{"SET", p + "{:open", "x"},
		{"SET", p + "}", "x"},
		{"SET", "lockstep:1:{:k}", "x"},
		{"SET", "lockstep2:0:{:k}", "x"},
		{"SET", "xlockstep:0:{:k}", "x"},
		{"SET", p + "{:counterless}", "lease:" + strings.Repeat("00", 16) + "-1;2:meanote", "PX", "60000"},
		{"SET", "token:lockstep:{:odd counter}", "many"},
		{"SET", p + "{:odd counter}", "lease:" + strings.Repeat("00", 16) + "-1;"},
	} {
		srv.Do(t, args...)
	}
	all := listed(t, l, "")
	if len(all) != 2 || all["k"].Note != "mine" || all["k"].Token != lease.Token() || all["counterless"].Identity != "me" || all["counterless"].Note != "anote" {
		t.Errorf("%+v", all)
	}
	if info, held, err := l.Inspect(t.Context(), "empty"); held || err == nil || !strings.Contains(err.Error(), "holds a string that is empty") {
		t.Errorf("Inspect of an empty string: %+v, %t, %v; want an error, as it is not free", info, held, err)
	}
	for key, what := range map[string]string{"by hand": "string", "large": "string", "list": "list"} {
		if err := l.Break(t.Context(), key, 1); !errors.Is(err, locker.ErrLost) || errors.Is(err, locker.ErrUnavailable) || !strings.Contains(err.Error(), "holds a "+what) {
			t.Errorf("Break of %q: %v; want that it is lost, and that a %s stands there", key, err, what)
		}
	}
	reply := srv.Do(t, "GET", p+"{:by hand}")
	if got, _ := reply.ToString(); got != "maintenance" {
		t.Errorf("what stood there is %q", got)
	}
}

// Locks come and go while they are listed, on a Cluster: what lasts is told, and from every master.
func TestRedisListWhileLocksChange(t *testing.T) {
	cluster := redistest.Cluster(t)
	c := redis.Config{Addrs: cluster.Addrs(), Prefix: fmt.Sprintf("list-%x", processID)}
	l, other := open(t, c, locker.Config{}), open(t, c, locker.Config{})
	const lasting = 300
	for i := range lasting {
		if _, err := l.TryLock(t.Context(), fmt.Sprint("lasts/", i), locker.WithTTL(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				lease, err := other.TryLock(ctx, fmt.Sprint("lasts/short/", n, "/", i), locker.WithTTL(5*time.Millisecond))
				if err == nil && i%2 == 0 {
					_ = lease.Unlock(context.Background())
				}
			}
		})
	}
	for range 5 {
		all := listed(t, other, "lasts/")
		for i := range lasting {
			if info, ok := all[fmt.Sprint("lasts/", i)]; !ok || info.Token == 0 || info.Remaining <= 0 {
				t.Fatalf("of %d listed, %d is %v, %+v", len(all), i, ok, info)
			}
		}
	}
	stop()
	wg.Wait()
}

// ADM-002: hand-offs between holders with one note stay within the process; where the notes
// differ, the server is told.
func TestRedisHandOffsOfNotes(t *testing.T) {
	srv := redistest.Start(t)
	c := redis.Config{Addrs: []string{srv.Addr()}}
	l, other := open(t, c, locker.Config{}), open(t, c, locker.Config{})
	seen := func(notes []string) {
		t.Helper()
		ctx := t.Context()
		lease, err := l.Lock(ctx, "k", minute, locker.WithNote("first"))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, note := range notes {
			wg.Go(func() {
				lease, err := l.Lock(ctx, "k", minute, locker.WithNote(note))
				if err != nil {
					t.Error(err)
					return
				}
				for name, from := range map[string]*locker.Locker{"here": l, "elsewhere": other} {
					if info, held, err := from.Inspect(ctx, "k"); err != nil || !held || info.Note != note {
						t.Errorf("%s: %v, %q instead of %q, %v", name, held, info.Note, note, err)
					}
				}
				if info, _, _ := l.Inspect(ctx, "k"); info.Token != lease.Token() {
					t.Errorf("token %d instead of %d", info.Token, lease.Token())
				}
				if err := lease.Unlock(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(20 * time.Millisecond) // they queue
		if err := lease.Unlock(ctx); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
	seen([]string{"a", "b", "", "a", "a", "", "b", "b", "c", "c"})
	seen(slices.Repeat([]string{"same"}, 10))

	// As many as there are, without the server, if nobody's note differs.
	for _, same := range []bool{true, false} {
		note := func(i int) locker.Option {
			if same {
				i = 0
			}
			return locker.WithNote(fmt.Sprint("note ", i))
		}
		before := srv.CommandStats(t)
		const n = 64
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				for range 10 {
					lease, err := l.Lock(t.Context(), "busy", minute, note(i))
					if err == nil {
						err = lease.Unlock(t.Context())
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		since := srv.CommandStats(t).Since(before)
		took := since["evalsha"] + since["eval"]
		t.Logf("same note %v: %d scripts for %d holds", same, took, 10*n)
		if same && took > 5*n {
			t.Errorf("%d scripts for %d holds with one note", took, 10*n)
		}
	}
}

// ADM-006 with the reason: also in processes that hear of nothing, at their next call.
func TestRedisBreakReasons(t *testing.T) {
	srv := redistest.Start(t)
	for _, tracking := range []string{"auto", "off"} {
		c := redis.Config{Addrs: []string{srv.Addr()}, Validity: time.Second, Prefix: "lockstep-" + tracking}
		if tracking == "off" {
			c.Tracking = redis.TrackingOff
		}
		l, other := open(t, c, locker.Config{}), open(t, c, locker.Config{})
		for name, opts := range map[string][]locker.Option{"lease": {minute}, "session": nil, "kept": {locker.WithTTL(time.Second), locker.WithKeepAlive(0)}} {
			lease, err := l.Lock(t.Context(), name, opts...)
			if err != nil {
				t.Fatal(err)
			}
			info, _, err := other.Inspect(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Break(t.Context(), name, info.Token); err != nil {
				t.Fatal(err)
			}
			next, err := other.TryLock(t.Context(), name)
			if err != nil {
				t.Errorf("%s, tracking %s: after a break: %v", name, tracking, err)
			}
			if name == "lease" && tracking == "off" {
				_ = lease.Unlock(t.Context()) // the first that it hears
			} else {
				select {
				case <-lease.Done():
				case <-time.After(5 * promptly):
					t.Errorf("%s, tracking %s: nobody told it", name, tracking)
				}
				var e *locker.Error
				if err := lease.Err(); !errors.As(err, &e) || e.Reason != locker.ReasonBroken {
					t.Errorf("%s, tracking %s: %v", name, tracking, err)
				}
			}
			if err := next.Unlock(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

// A break and an Unlock, or an Extend, at the same time: one of them is first, and the other hears so.
func TestRedisBreakDuringRelease(t *testing.T) {
	srv := redistest.Start(t)
	c := redis.Config{Addrs: []string{srv.Addr()}}
	l, other := open(t, c, locker.Config{}), open(t, c, locker.Config{})
	broke := 0
	for i := range 200 {
		lease, err := l.TryLock(t.Context(), "k", minute)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		errs := make(chan error, 1)
		go func() { errs <- other.Break(t.Context(), "k", lease.Token()) }()
		if i%2 == 0 {
			_ = lease.Extend(t.Context(), time.Minute)
		}
		unlock := lease.Unlock(t.Context())
		brk := <-errs
		if brk == nil {
			broke++
		}
		if (unlock == nil) == (brk == nil) || unlock != nil && !errors.Is(unlock, locker.ErrLost) || brk != nil && !errors.Is(brk, locker.ErrLost) {
			t.Fatalf("round %d: Unlock: %v; Break: %v", i, unlock, brk)
		}
	}
	t.Logf("%d of 200 were broken first", broke)
}

// Without the right to SCAN a List says so, and nothing else suffers.
func TestRedisListWithoutScan(t *testing.T) {
	srv := redistest.Start(t)
	r := readRights(t)
	allow(t, []*redistest.Server{srv}, slices.DeleteFunc(slices.Clone(r.data), func(s string) bool { return s == "+scan" || s == "+zcard" }))
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}, Username: "limited", Password: locker.Secret("pass")}, locker.Config{Identity: "me"})
	lease, err := l.Lock(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range l.List(t.Context(), "") {
		if !errors.Is(err, locker.ErrUnavailable) || !strings.Contains(err.Error(), "scan") {
			t.Error(err)
		}
	}
	info, _, err := l.Inspect(t.Context(), "k")
	if err != nil || info.Identity != "me" || info.Waiters != -1 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := l.Break(t.Context(), "k", info.Token); err != nil {
		t.Error(err)
	}
	var e *locker.Error
	if errors.As(lease.Err(), &e); e == nil || e.Reason != locker.ReasonBroken {
		t.Error(lease.Err())
	}
}

// ADM-005: however long a hold lasts, its token is told, and it can be broken. What is set by hand
// here is what an hour leaves of the counter's life.
func TestRedisCounterLastsAsTheHold(t *testing.T) {
	srv := redistest.Start(t)
	c := redis.Config{Addrs: []string{srv.Addr()}, Validity: time.Second}
	l, other := open(t, c, locker.Config{}), open(t, c, locker.Config{})
	life := func(key string) time.Duration {
		t.Helper()
		ms, err := srv.Do(t, "PTTL", "token:lockstep:{:"+key+"}").AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(ms) * time.Millisecond
	}
	const long = 3 * time.Hour
	for name, opts := range map[string][]locker.Option{
		"session": nil,
		"kept":    {locker.WithTTL(time.Second), locker.WithKeepAlive(0)},
		"lease":   {locker.WithTTL(long)},
	} {
		lease := mustLock(t, l, name, opts...)
		if got := life(name); name == "lease" && got <= long {
			t.Errorf("the counter of a lease of %s lasts for %s", long, got)
		}
		srv.Do(t, "PEXPIRE", "token:lockstep:{:"+name+"}", "60000")
		switch name {
		case "lease":
			if err := lease.Extend(t.Context(), long); err != nil {
				t.Fatal(err)
			}
			if got := life(name); got <= long {
				t.Errorf("after an Extend by %s the counter lasts for %s", long, got)
			}
		default:
			for end := time.Now().Add(5 * promptly); life(name) <= time.Hour-time.Minute; time.Sleep(settle) {
				if time.Now().After(end) {
					t.Fatalf("%s: its renewals leave the counter %s", name, life(name))
				}
			}
		}
		// One that gives up does not take it from the holder.
		r, _ := ask(name, 1, time.Second)
		before := life(name)
		if err := openDriver(t, c).Release(t.Context(), driver.Holder{Key: name, Owner: r.Owner}); !errors.Is(err, driver.ErrLost) {
			t.Errorf("%s: taken back: %v", name, err)
		}
		if got := life(name); got < before-time.Minute {
			t.Errorf("%s: one that gave up leaves the counter %s of %s", name, got, before)
		}
		info, held, err := other.Inspect(t.Context(), name)
		if err != nil || !held || info.Token != lease.Token() || info.Since.IsZero() {
			t.Errorf("%s: %+v, %v, %v; want the token %d", name, info, held, err, lease.Token())
		}
		if err := other.Break(t.Context(), name, lease.Token()); err != nil {
			t.Errorf("%s: Break: %v", name, err)
		}
	}

	// Within a millisecond of a shorter one, where the counter just counts up.
	b := openDriver(t, c)
	for i := range uint64(200) {
		short, _ := ask("again", 2*i+1, time.Second)
		if err := b.Release(t.Context(), grant(t, b, short)); err != nil {
			t.Fatal(err)
		}
		next, _ := ask("again", 2*i+2, long)
		h := grant(t, b, next)
		if got := life("again"); got <= long {
			t.Fatalf("the counter lasts for %s", got)
		}
		if err := b.Release(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}

	// Where the counter was deleted, its own process can still break it.
	for name, opts := range map[string][]locker.Option{"no counter": {minute}, "no counter of a session": nil} {
		lease := mustLock(t, l, name, opts...)
		srv.Do(t, "DEL", "token:lockstep:{:"+name+"}")
		if err := l.Break(t.Context(), name, lease.Token()+1); !errors.Is(err, locker.ErrLost) {
			t.Errorf("%s: Break with another token: %v", name, err)
		}
		if err := l.Break(t.Context(), name, lease.Token()); err != nil {
			t.Errorf("%s: Break: %v", name, err)
		}
	}
}

// A slot that is being migrated: its locks are told as before. What is on its way is left
// out of a List, which goes on.
func TestRedisInspectInMigratingSlot(t *testing.T) {
	cluster := redistest.StartCluster(t)
	l := open(t, redis.Config{Addrs: cluster.Addrs()}, locker.Config{})
	var lease *locker.Lease
	node := migrate(t, cluster, lockKey("lockstep", "k"), func() {
		lease = mustLock(t, l, "k", minute)
		mustLock(t, l, "elsewhere", minute)
	})
	info, held, err := l.Inspect(t.Context(), "k")
	if err != nil || !held || info.Token != lease.Token() {
		t.Errorf("Inspect: %+v, %v, %v", info, held, err)
	}
	if all := listed(t, l, ""); len(all) != 2 || all["k"].Token != lease.Token() {
		t.Errorf("List: %+v", all)
	}
	counter := "token:lockstep:{:k}"
	node.Do(t, "DEL", counter) // as if it had been moved
	if all := listed(t, l, ""); len(all) != 1 || all["elsewhere"].Token == 0 {
		t.Errorf("List while the lock moves: %+v", all)
	}
}
