package redistest

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
)

// gate is the one toxic of a [Proxy], in both directions of every connection from its first byte on, and does what
// the Proxy says at the moment.
//
// Toxiproxy comes with toxics of its own, to be added and removed. They fall short here. No toxic can tell which
// reply is lost, since none sees both directions. Removing a black hole (timeout, with timeout 0) while data is on
// its way leaves goroutines behind that nothing ends, and a test that counts goroutines then fails. And a black
// hole lets a close through.
type gate struct {
	Proxy     uint64    `json:"proxy"`
	Direction direction `json:"direction"`
}

const gateType = "lockstep_gate"

// quiet is how long a server must have been silent before a connection that loses a reply is closed. The reply to
// an earlier request may come first, and a close at that point could reach the server before it has read the
// request in question.
const quiet = 30 * time.Millisecond

func init() { toxics.Register(gateType, new(gate)) }

// proxies finds the Proxy of a gate: toxiproxy makes toxics out of JSON.
var (
	proxies     sync.Map
	lastProxyID atomic.Uint64
)

func registerProxy(p *Proxy) uint64 {
	id := lastProxyID.Add(1)
	proxies.Store(id, p)
	return id
}

func unregisterProxy(id uint64) { proxies.Delete(id) }

type direction int

const (
	upstream   direction = iota // from the client
	downstream                  // from the server
)

func (d *direction) UnmarshalText(text []byte) error {
	switch string(text) {
	case "upstream":
		*d = upstream
	case "downstream":
		*d = downstream
	default:
		return fmt.Errorf("unknown direction %q", text)
	}
	return nil
}

// GetBufferSize makes toxiproxy read on while a chunk is being delayed, so that each is late by the delay and not
// by its predecessors' too.
func (*gate) GetBufferSize() int { return 1024 }

// pipe is one direction of a link.
type pipe struct {
	*Proxy
	link *link
	dir  direction
}

// NewState is called once for each direction of a new connection, before any data. Toxiproxy accepts one connection
// at a time and starts its upstream first; that is how the two directions find each other.
func (g *gate) NewState() any {
	found, ok := proxies.Load(g.Proxy)
	if !ok {
		return &pipe{Proxy: &Proxy{changed: make(chan struct{})}, link: &link{dead: true}} // the proxy has ended
	}
	p := found.(*Proxy)
	p.mu.Lock()
	defer p.mu.Unlock()
	if g.Direction == upstream {
		p.accepting = &link{pipes: 2, dead: p.cut}
		p.links[p.accepting] = true
	}
	return &pipe{Proxy: p, link: p.accepting, dir: g.Direction}
}

// Pipe carries chunks from stub.Input to stub.Output until the connection ends.
func (*gate) Pipe(stub *toxics.ToxicStub) {
	p := stub.State.(*pipe)
	defer p.end()

	var (
		held    *stream.StreamChunk // taken from the input and not yet handed on
		checked bool                // held was compared with the losses
		ended   bool                // there is no more input
	)
	for {
		rule, changed := p.rule()
		var input <-chan *stream.StreamChunk
		var output chan<- *stream.StreamChunk
		var timer <-chan time.Time
		switch {
		case rule.dead:
			stub.Close()
			// Whoever fills the input must not wait for ever for us to take it.
			for !ended {
				select {
				case c := <-stub.Input:
					ended = c == nil
				case <-stub.Interrupt:
				}
			}
			return
		case held != nil && rule.drop:
			p.dropped()
			held = nil
			continue
		case held != nil:
			if !checked {
				checked = true
				if p.loses(held.Data) {
					held = nil
					continue
				}
			}
			if wait := rule.delay - time.Since(held.Timestamp); wait > 0 {
				timer = time.After(wait)
			} else {
				output = stub.Output
			}
		case ended && !rule.drop:
			stub.Close()
			return
		case !ended:
			input = stub.Input
		}
		if rule.closeIn > 0 {
			timer = time.After(rule.closeIn)
		}
		select {
		case c := <-input:
			held, checked, ended = c, false, c == nil
		case output <- held:
			held = nil
		case <-timer:
		case <-changed:
		case <-stub.Interrupt:
			// Only when toxics are added or removed, which never happens here.
		}
	}
}

// rule is what a pipe has to do at the moment.
type rule struct {
	drop    bool
	delay   time.Duration
	dead    bool
	closeIn time.Duration // if not zero: look again after this time, the link may then be closed
}

func (p *pipe) rule() (rule, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := rule{drop: p.drop[p.dir], delay: p.delay[p.dir]}
	if p.link.mute && p.dir == downstream {
		r.drop = true
		if !p.link.heard.IsZero() {
			if r.closeIn = quiet - time.Since(p.link.heard); r.closeIn <= 0 {
				p.link.dead = true
				p.notify()
			}
		}
	}
	r.dead = p.link.dead
	return r, p.changed
}

// dropped notes that this pipe has swallowed something.
func (p *pipe) dropped() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.link.gap = true
	if p.link.mute && p.dir == downstream {
		p.link.heard = time.Now()
	}
}

// loses compares a chunk with the losses that were ordered. It reports whether the chunk itself is lost.
func (p *pipe) loses(chunk []byte) bool {
	if p.dir != upstream {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link.mute {
		return false // this connection has lost its reply
	}
	for i, l := range p.losses {
		if !bytes.Contains(chunk, []byte(l.match)) {
			continue
		}
		if l.left--; l.left <= 0 {
			p.losses = append(p.losses[:i:i], p.losses[i+1:]...)
		}
		p.lost++
		if l.request {
			p.link.dead = true
		} else {
			p.link.mute = true
		}
		p.notify()
		return l.request
	}
	return false
}

func (p *pipe) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link.pipes--; p.link.pipes <= 0 {
		delete(p.links, p.link)
	}
}
