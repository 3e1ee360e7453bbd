package fault

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance"
)

// Proxy is one client's way to a store. All of its methods act on connections that are open as
// well as on later ones, and have taken effect when they return.
type Proxy struct {
	store   string
	framing Framing
	listen  net.Listener

	mu      sync.Mutex
	links   map[*link]bool
	delay   [2]time.Duration
	holes   [2]bool
	lose    [2]int // requests, replies
	lost    int
	closed  bool
	changed chan struct{} // closed and replaced when a hole is stopped up, or a link dies
	running sync.WaitGroup
}

const (
	up   = 0
	down = 1
)

// New starts a proxy, on an address of its own, for the store at the given address: host:port, or
// the path of a Unix socket. It ends with the test.
func New(tb testing.TB, store string, framing Framing) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("fault: %v", err)
	}
	p := &Proxy{store: store, framing: framing, listen: l, links: map[*link]bool{}, changed: make(chan struct{})}
	p.running.Add(1)
	go p.accept()
	tb.Cleanup(p.Close)
	return p
}

// Addr is the address for clients, host:port.
func (p *Proxy) Addr() string { return p.listen.Addr().String() }

// Line is the proxy as the suite uses it.
func (p *Proxy) Line() conformance.Line {
	return conformance.Line{
		Latency:      func(d time.Duration) { p.Latency(d, d) },
		BlackHole:    p.BlackHole,
		LoseReplies:  p.LoseReplies,
		LoseRequests: p.LoseRequests,
		Cut:          p.Cut,
		Sever:        p.Sever,
		Heal:         p.Heal,
	}
}

// Latency makes what is sent from now on late, on its way to the store (up) and from it (down).
// Order is kept within a connection: what is sent on another one may overtake it.
func (p *Proxy) Latency(up, down time.Duration) {
	p.change(func() { p.delay = [2]time.Duration{up, down} })
}

// BlackHole swallows what arrives, going up, coming down, or both. Nobody is told: connections
// stay open, and a close does not get through either. It ends with Heal, or BlackHole(false,
// false); connections that have lost bytes are closed then, because what follows makes no sense.
func (p *Proxy) BlackHole(up, down bool) {
	p.change(func() {
		p.holes = [2]bool{up, down}
		p.endGaps()
	})
}

// LoseReplies lets the next n requests through and loses their replies: when the store has
// answered, the connection is closed. What the client sends to set a connection up, or to keep
// it, does not count; see [Message.Counts].
func (p *Proxy) LoseReplies(n int) { p.change(func() { p.lose[down] += n }) }

// LoseRequests closes the connection instead of letting the next n requests through. The client
// cannot tell it from LoseReplies.
func (p *Proxy) LoseRequests(n int) { p.change(func() { p.lose[up] += n }) }

// Cut closes all connections. New ones may be made.
func (p *Proxy) Cut() {
	p.change(func() {
		for l := range p.links {
			l.end()
		}
	})
}

// Sever closes all connections for the client alone: what it has sent, and what has not arrived,
// comes to the store that much later, and then the end of the connection.
func (p *Proxy) Sever(late time.Duration) {
	p.change(func() {
		for l := range p.links {
			l.arrives = time.Now().Add(late)
			_ = l.conns[down].Close()
		}
	})
}

// Heal ends everything that was done to the network.
func (p *Proxy) Heal() {
	p.change(func() {
		p.delay, p.holes, p.lose = [2]time.Duration{}, [2]bool{}, [2]int{}
		p.endGaps()
	})
}

// Lost is how many requests and replies were lost.
func (p *Proxy) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Connections is how many connections the client has at this moment, for
// [conformance.Target.Connections].
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Close ends the proxy and all of its connections.
func (p *Proxy) Close() {
	p.change(func() {
		p.closed = true
		for l := range p.links {
			l.end()
		}
	})
	_ = p.listen.Close()
	p.running.Wait()
}

func (p *Proxy) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) endGaps() {
	if p.holes != [2]bool{} {
		return
	}
	for l := range p.links {
		if l.gap {
			l.end()
		}
	}
}

func (p *Proxy) accept() {
	defer p.running.Done()
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		p.running.Add(1)
		go p.serve(client)
	}
}

// link is one connection, and the one to the store that belongs to it.
type link struct {
	p     *Proxy
	conns [2]net.Conn // to write to, by direction: the store's, the client's
	over  chan struct{}

	framing sync.Mutex
	frames  Frames

	// Under Proxy.mu.
	ended    bool
	gap      bool      // bytes are missing
	arrives  time.Time // severed: nothing comes to the store before then
	asked    int       // requests that were let through and will be answered
	answered int
	loseAt   int // the answer that is to be lost; 0 for none
}

func (p *Proxy) serve(client net.Conn) {
	defer p.running.Done()
	network := "tcp"
	if strings.HasPrefix(p.store, "/") {
		network = "unix"
	}
	store, err := net.Dial(network, p.store)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{p: p, conns: [2]net.Conn{up: store, down: client}, frames: p.framing(), over: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		l.end()
	}
	p.links[l] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range []int{up, down} {
		both.Add(1)
		go func() { defer both.Done(); l.carry(way) }()
	}
	both.Wait()
	p.mu.Lock()
	l.end()
	delete(p.links, l)
	p.mu.Unlock()
}

// end closes both connections, with the mutex of the proxy held.
func (l *link) end() {
	if !l.ended {
		l.ended = true
		close(l.over)
		_ = l.conns[up].Close()
		_ = l.conns[down].Close()
	}
}

// piece is one message on its way, or the end of a connection.
type piece struct {
	Message
	data []byte
	due  time.Time
}

// carry brings what arrives in one direction to the other end.
func (l *link) carry(way int) {
	pieces := make(chan piece, 1024)
	go l.read(way, pieces)
	for x := range pieces {
		if !l.wait(x.due) || way == up && !l.wait(l.severed()) || !l.deliver(way, x) {
			break
		}
	}
	// Whatever came before the end has been delivered; now the other side hears of it, unless a
	// black hole swallows that as well.
	l.p.mu.Lock()
	for l.p.holes[way] && !l.ended && !l.p.closed {
		changed := l.p.changed
		l.p.mu.Unlock()
		select {
		case <-changed:
		case <-l.over:
		}
		l.p.mu.Lock()
	}
	l.end()
	l.p.mu.Unlock()
	for range pieces { // so that read ends
	}
}

// read takes the messages of one direction apart.
func (l *link) read(way int, pieces chan<- piece) {
	defer close(pieces)
	from, next := l.conns[1-way], l.frames.Request
	if way == down {
		next = l.frames.Reply
	}
	var pending []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		pending = append(pending, buf[:n]...)
		l.p.mu.Lock()
		due := time.Now().Add(l.p.delay[way])
		l.p.mu.Unlock()
		for len(pending) > 0 {
			l.framing.Lock()
			m := next(pending)
			l.framing.Unlock()
			if m.Len == 0 {
				break
			}
			pieces <- piece{Message: m, data: append([]byte(nil), pending[:m.Len]...), due: due}
			pending = pending[m.Len:]
		}
		if err != nil {
			if len(pending) > 0 && err == io.EOF { // what nobody understands is passed on as it is
				pieces <- piece{data: pending, due: due}
			}
			return
		}
	}
}

// severed is when what is on its way to the store may arrive.
func (l *link) severed() time.Time {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.arrives
}

func (l *link) wait(due time.Time) bool {
	if d := time.Until(due); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.over:
			return false
		}
	}
	return true
}

// deliver brings x to the other end, unless it is to be lost. false ends the link.
func (l *link) deliver(way int, x piece) bool {
	p := l.p
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case l.ended:
		return false
	case p.holes[way]:
		l.gap = true
		return true
	case way == up && x.Counts && p.lose[up] > 0:
		p.lose[up]--
		p.lost++
		return false
	case way == up:
		if x.Ends {
			l.asked++
		}
		if x.Counts && p.lose[down] > 0 && l.loseAt == 0 {
			p.lose[down]--
			l.loseAt = l.asked
		}
	case !x.Unasked:
		losing := l.loseAt > 0 && l.answered+1 >= l.loseAt
		if x.Ends {
			l.answered++
		}
		if losing {
			if x.Ends {
				p.lost++
			}
			return !x.Ends
		}
	}
	// Without the mutex a fault that begins now could come too late for this piece.
	_ = l.conns[way].SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, err := l.conns[way].Write(x.data)
	return err == nil
}
