package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// wire is a bare connection to a Redis, on which a test sees every byte and when it came.
type wire struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *wire {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &wire{c, bufio.NewReader(c)}
}

func (w *wire) send(t *testing.T, command string) {
	t.Helper()
	if _, err := w.Write([]byte(command + "\r\n")); err != nil {
		t.Fatalf("sending %s: %v", command, err)
	}
}

// reply returns the next line, or "silence" after some time, or "closed".
func (w *wire) reply(t *testing.T, patience time.Duration) string {
	t.Helper()
	if err := w.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	line, err := w.r.ReadString('\n')
	switch {
	case err == nil:
		return strings.TrimSpace(line)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "silence"
	case errors.Is(err, io.EOF) || strings.Contains(err.Error(), "connection reset"):
		return "closed"
	}
	t.Fatal(err)
	return ""
}

const (
	soon  = 5 * time.Second        // more than anything that comes needs
	never = 150 * time.Millisecond // long enough to believe that nothing comes
)

func expect(t *testing.T, w *wire, patience time.Duration, want string) {
	t.Helper()
	if got := w.reply(t, patience); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestProxyBlackHole(t *testing.T) {
	srv := Start(t)
	for _, c := range []struct {
		name     string
		up, down bool
		arrives  string // whether the command is carried out
	}{
		{"up", true, false, ":0"},
		{"down", false, true, ":1"},
		{"both", true, true, ":0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv.Flush(t)
			p := NewProxy(t, srv.Addr())
			idle, busy := dial(t, p.Addr()), dial(t, p.Addr())
			idle.send(t, "PING")
			expect(t, idle, soon, "+PONG")
			busy.send(t, "PING")
			expect(t, busy, soon, "+PONG")

			p.BlackHole(c.up, c.down)
			busy.send(t, "SET a 1")
			expect(t, busy, never, "silence")
			if err := pollFor(soon, func() error {
				if n, err := srv.Do(t, "EXISTS", "a").AsInt64(); err != nil || fmt.Sprint(":", n) != c.arrives {
					return fmt.Errorf("EXISTS says %d, %v; want %s", n, err, c.arrives)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			fresh := dial(t, p.Addr())
			fresh.send(t, "PING")
			expect(t, fresh, never, "silence")

			p.Heal()
			expect(t, busy, soon, "closed")
			expect(t, fresh, soon, "closed")
			idle.send(t, "PING") // it lost nothing
			expect(t, idle, soon, "+PONG")
		})
	}
}

// In a partition the server does not hear of a client's end either.
func TestProxyBlackHoleHidesAClose(t *testing.T) {
	srv := Start(t)
	p := NewProxy(t, srv.Addr())
	w := dial(t, p.Addr())
	w.send(t, "CLIENT SETNAME partitioned")
	expect(t, w, soon, "+OK")
	known := func() bool {
		list, err := srv.Do(t, "CLIENT", "LIST").ToString()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(list, "name=partitioned")
	}
	p.BlackHole(true, false)
	w.Close()
	time.Sleep(never)
	if !known() {
		t.Error("the server heard of the close")
	}
	p.Heal()
	if err := pollFor(soon, func() error {
		if known() {
			return errors.New("it does not")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestProxyLatency(t *testing.T) {
	srv := Start(t)
	p := NewProxy(t, srv.Addr())
	w := dial(t, p.Addr())
	// The quickest of some tries: a machine that stands still is late too.
	quickest := func(tries int, what func()) time.Duration {
		d := time.Hour
		for range tries {
			begin := time.Now()
			what()
			d = min(d, time.Since(begin))
		}
		return d
	}
	p.Latency(40*time.Millisecond, 60*time.Millisecond)
	if d := quickest(3, func() {
		for range 10 {
			w.send(t, "PING") // pipelined
			time.Sleep(time.Millisecond)
		}
		for range 10 {
			expect(t, w, soon, "+PONG")
		}
	}); d < 100*time.Millisecond || d > 500*time.Millisecond {
		t.Errorf("ten pipelined round trips took %s, want little more than 100ms", d)
	}
	p.Heal()
	if d := quickest(20, func() {
		w.send(t, "PING")
		expect(t, w, soon, "+PONG")
	}); d > 40*time.Millisecond {
		t.Errorf("a round trip after Heal took %s", d)
	}
}

func TestProxyLosesReplies(t *testing.T) {
	srv := Start(t)
	p := NewProxy(t, srv.Addr())
	p.LoseReplies(2, "INCR")
	other := dial(t, p.Addr())
	for i := range 2 {
		w := dial(t, p.Addr())
		w.send(t, "PING") // another request is not touched
		expect(t, w, soon, "+PONG")
		w.send(t, "INCR a")
		expect(t, w, soon, "closed")
		if p.Lost() != i+1 {
			t.Errorf("Lost() = %d, want %d", p.Lost(), i+1)
		}
	}
	if n, err := srv.Do(t, "GET", "a").AsInt64(); n != 2 || err != nil {
		t.Errorf("the server carried out %d of 2 requests, %v", n, err)
	}
	other.send(t, "INCR a") // the third is not lost
	expect(t, other, soon, ":3")
}

func TestProxyLosesRequests(t *testing.T) {
	srv := Start(t)
	p := NewProxy(t, srv.Addr())
	p.LoseRequests(1, "")
	w := dial(t, p.Addr())
	w.send(t, "INCR a")
	expect(t, w, soon, "closed")
	if n, err := srv.Do(t, "EXISTS", "a").AsInt64(); n != 0 || err != nil {
		t.Errorf("the server saw the request: %d, %v", n, err)
	}
}

func TestProxyResetAndCut(t *testing.T) {
	srv := Start(t)
	p := NewProxy(t, srv.Addr())
	w := dial(t, p.Addr())
	w.send(t, "PING")
	expect(t, w, soon, "+PONG")

	p.Reset()
	expect(t, w, soon, "closed")
	w = dial(t, p.Addr())
	w.send(t, "PING")
	expect(t, w, soon, "+PONG")

	p.Cut()
	expect(t, w, soon, "closed")
	if c, err := net.Dial("tcp", p.Addr()); err == nil {
		c.Close()
		t.Error("a cut proxy accepts connections")
	}
	p.Heal()
	w = dial(t, p.Addr())
	w.send(t, "PING")
	expect(t, w, soon, "+PONG")
}

// A test that counts goroutines may use a proxy.
func TestProxyLeavesNoGoroutine(t *testing.T) {
	srv := Start(t)
	before := runtime.NumGoroutine()
	for round := range 5 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			p := NewProxy(t, srv.Addr())
			for range 10 {
				w := dial(t, p.Addr())
				go func() {
					for _, err := w.Write([]byte("PING\r\n")); err == nil; _, err = w.Write([]byte("PING\r\n")) {
						time.Sleep(100 * time.Microsecond)
					}
				}()
				go func() { _, _ = io.Copy(io.Discard, w) }()
			}
			for _, f := range []func(){
				func() { p.BlackHole(true, false) }, p.Heal,
				func() { p.Latency(time.Millisecond, 20*time.Millisecond) }, func() { p.BlackHole(true, true) },
				p.Cut, p.Heal, p.Reset,
			} {
				f()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	if err := pollFor(soon, func() error {
		if n := runtime.NumGoroutine(); n > before {
			return fmt.Errorf("%d goroutines, %d before", n, before)
		}
		return nil
	}); err != nil {
		buf := make([]byte, 1<<16)
		t.Errorf("%v\n%s", err, buf[:runtime.Stack(buf, true)])
	}
}

func pollFor(d time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return poll(ctx, "it is so", check)
}
