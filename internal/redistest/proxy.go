package redistest

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Proxy stands between a client and a server and does to their connections what networks do. It is toxiproxy, run
// inside the test process. Its methods are safe for concurrent use, act on connections that are open as well as on
// later ones, and take effect before they return.
//
//	proxy := redistest.NewProxy(t, srv.Addr())
//	proxy.Latency(0, 200*time.Millisecond)   // replies are late
//	proxy.BlackHole(true, true)              // a partition: silence, in both directions
//	proxy.LoseReplies(1, "EVALSHA")          // carried out, but nobody hears of it
//	proxy.Heal()                             // all is well again
type Proxy struct {
	id    uint64
	addr  string
	proxy *toxiproxy.Proxy

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced whenever something below changes
	drop      [2]bool       // by direction
	delay     [2]time.Duration
	losses    []*loss
	lost      int
	cut       bool
	accepting *link // the link whose second direction toxiproxy has yet to start
	links     map[*link]bool
}

// link is one client's connection and the connection to the server that belongs to it.
type link struct {
	pipes int       // directions that are running
	gap   bool      // bytes were dropped out of the middle: the rest would be garbage, so Heal ends the connection
	mute  bool      // a reply was to be lost: nothing comes down any more
	heard time.Time // when mute last swallowed something
	dead  bool      // to be closed
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
	p := &Proxy{changed: make(chan struct{}), links: make(map[*link]bool)}
	p.id = registerProxy(p)
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	var err error
	for range 5 { // between the choice of a free port and its use, another process may take it
		p.addr = fmt.Sprintf("127.0.0.1:%d", freePort())
		p.proxy = toxiproxy.NewProxy(server, "redistest", p.addr, addr)
		for _, stream := range []string{"upstream", "downstream"} {
			toxic := fmt.Sprintf(`{"type": %q, "stream": %q, "attributes": {"proxy": %d, "direction": %q}}`, gateType, stream, p.id, stream)
			if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
				tb.Fatalf("redistest: proxy for %s: %v", addr, err)
			}
		}
		if err = p.proxy.Start(); !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		tb.Fatalf("redistest: proxy for %s: %v", addr, err)
	}
	tb.Cleanup(p.close)
	return p
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

// Cut closes all connections and refuses new ones until Heal.
func (p *Proxy) Cut() {
	p.change(func() {
		p.cut = true
		p.endAll()
	})
	p.proxy.Stop()
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
		if err := p.proxy.Start(); err != nil {
			panic(fmt.Sprintf("redistest: the proxy's address %s is gone: %v", p.addr, err))
		}
	}
}

func (p *Proxy) close() {
	p.change(p.endAll)
	p.proxy.Stop()
	// Nothing of the proxy may be left for a test that counts goroutines afterwards.
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		p.change(p.endAll) // Stop lets a connection through that was being accepted
		p.mu.Lock()
		left := len(p.links)
		p.mu.Unlock()
		if left == 0 {
			break
		}
	}
	unregisterProxy(p.id)
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
	for l := range maps.Keys(p.links) {
		l.dead = true
	}
}

func (p *Proxy) endGaps() {
	if p.drop != [2]bool{} {
		return
	}
	for l := range maps.Keys(p.links) {
		l.dead = l.dead || l.gap
	}
}
