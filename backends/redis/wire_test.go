package redis

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// fakeServer is a server that answers as it likes. What a real rueidis makes of it is the test: a
// panic in one of its goroutines ends the test's process.
type fakeServer struct {
	addr   string
	closed chan struct{} // gets a value when a client has closed a connection
}

// serveFake greets each connection with greeting and answers each command by answer.
func serveFake(t *testing.T, greeting string, answer func(args []string) string) *fakeServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f := &fakeServer{addr: l.Addr().String(), closed: make(chan struct{}, 1000)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close(); f.closed <- struct{}{} }()
				_, _ = io.WriteString(conn, greeting)
				for r := bufio.NewReader(conn); ; {
					args, err := readCommand(r)
					if err != nil {
						return
					}
					if _, err := io.WriteString(conn, answer(args)); err != nil {
						return
					}
				}
			}()
		}
	}()
	return f
}

func readCommand(r *bufio.Reader) ([]string, error) {
	number := func() (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number()
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		size, err := number()
		if err != nil {
			return nil, err
		}
		arg := make([]byte, size+2)
		if _, err := io.ReadFull(r, arg); err != nil {
			return nil, err
		}
		args[i] = string(arg[:size])
	}
	return args, nil
}

const helloReply = "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n$7\r\nversion\r\n$5\r\n7.2.0\r\n"

// plausible answers as a Redis 7.2 that is no Cluster does, and evil to scripts.
func plausible(evil string) func([]string) string {
	return func(args []string) string {
		switch strings.ToUpper(args[0]) {
		case "HELLO":
			return helloReply
		case "CLUSTER":
			return "-ERR This instance has cluster support disabled\r\n"
		case "INFO":
			return "$21\r\nredis_version:7.2.0\r\n\r\n"
		case "PING":
			return "+PONG\r\n"
		case "EVALSHA", "EVAL":
			return evil
		}
		return "+OK\r\n"
	}
}

// The server speaks before it is asked, and the ctx of the call that dials ends between the dial and
// the first command. A server at maxclients does the former, and rueidis then reads it as an answer.
func TestServerSpeaksFirst(t *testing.T) {
	for name, greeting := range map[string]string{
		"maxclients":    "-ERR max number of clients reached\r\n",
		"mail":          "220 mail.example.com ESMTP\r\n",
		"answers":       "+OK\r\n:1\r\n$-1\r\n*0\r\n",
		"a push":        ">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n",
		"a simple push": ">3\r\n+subscribe\r\n+x\r\n:1\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			srv := serveFake(t, greeting, plausible(":1\r\n"))
			opt := rueidis.ClientOption{InitAddress: []string{srv.addr}, ForceSingleClient: true, AlwaysPipelining: true, DisableRetry: true, DisableCache: true}
			var hook func()
			dial := (&seam{life: context.Background()}).dialler(opt)
			opt.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
				conn, err := dial(ctx, addr, d, conf)
				if hook != nil {
					hook()
				}
				return conn, err
			}
			client, _ := rueidis.NewClient(opt) // ForceSingleClient: a client although the dial fails
			defer client.Close()
			for range 20 {
				ctx, cancel := context.WithCancel(context.WithValue(t.Context(), mayDial{}, true))
				hook = cancel
				if err := client.Do(ctx, client.B().Ping().Build()).Error(); err == nil {
					t.Error("PING succeeded with a ctx that had ended")
				}
				select {
				case <-srv.closed:
				case <-time.After(10 * time.Second):
					t.Fatal("the connection was not closed")
				}
			}
		})
	}
}

// What comes instead of an answer, or after it, is an error of the connection.
func TestHostileReplies(t *testing.T) {
	for name, evil := range map[string]string{
		"negative string":         "$-5\r\n",
		"negative error":          "!-2\r\n",
		"negative array":          "*-5\r\n",
		"negative map":            "%-1\r\n",
		"negative push":           ">-3\r\n",
		"huge string":             "$1000000000\r\n",
		"string beyond an int":    "$99999999999999999999\r\n",
		"huge array":              "*1000000000\r\n",
		"huge map":                "%1000000\r\n",
		"huge in sum":             "*1000000\r\n*1000000\r\n",
		"nested":                  strings.Repeat("*1\r\n", 1_000_000),
		"no length":               "$\r\n",
		"chunks":                  "$?\r\n;-4\r\n",
		"stream":                  "*?\r\n",
		"another protocol":        "HTTP/1.1 400 Bad Request\r\n\r\n",
		"an end":                  ".\r\n",
		"long null":               "_null\r\n",
		"two answers":             ":1\r\n:1\r\n",
		"many answers":            strings.Repeat("+OK\r\n", 100),
		"a subscription":          ">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n",
		"no subscription":         ">3\r\n$11\r\nunsubscribe\r\n$1\r\nx\r\n:1\r\n",
		"a push inside":           "*2\r\n>2\r\n$1\r\na\r\n$1\r\nb\r\n:1\r\n:1\r\n",
		"a line without an end":   "+" + strings.Repeat("x", 1<<20),
		"a length without an end": "$" + strings.Repeat("1", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := serveFake(t, "", plausible(evil))
			b, err := Open(t.Context(), Config{Addrs: []string{srv.addr}, Timeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close(context.Background())
			select {
			case <-srv.closed: // of the attempt to open as a Cluster
			default:
			}
			for range 3 { // it connects again
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				_, _, _ = b.(*backend).Inspect(ctx, "k")
				cancel()
			}
			select {
			case <-srv.closed:
			case <-time.After(10 * time.Second):
				t.Error("the connection was not given up")
			}
		})
	}
}

// What servers do say passes, however it is cut up.
func TestWirePasses(t *testing.T) {
	const asked = "*2\r\n$4\r\nEVAL\r\n$3\r\na\r\n\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n"
	const said = helloReply + ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n" + "*3\r\n$-1\r\n*-1\r\n*2\r\n_\r\n#t\r\n" + "$0\r\n\r\n" + ">2\r\n$10\r\ninvalidate\r\n_\r\n" +
		"|1\r\n+ttl\r\n:3\r\n*1\r\n|1\r\n+a\r\n*0\r\n:-7\r\n" + "-ERR x\r\n" + "~2\r\n,1.5\r\n(123456789012345678901234567890\r\n" + "=7\r\ntxt:abc\r\n" + "*0\r\n" + "%0\r\n"
	for size := 1; size <= len(said); size++ {
		server, client := net.Pipe()
		w := &wire{Conn: client}
		go func() {
			_, _ = io.CopyN(io.Discard, server, int64(len(asked)))
			for rest := said; rest != ""; {
				n := min(size, len(rest))
				_, _ = io.WriteString(server, rest[:n])
				rest = rest[n:]
			}
			_ = server.Close()
		}()
		for rest := asked; rest != ""; {
			n := min(size, len(rest))
			if _, err := w.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if n := w.asked.Load(); n != 9 {
			t.Fatalf("by %d bytes: %d commands counted, want 9", size, n)
		}
		got, err := io.ReadAll(w)
		if string(got) != said || err != nil {
			t.Fatalf("by %d bytes: %q and %v", size, got, err)
		}
		if w.in.answered != 9 || w.in.depth != 0 {
			t.Fatalf("by %d bytes: %d answers, depth %d", size, w.in.answered, w.in.depth)
		}
	}
}

// FuzzWire looks for bytes that pass and end rueidis's process.
func FuzzWire(f *testing.F) {
	for _, s := range []string{"*-5\r\n", "$-1\r\n", ":1\r\n", ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n", "*2\r\n:1\r\n%1\r\n+a\r\n_\r\n", "#t\r\n", "|1\r\n+a\r\n:1\r\n+OK\r\n"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, said []byte, size uint8) {
		server, client := net.Pipe()
		defer client.Close()
		go func() {
			r := bufio.NewReader(server)
			for range 3 { // HELLO and the two of CLIENT SETINFO
				if _, err := readCommand(r); err != nil {
					return
				}
			}
			_, _ = io.WriteString(server, helloReply+"+OK\r\n+OK\r\n")
			go func() { _, _ = io.Copy(io.Discard, r) }()
			for len(said) > 0 {
				n := min(max(int(size), 1), len(said))
				if _, err := server.Write(said[:n]); err != nil {
					break
				}
				said = said[n:]
			}
			_ = server.Close()
		}()
		c, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{"fuzz"}, ForceSingleClient: true, AlwaysPipelining: true, DisableRetry: true, DisableCache: true,
			ReadBufferEachConn: 4096, WriteBufferEachConn: 4096,
			DialCtxFn: func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
				return &wire{Conn: client}, nil
			},
		})
		if err != nil {
			return
		}
		defer c.Close()
		for range 3 {
			_, _ = c.Do(t.Context(), c.B().Get().Key("k").Build()).ToAny()
		}
	})
}

// BenchmarkWire is what reading along costs for a script and its answer.
func BenchmarkWire(b *testing.B) {
	script := []string{"EVALSHA", strings.Repeat("a", 40), "2", "lockstep:0:{:orders:42}", "lockstep:token:{:orders:42}", strings.Repeat("b", 34), "30000", "3600000"}
	request, reply := appendCommand(nil, script), []byte(":1795630983525000\r\n")
	w := &wire{}
	for b.Loop() {
		n, _ := w.out.scan(request)
		w.asked.Add(n)
		if w.in.scan(w, reply); w.in.fault != nil {
			b.Fatal(w.in.fault)
		}
	}
}

// A secret that the end of an excerpt would cut is hidden all the same.
func TestExcerptHidesBeforeItIsCut(t *testing.T) {
	const secret = "correct-horse-battery-staple"
	var s secrets
	s.add(secret)
	for n := range 2 * maxWords {
		if got := s.words(unasked([]byte(strings.Repeat("x", n) + secret + strings.Repeat("y", 4*maxWords))).Error()); strings.Contains(got, secret[:8]) {
			t.Fatalf("after %d bytes: %s", n, got)
		}
	}
}
