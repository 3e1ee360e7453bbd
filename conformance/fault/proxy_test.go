package fault

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// store answers each request by what answer says of it, and notes it.
type store struct {
	net.Listener
	mu   sync.Mutex
	seen []string
}

func serve(t *testing.T, framing Framing, answer func(request []byte) []byte) *store {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := &store{Listener: l}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.talk(conn, framing(), answer)
		}
	}()
	return s
}

func (s *store) talk(conn net.Conn, frames Frames, answer func([]byte) []byte) {
	defer conn.Close()
	var pending []byte
	buf := make([]byte, 7) // so that messages arrive in pieces
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		pending = append(pending, buf[:n]...)
		for len(pending) > 0 {
			m := frames.Request(pending)
			if m.Len == 0 {
				break
			}
			s.mu.Lock()
			s.seen = append(s.seen, string(pending[:m.Len]))
			s.mu.Unlock()
			if _, err := conn.Write(answer(pending[:m.Len])); err != nil {
				return
			}
			pending = pending[m.Len:]
		}
	}
}

// sees waits until the store has seen what.
func (s *store) sees(t *testing.T, what string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !s.saw(what); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not arrive", what)
		}
	}
}

func (s *store) saw(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.seen {
		if strings.Contains(r, what) {
			return true
		}
	}
	return false
}

func cmd(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// echo answers a command of RESP with its last argument, and PUSH with a push before that.
func echo(request []byte) []byte {
	parts := strings.Split(strings.TrimSuffix(string(request), "\r\n"), "\r\n")
	last := parts[len(parts)-1]
	reply := fmt.Sprintf("$%d\r\n%s\r\n", len(last), last)
	if strings.Contains(string(request), "PUSH") {
		reply = ">1\r\n+told\r\n" + reply
	}
	return []byte(reply)
}

type conn struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &conn{t, c, bufio.NewReader(c)}
}

func (c *conn) send(text string) {
	c.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// gets makes sure that exactly want arrives.
func (c *conn) gets(want string) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
		c.t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

// silence makes sure that nothing arrives, and that the connection stays open.
func (c *conn) silence() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := c.r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got %q, %v; want nothing", b, err)
	}
}

// closes makes sure that the connection is closed, and nothing comes before.
func (c *conn) closes() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if b, err := c.r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got %q, %v; want the end of the connection", b, err)
	}
}

func TestLatency(t *testing.T) {
	s := serve(t, RESP, echo)
	p := New(t, s.Addr().String(), RESP)
	c := dial(t, p.Addr())
	for _, d := range [][2]time.Duration{{60 * time.Millisecond, 0}, {0, 60 * time.Millisecond}, {30 * time.Millisecond, 30 * time.Millisecond}} {
		p.Latency(d[0], d[1])
		took := time.Hour // the quickest of some tries: a machine that stands still is late too
		for range 3 {
			began := time.Now()
			for range 10 { // pipelined: all of them are late by as much as one
				c.send(cmd("ECHO", "x"))
			}
			for range 10 {
				c.gets("$1\r\nx\r\n")
			}
			took = min(took, time.Since(began))
		}
		if took < 60*time.Millisecond || took > 500*time.Millisecond {
			t.Errorf("with %v ten pipelined requests took %s", d, took)
		}
	}

	// A request on another connection overtakes one that is under way, though its client is gone.
	p.Latency(3*time.Second, 0)
	late := dial(t, p.Addr())
	late.send(cmd("SET", "late"))
	time.Sleep(300 * time.Millisecond) // so that the proxy has read it
	_ = late.Close()
	p.Latency(0, 0)
	c.send(cmd("SET", "early"))
	c.gets("$5\r\nearly\r\n")
	if s.saw("late") {
		t.Error("the request that was under way has not been overtaken")
	}
	s.sees(t, "late") // though its client is gone
}

func TestBlackHole(t *testing.T) {
	s := serve(t, RESP, echo)
	p := New(t, s.Addr().String(), RESP)
	for _, hole := range [][2]bool{{true, false}, {false, true}, {true, true}} {
		c, idle := dial(t, p.Addr()), dial(t, p.Addr())
		idle.send(cmd("ECHO", "x"))
		idle.gets("$1\r\nx\r\n")
		p.BlackHole(hole[0], hole[1])
		name := fmt.Sprint(hole)
		c.send(cmd("SET", name))
		c.silence()
		if !hole[0] {
			s.sees(t, name)
		} else if s.saw(name) {
			t.Errorf("BlackHole%v: the store has seen the request", hole)
		}
		p.Heal()
		c.closes() // it lost bytes
		idle.send(cmd("ECHO", "y"))
		idle.gets("$1\r\ny\r\n")
	}
}

func TestLose(t *testing.T) {
	s := serve(t, RESP, echo)
	p := New(t, s.Addr().String(), RESP)

	c := dial(t, p.Addr())
	p.LoseReplies(1)
	c.send(cmd("PING", "keep")) // does not count
	c.gets("$4\r\nkeep\r\n")
	c.send(cmd("SET", "first") + cmd("SET", "second"))
	c.closes()
	if !s.saw("first") || p.Lost() != 1 {
		t.Errorf("the request whose reply was lost has reached the store: %v; %d lost", s.saw("first"), p.Lost())
	}

	c = dial(t, p.Addr())
	p.LoseRequests(1)
	c.send(cmd("PING", "keep"))
	c.gets("$4\r\nkeep\r\n")
	c.send(cmd("SET", "third"))
	c.closes()
	if s.saw("third") || p.Lost() != 2 {
		t.Errorf("the request that was lost has reached the store: %v; %d lost", s.saw("third"), p.Lost())
	}

	// The replies to what was asked before come, and so do pushes.
	c = dial(t, p.Addr())
	c.send(cmd("PUSH", "fourth"))
	c.gets(">1\r\n+told\r\n$6\r\nfourth\r\n")
	p.Latency(0, 30*time.Millisecond)
	c.send(cmd("PUSH", "fifth"))
	s.sees(t, "fifth")
	p.LoseReplies(1)
	c.send(cmd("SET", "sixth"))
	c.gets(">1\r\n+told\r\n$5\r\nfifth\r\n")
	c.closes()
	if !s.saw("sixth") {
		t.Error("the request whose reply was lost has not reached the store")
	}
}

func TestCut(t *testing.T) {
	s := serve(t, Opaque, func(b []byte) []byte { return b })
	p := New(t, s.Addr().String(), Opaque)
	a, b := dial(t, p.Addr()), dial(t, p.Addr())
	for _, c := range []*conn{a, b} {
		c.send("hello")
		c.gets("hello")
	}
	if n := p.Connections(); n != 2 {
		t.Errorf("%d connections", n)
	}
	p.Cut()
	a.closes()
	b.closes()
	c := dial(t, p.Addr())
	c.send("again")
	c.gets("again")
	p.Close()
	c.closes()
	if n := p.Connections(); n != 0 {
		t.Errorf("%d connections after Close", n)
	}
}

// pg is one message of PostgreSQL's protocol.
func pg(kind byte, body string) string {
	b := make([]byte, 4, 5+len(body))
	binary.BigEndian.PutUint32(b, uint32(4+len(body)))
	if kind == 0 {
		return string(b) + body
	}
	return string(kind) + string(b) + body
}

func TestPostgres(t *testing.T) {
	s := serve(t, Postgres, func(request []byte) []byte {
		switch {
		case bytes.HasPrefix(request[4:], []byte{0x04, 0xd2, 0x16, 0x2f}): // SSLRequest
			return []byte("N")
		case request[0] == 0: // StartupMessage
			return []byte(pg('R', "\x00\x00\x00\x00") + pg('S', "a\x00b\x00") + pg('Z', "I"))
		case bytes.Contains(request, []byte("LISTEN")):
			return []byte(pg('C', "LISTEN\x00") + pg('Z', "I") + pg('A', "told"))
		}
		return []byte(pg('D', "row") + pg('C', "SELECT 1\x00") + pg('Z', "I"))
	})
	p := New(t, s.Addr().String(), Postgres)
	start := func() *conn {
		c := dial(t, p.Addr())
		c.send(pg(0, "\x04\xd2\x16\x2f"))
		c.gets("N")
		c.send(pg(0, "\x00\x03\x00\x00user\x00me\x00\x00"))
		c.gets(pg('R', "\x00\x00\x00\x00") + pg('S', "a\x00b\x00") + pg('Z', "I"))
		return c
	}
	const row = "row"
	answer := pg('D', row) + pg('C', "SELECT 1\x00") + pg('Z', "I")
	p.LoseReplies(1) // starting does not count
	c := start()
	c.send(pg('Q', "-- ping\x00"))
	c.gets(answer)
	c.send(pg('P', "\x00UPDATE one\x00\x00\x00") + pg('B', "\x00\x00") + pg('E', "\x00\x00\x00\x00\x00") + pg('S', ""))
	c.closes()
	if !s.saw("UPDATE one") {
		t.Error("the request whose reply was lost has not reached the store")
	}
	p.LoseRequests(1)
	c = start()
	c.send(pg('S', "")) // nothing is asked for
	c.gets(answer)
	c.send(pg('Q', "UPDATE two\x00"))
	c.closes()
	if s.saw("UPDATE two") {
		t.Error("the request that was lost has reached the store")
	}
	c = start()
	c.send(pg('Q', "LISTEN\x00"))
	c.gets(pg('C', "LISTEN\x00") + pg('Z', "I") + pg('A', "told"))
}

// However a stream is cut into pieces, the messages are the same.
func TestPieces(t *testing.T) {
	for name, tt := range map[string]struct {
		framing  Framing
		requests []string
		replies  []string
	}{
		"RESP": {RESP,
			[]string{cmd("SET", "k", "v"), cmd("EVALSHA", "\r\n*1\r\n", ""), cmd("PING")},
			[]string{"+OK\r\n", "-ERR no\r\n", ":1\r\n", "$-1\r\n", "*-1\r\n", "$0\r\n\r\n", "*2\r\n$1\r\nx\r\n*1\r\n:1\r\n", "%1\r\n+k\r\n_\r\n", "~0\r\n", ",1.5\r\n", "#t\r\n", "=5\r\ntxt:x\r\n", ">2\r\n+a\r\n$1\r\nb\r\n", "|1\r\n+k\r\n+v\r\n:3\r\n"}},
		"Postgres": {Postgres,
			[]string{pg(0, "\x00\x03\x00\x00u\x00\x00"), pg('Q', "x\x00"), pg('P', "\x00y\x00\x00\x00") + pg('S', ""), pg('X', "")},
			[]string{pg('R', "\x00\x00\x00\x00"), pg('Z', "I"), pg('D', "Z"), pg('Z', "T")}},
	} {
		t.Run(name, func(t *testing.T) {
			frames := tt.framing()
			for _, side := range []struct {
				want []string
				next func([]byte) Message
			}{{tt.requests, frames.Request}, {tt.replies, frames.Reply}} {
				var pending []byte
				var got []string
				for _, b := range []byte(strings.Join(side.want, "")) {
					pending = append(pending, b)
					if m := side.next(pending); m.Len > 0 {
						got = append(got, string(pending[:m.Len]))
						pending = pending[m.Len:]
					}
				}
				if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", side.want) {
					t.Errorf("got  %q\nwant %q", got, side.want)
				}
			}
		})
	}
}
