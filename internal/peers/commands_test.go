package peers

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
)

// TestCommands: an uncontended call is one command, and so one round trip.
func TestCommands(t *testing.T) {
	l, sent := watched(t, redis.Config{})
	ctx := t.Context()
	lock := func(opt locker.Option) *locker.Lease {
		t.Helper()
		lease, err := l.Lock(ctx, "orders:42", opt)
		if err != nil {
			t.Fatal(err)
		}
		return lease
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	once := []string{"evalsha"}
	expect := func(what string, want []string) {
		t.Helper()
		if got := without(sent(), "ping"); !slices.Equal(got, want) {
			t.Errorf("%s sent %v; want %v", what, got, want)
		}
	}

	// The first of each script may have to make it known.
	lease := lock(locker.WithTTL(time.Minute))
	must(lease.Extend(ctx, time.Minute))
	must(lease.Unlock(ctx))
	sent()

	lease = lock(locker.WithTTL(time.Minute))
	expect("Lock of a lease", once)
	must(lease.Extend(ctx, time.Minute))
	expect("Extend", once)
	must(lease.Unlock(ctx))
	expect("Unlock", once)
	if err := lease.Unlock(ctx); err == nil {
		t.Error("a second Unlock succeeded")
	}
	expect("a second Unlock", nil)

	lease = lock(locker.WithSession())
	expect("Lock of a session", once)
	must(lease.Unlock(ctx))
	expect("Unlock of a session", once)
}

// TestServerCalls: what the scripts of an uncontended pair have the server do. Four calls take a lock
// and mint its token, two give it back.
func TestServerCalls(t *testing.T) {
	const keys, want = 20, 6
	srv := redistest.Start(t)
	l, err := redis.New(t.Context(), redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(context.Background()) })
	pairs := func() {
		for i := range keys {
			lease, err := l.Lock(t.Context(), fmt.Sprint("orders:", i), locker.WithTTL(time.Minute))
			if err == nil {
				err = lease.Unlock(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	pairs() // the first on a key makes its counter
	before := srv.CommandStats(t)
	pairs()
	stats := srv.CommandStats(t).Since(before)
	if stats["pexpiretime"] == 0 {
		t.Skip("before Redis 7, asking for the time takes another call")
	}
	if calls(stats) != want*keys {
		t.Errorf("%d pairs took %d calls; want %d each: %v", keys, calls(stats), want, stats)
	}
}

// TestPassingCommands: a key that many of one process want costs the server a few scripts,
// however many they are. (Two Locks, of which the second has to look again once it stands in
// line; one to set tokens aside; the last Unlock; and the place in line, which is given up.)
func TestPassingCommands(t *testing.T) {
	const many, most = 40, 8
	// On a machine that stands still the others may come before the first one is in line, and each
	// turn that ends by its time is a command more.
	var got []string
	for range 3 {
		if got = passed(t, many); len(got) <= most {
			return
		}
	}
	t.Errorf("%d holds took %d commands: %v", many+1, len(got), got)
}

// passed is what so many holds of one key cost that are handed off within a process.
func passed(t *testing.T, many int) (commands []string) {
	t.Helper()
	l, sent := watched(t, redis.Config{})
	lease, err := l.Lock(t.Context(), "k", locker.WithTTL(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan *locker.Lease)
	for i := range many {
		if i == 1 {
			time.Sleep(50 * time.Millisecond) // the others find the first one in line
		}
		go func() {
			lease, err := l.Lock(t.Context(), "k", locker.WithTTL(time.Minute))
			if err != nil {
				t.Error(err)
			}
			next <- lease
		}()
	}
	time.Sleep(100 * time.Millisecond) // nothing outside tells when the last one stands in line
	for range many {
		if err := lease.Unlock(t.Context()); err != nil {
			t.Fatal(err)
		}
		token := lease.Token()
		if lease = <-next; lease.Token() <= token {
			t.Errorf("token %d after %d", lease.Token(), token)
		}
	}
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	return without(sent(), "ping", "eval") // eval: the first of each script
}

// TestIdleCommands: a session costs its renewals and nothing else, a lease nothing. What the
// client sends once a second to see whether the connection lives is the connection's, and not
// counted.
func TestIdleCommands(t *testing.T) {
	const (
		validity = 1500 * time.Millisecond
		interval = validity / 3
		watching = 5 * interval
	)
	l, sent := watched(t, redis.Config{Validity: validity})
	lease, err := l.Lock(t.Context(), "lease", locker.WithTTL(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	sent()
	time.Sleep(watching)
	if got := without(sent(), "ping"); len(got) > 0 {
		t.Errorf("an idle lease sent %v within %s; want nothing", got, watching)
	}
	if err := lease.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}

	if _, err := l.Lock(t.Context(), "session", locker.WithSession()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * interval) // the first renewal may have to make the script known
	sent()
	began := time.Now()
	time.Sleep(watching)
	got := without(sent(), "ping")
	most := int(time.Since(began)/interval) + 1
	if others := without(got, "evalsha"); len(others) > 0 || len(got) > most || len(got) == 0 {
		t.Errorf("an idle session sent %v within %s; want 1 to %d evalsha", got, watching, most)
	}
}

func without(commands []string, names ...string) []string {
	return slices.DeleteFunc(commands, func(c string) bool { return slices.Contains(names, c) })
}

// watched opens a Locker on a Redis of its own. sent returns the commands that it has sent
// since the last call, without those that its scripts call.
func watched(t *testing.T, c redis.Config) (l *locker.Locker, sent func() []string) {
	t.Helper()
	srv := redistest.Start(t)
	c.Addrs, c.ClientName = []string{srv.Addr()}, "watched"
	l, err := redis.New(t.Context(), c, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(context.Background()) })

	conn, err := net.Dial("tcp", srv.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	lines.Scan() // +OK
	n := 0
	return l, func() (commands []string) {
		t.Helper()
		clients, err := srv.Do(t, "CLIENT", "LIST").ToString()
		if err != nil {
			t.Fatal(err)
		}
		addrs := addresses(clients, c.ClientName)
		n++
		mark := fmt.Sprintf("that was all %d", n)
		srv.Do(t, "ECHO", mark)
		for lines.Scan() {
			// +1700000000.123456 [0 127.0.0.1:50000] "evalsha" "…"
			line := lines.Text()
			if strings.Contains(line, mark) {
				return commands
			}
			_, rest, _ := strings.Cut(line, "[0 ")
			from, rest, _ := strings.Cut(rest, "] \"")
			command, _, _ := strings.Cut(rest, `"`)
			if slices.Contains(addrs, from) {
				commands = append(commands, strings.ToLower(command))
			}
		}
		t.Fatalf("MONITOR ended: %v", lines.Err())
		return nil
	}
}

// addresses finds a client's connections in CLIENT LIST.
func addresses(list, name string) []string {
	var addrs []string
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if !slices.Contains(fields, "name="+name) {
			continue
		}
		for _, f := range fields {
			if addr, ok := strings.CutPrefix(f, "addr="); ok {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}
