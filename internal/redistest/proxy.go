package redistest

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a client and a server and does to their connections what networks do. Its methods are safe
// for concurrent use, act on connections that are open as well as on later ones, and take effect before they return.
//
// It is not toxiproxy, whose toxics fall short: none can tell which reply is lost, since none sees both directions;
// to remove a black hole while data is on its way leaves goroutines behind that nothing ends; and a black hole lets
// a close through.
//
//	proxy := redistest.NewProxy(t, srv.Addr())
//	proxy.Latency(0, 200*time.Millisecond)   // replies are late
//	proxy.BlackHole(true, true)              // a partition: silence, in both directions
//	proxy.LoseReplies(1, "EVALSHA")          // carried out, but nobody hears of it
//	proxy.Heal()                             // all is well again
type Proxy struct {
	addr, server string

	mu       sync.Mutex
	listener net.Listener
	changed  chan struct{} // closed and replaced whenever something below changes
	drop     [2]bool       // by direction
	delay    [2]time.Duration
	losses   []*loss
	lost     int
	cut      bool
	links    map[*link]bool
}

// loss is an order to lose a number of requests or replies.
type loss struct {
	left    int
	match   string
	request bool
}

// NewProxy returns a proxy for the server at addr (host:port) on an address of its own. It ends with the test.
func NewProxy(tb testing.TB, addr string) *Proxy {
	tb.Helper()
	p := &Proxy{server: addr, changed: make(chan struct{}), links: make(map[*link]bool)}
	var err error
	for range 5 { // between the choice of a free port and its use, another process may take it
		p.addr = fmt.Sprintf("%s:%d", host, freePort())
		if err = p.listen(); err == nil {
			break
		}
	}
	if err != nil {
		tb.Fatalf("redistest: proxy for %s: %v", addr, err)
	}
	tb.Cleanup(p.close)
	return p
}

func (p *Proxy) listen() error {
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = l
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	return nil
}

func (p *Proxy) serve(client net.Conn) {
	l := &link{client: client, pipes: 2}
	p.mu.Lock()
	p.links[l] = true
	if p.cut {
		l.endLocked() // it was being accepted
	}
	p.mu.Unlock()

	server, err := net.DialTimeout("tcp", p.server, 10*time.Second)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil || l.dead {
		if err == nil {
			server.Close()
		}
		l.endLocked()
		delete(p.links, l)
		return
	}
	l.server = server
	go (&pipe{p, l, upstream}).run(client, server)
	go (&pipe{p, l, downstream}).run(server, client)
}

// Addr returns the address that clients connect to, host:port.
func (p *Proxy) Addr() string { return p.addr }

// URL returns redis://host:port.
func (p *Proxy) URL() string { return "redis://" + p.addr }

// Latency makes every request late by up and every reply by down. Order is kept, and pipelining still works: ten
// requests sent at once are all late by up, not by ten times up.
func (p *Proxy) Latency(up, down time.Duration) {
	p.change(func() { p.delay = [2]time.Duration{upstream: up, downstream: down} })
}

// BlackHole swallows what clients send (up), what the server sends (down), or both; BlackHole(false, false) stops
// that. Nobody is told: connections stay open, new ones are accepted, and even a close does not get through.
//
// After it, connections that lost bytes are closed, because what follows a gap cannot be understood; the others go
// on.
//
// One thing differs from a real partition: to connect still works, although nothing comes of it. A real one makes
// it time out.
func (p *Proxy) BlackHole(up, down bool) {
	p.change(func() {
		p.drop = [2]bool{upstream: up, downstream: down}
		p.endGaps()
	})
}

// LoseReplies lets the next n requests that contain match through to the server, and loses the replies: the client
// gets nothing more on that connection, which closes a moment after the server has replied. The empty string
// matches any request.
//
// A request is looked for in what arrives in one piece. Replies to other requests in the same piece, and to those
// under way on the same connection, are lost with it.
func (p *Proxy) LoseReplies(n int, match string) {
	p.change(func() { p.losses = append(p.losses, &loss{left: n, match: match}) })
}

// LoseRequests is LoseReplies for requests: the server never sees them, and the connection closes at once. The
// client cannot tell the two apart.
func (p *Proxy) LoseRequests(n int, match string) {
	p.change(func() { p.losses = append(p.losses, &loss{left: n, match: match, request: true}) })
}

// Lost returns how many requests and replies LoseReplies and LoseRequests have lost so far.
func (p *Proxy) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Reset closes all connections. New ones are accepted.
func (p *Proxy) Reset() { p.change(p.endAll) }

// Sever closes all connections for the client alone: what it has sent, and what has not arrived, comes
// to the server late after it was sent, and then the end of the connection.
func (p *Proxy) Sever(late time.Duration) {
	p.change(func() {
		for l := range p.links {
			l.late = late
			l.client.Close()
		}
	})
}

// Cut closes all connections and refuses new ones until Heal.
func (p *Proxy) Cut() {
	p.change(func() {
		p.cut = true
		p.listener.Close()
		p.endAll()
	})
}

// Heal ends everything that was done to the network.
func (p *Proxy) Heal() {
	var wasCut bool
	p.change(func() {
		wasCut, p.cut = p.cut, false
		p.drop, p.delay, p.losses = [2]bool{}, [2]time.Duration{}, nil
		p.endGaps()
	})
	if wasCut {
		if err := p.listen(); err != nil {
			panic(fmt.Sprintf("redistest: the proxy's address %s is gone: %v", p.addr, err))
		}
	}
}

func (p *Proxy) close() {
	p.Cut()
	// Nothing of the proxy may be left for a test that counts goroutines afterwards.
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		p.mu.Lock()
		left := len(p.links)
		p.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

func (p *Proxy) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.notify()
}

func (p *Proxy) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) endAll() {
	for l := range p.links {
		l.endLocked()
	}
}

func (p *Proxy) endGaps() {
	if p.drop != [2]bool{} {
		return
	}
	for l := range p.links {
		if l.gap {
			l.endLocked()
		}
	}
}
