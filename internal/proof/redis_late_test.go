package proof

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// What a client wrote on a connection that broke can reach the server after what it sent on
// the next one: its kernel retransmits. lateLine is such a line.

// lateLine is the connections of one client. Between hold and brk what it writes stays on the
// way; deliver lets it arrive.
type lateLine struct {
	mu      sync.Mutex
	holding bool
	conns   []*lateConn
}

type lateConn struct {
	net.Conn
	line   *lateLine
	onWay  []byte
	broken bool
	held   chan struct{} // closed when something is on the way
}

func (l *lateLine) option(opt *rueidis.ClientOption) {
	opt.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		c := &lateConn{Conn: conn, line: l, held: make(chan struct{})}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, c)
		return c, nil
	}
}

func (c *lateConn) Write(b []byte) (int, error) {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	switch {
	case c.broken:
		return 0, net.ErrClosed
	case !c.line.holding:
		return c.Conn.Write(b)
	case c.onWay == nil:
		close(c.held)
	}
	c.onWay = append(c.onWay, b...)
	return len(b), nil
}

// Close is the client's; the server hears of it only after what is on the way.
func (c *lateConn) Close() error {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	if c.broken {
		return nil
	}
	return c.Conn.Close()
}

// hold keeps on the way what is written from now on, and returns the connection that is in use.
func (l *lateLine) hold() *lateConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding = true
	return l.conns[len(l.conns)-1]
}

// brk breaks c for its client, who may connect again.
func (l *lateLine) brk(t *testing.T, c *lateConn) {
	t.Helper()
	select {
	case <-c.held:
	case <-time.After(promptly):
		t.Fatal("nothing was written on the connection that is to be late")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding, c.broken = false, true
	_ = c.SetReadDeadline(time.Now()) // whoever reads it hears that it broke
}

// deliver lets arrive what is on the way, and returns the server's replies.
func (c *lateConn) deliver(t *testing.T) string {
	t.Helper()
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	defer c.Conn.Close()
	// A request of our own behind them tells when they are carried out.
	const mark = "that was late"
	if err := c.SetDeadline(time.Now().Add(promptly)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Conn.Write(append(c.onWay, "ECHO \""+mark+"\"\r\n"...)); err != nil {
		t.Fatal(err)
	}
	var replies strings.Builder
	for r := bufio.NewReader(c.Conn); !strings.Contains(replies.String(), mark); {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", replies.String(), err)
		}
		replies.WriteString(line)
	}
	return replies.String()
}

// CTX-004, FLT-001: an attempt that was given up and taken back leaves no orphan, even if it
// reaches the server only after that.
func TestLateAcquire(t *testing.T) {
	srv := redistest.Start(t)
	for _, kind := range []struct {
		name string
		ttl  time.Duration
	}{{"lease", time.Hour}, {"session", 0}} {
		t.Run(kind.name, func(t *testing.T) {
			key := t.Name()
			var line lateLine
			c := redis.Config{Addrs: []string{srv.Addr()}, Validity: time.Hour, ClientOption: line.option}
			l := open(t, c, locker.Config{})
			var opts []locker.Option
			if kind.ttl > 0 {
				opts = append(opts, locker.WithTTL(kind.ttl))
			}
			// Both scripts are known to the server: what is late is one command.
			warm := mustLock(t, l, "warm"+key, opts...)
			if err := warm.Unlock(t.Context()); err != nil {
				t.Fatal(err)
			}

			old := line.hold()
			ctx, cancel := context.WithCancel(t.Context())
			failed := make(chan error, 1)
			go func() {
				_, err := l.TryLock(ctx, key, opts...)
				failed <- err
			}()
			line.brk(t, old)
			if err := <-failed; !errors.Is(err, locker.ErrUnavailable) {
				t.Fatalf("TryLock on a connection that broke: %v; want ErrUnavailable", err)
			}
			cancel()
			// The core takes it back in the background. Close waits for that.
			if err := l.Close(t.Context()); err != nil {
				t.Fatal(err)
			}

			replies := old.deliver(t)
			if strings.Count(replies, "\n") < 2 {
				t.Fatalf("nothing was late: the server replied %q", replies)
			}
			if _, err := srv.Do(t, "GET", lockKey("lockstep", key)).ToString(); !rueidis.IsRedisNil(err) {
				t.Errorf("the late attempt took the key for good (the server replied %q); nobody would ever unlock it", replies)
			}
			other := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
			first := mustLock(t, other, key, opts...)
			if err := first.Unlock(t.Context()); err != nil {
				t.Error(err)
			}
			if next := mustLock(t, other, key, opts...); next.Token() <= first.Token() {
				t.Errorf("token %d after %d", next.Token(), first.Token())
			}
		})
	}
}

// The same of an attempt that was repeated: the repeat is granted and released, and then the
// first copy arrives.
func TestLateCopy(t *testing.T) {
	srv := redistest.Start(t)
	for _, kind := range []struct {
		name string
		opts []locker.Option
	}{{"lease", []locker.Option{locker.WithTTL(time.Hour)}}, {"session", nil}} {
		t.Run(kind.name, func(t *testing.T) {
			key := t.Name()
			var line lateLine
			l := open(t, redis.Config{Addrs: []string{srv.Addr()}, Validity: time.Hour, ClientOption: line.option}, locker.Config{})
			if err := mustLock(t, l, "warm"+key, kind.opts...).Unlock(t.Context()); err != nil {
				t.Fatal(err)
			}
			old := line.hold()
			granted := make(chan *locker.Lease, 1)
			go func() {
				lease, err := l.Lock(t.Context(), key, kind.opts...)
				if err != nil {
					t.Error(err)
				}
				granted <- lease
			}()
			line.brk(t, old)
			if err := (<-granted).Unlock(t.Context()); err != nil {
				t.Error(err)
			}
			replies := old.deliver(t)
			if _, err := srv.Do(t, "GET", lockKey("lockstep", key)).ToString(); !rueidis.IsRedisNil(err) {
				t.Errorf("the late copy took the key for good (the server replied %q); nobody would ever unlock it", replies)
			}
			mustLock(t, l, key, kind.opts...)
		})
	}
}

// EXT-003: a request to extend that arrives late, after another one that was confirmed, makes
// the hold end earlier than that one said. The holder does not believe in it for longer.
func TestLateExtend(t *testing.T) {
	srv := redistest.Start(t)
	var line lateLine
	l := open(t, redis.Config{Addrs: []string{srv.Addr()}, ClientOption: line.option}, locker.Config{})
	other := open(t, redis.Config{Addrs: []string{srv.Addr()}}, locker.Config{})
	lease := mustLock(t, l, "k", locker.WithTTL(time.Minute))
	if err := lease.Extend(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}

	old := line.hold()
	failed := make(chan error, 1)
	go func() { failed <- lease.Extend(t.Context(), 400*time.Millisecond) }()
	line.brk(t, old)
	if err := <-failed; !errors.Is(err, locker.ErrUnavailable) {
		t.Fatalf("Extend on a connection that broke: %v; want ErrUnavailable", err)
	}
	if err := lease.Extend(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	old.deliver(t)
	next := mustLock(t, other, "k", locker.WithTTL(time.Minute)) // when the server says so
	if lease.Err() == nil {
		until, _ := lease.Deadline()
		t.Errorf("somebody else holds the key, and the holder believes in it for another %s", time.Until(until))
	}
	if next.Token() <= lease.Token() {
		t.Errorf("token %d after %d", next.Token(), lease.Token())
	}
}

// What the counter may hold when somebody asks for the lock: with the present way to read the
// clock, and with that of servers before Redis 7.
func TestCounter(t *testing.T) {
	srv := redistest.Start(t)
	srv.Do(t, "ACL", "SETUSER", "old", "on", ">pass", "~*", "&*", "+@all", "-pexpiretime")
	const past, future = "1000000000000000", "8000000000000000"
	const second = "8000000000" // of the note of an attempt that was taken back
	for _, server := range []struct {
		name string
		conf redis.Config
	}{{"redis 7", redis.Config{}}, {"before", redis.Config{Username: "old", Password: locker.Secret("pass")}}} {
		server.conf.Addrs = []string{srv.Addr()}
		l := open(t, server.conf, locker.Config{})
		clock := func() uint64 { return uint64(time.Now().UnixMicro()) }
		for _, tt := range []struct {
			name  string
			set   []string // the counter, by a command
			token func(n, now uint64) bool
			err   error
			note  string // behind the token in the counter
		}{
			{name: "lost", token: func(n, now uint64) bool { return n >= now }},
			{name: "an old copy", set: []string{"SET", past}, token: func(n, now uint64) bool { return n+1000 > now }},
			{name: "a clock that was set back", set: []string{"SET", future}, token: func(n, _ uint64) bool { return n == 8000000000000001 }},
			{name: "the last token", set: []string{"SET", "9007199254740990"}, token: func(n, _ uint64) bool { return n == driver.MaxToken-1 }},
			{name: "no token left", set: []string{"SET", "9007199254740991"}, err: driver.ErrRefused},
			{name: "above", set: []string{"SET", "9007199254740992"}, err: driver.ErrRefused},
			{name: "a text", set: []string{"SET", "mine"}, err: driver.ErrRefused},
			{name: "a list", set: []string{"RPUSH", "mine"}, err: driver.ErrRefused},
			{name: "somebody was taken back", set: []string{"SET", past + ":" + second}, token: func(n, now uint64) bool { return n+1000 > now }, note: ":" + second},
			{name: "with a clock that was set back", set: []string{"SET", future + ":" + second}, token: func(n, _ uint64) bool { return n == 8000000000000001 }, note: ":" + second},
			{name: "long ago", set: []string{"SET", past + ":1000000000"}, token: func(n, now uint64) bool { return n+1000 > now }},
		} {
			t.Run(server.name+"/"+tt.name, func(t *testing.T) {
				key := t.Name()
				lock, counter := lockKey("lockstep", key), "token:lockstep:{:"+key+"}"
				if tt.set != nil {
					srv.Do(t, tt.set[0], counter, tt.set[1])
				}
				now := clock()
				lease, err := l.TryLock(t.Context(), key, locker.WithTTL(time.Minute))
				if !errors.Is(err, tt.err) {
					t.Fatalf("TryLock: %v; want %v", err, tt.err)
				}
				if tt.err != nil {
					if n, _ := srv.Do(t, "EXISTS", lock).AsInt64(); n != 0 {
						t.Error("an attempt that was refused has left its lock")
					}
					if tt.set[0] == "SET" {
						if got, err := srv.Do(t, "GET", counter).ToString(); err != nil || got != tt.set[1] {
							t.Errorf("the counter is %q, %v; it was %q", got, err, tt.set[1])
						}
					}
					return
				}
				if !tt.token(lease.Token(), now) {
					t.Errorf("token %d at %d", lease.Token(), now)
				}
				got, err := srv.Do(t, "GET", counter).ToString()
				if want := strconv.FormatUint(lease.Token(), 10) + tt.note; err != nil || got != want {
					t.Errorf("the counter is %q, %v; want %q", got, err, want)
				}
				if ttl, _ := srv.Do(t, "PTTL", counter).AsInt64(); ttl <= 0 {
					t.Errorf("the counter has ttl %d ms", ttl)
				}
				if info, ok, err := l.Inspect(t.Context(), key); err != nil || !ok || info.Token != lease.Token() {
					t.Errorf("Inspect: %+v, %v, %v; want token %d", info, ok, err, lease.Token())
				}
				if err := lease.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
				// Several within a millisecond.
				for last, i := lease.Token(), 0; last < driver.MaxToken-1 && i < 20; i++ {
					next := mustLock(t, l, key, locker.WithTTL(time.Minute))
					if err := next.Unlock(t.Context()); err != nil || next.Token() <= last {
						t.Fatalf("token %d after %d, %v", next.Token(), last, err)
					}
					last = next.Token()
				}
			})
		}
	}
}
