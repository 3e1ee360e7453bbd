package redistest

import (
	"bytes"
	"net"
	"time"
)

// quiet is how long a server must have been silent before a connection that loses a reply is closed. The reply to
// an earlier request may come first, and a close at that point could reach the server before it has read the
// request in question.
const quiet = 30 * time.Millisecond

type direction int

const (
	upstream   direction = iota // from the client
	downstream                  // from the server
)

// link is one client's connection and the connection to the server that belongs to it.
type link struct {
	client, server net.Conn
	pipes          int           // directions that are running
	gap            bool          // bytes were dropped out of the middle: what follows would be garbage, so Heal ends the connection
	mute           bool          // a reply was to be lost: nothing comes down any more
	heard          time.Time     // when mute last swallowed something
	late           time.Duration // severed: what is on its way to the server comes so long after it was sent
	dead           bool
}

// endLocked closes both connections, which also ends reads and writes that wait.
func (l *link) endLocked() {
	l.dead = true
	l.client.Close()
	if l.server != nil {
		l.server.Close()
	}
}

// pipe is one direction of a link, and does what the Proxy says at the moment.
type pipe struct {
	*Proxy
	link *link
	dir  direction
}

// chunk is what one read gave.
type chunk struct {
	data []byte
	at   time.Time
}

// read reads until the connection ends. It reads on while a chunk is being delayed, so that each is late by the delay
// and not by its predecessors' too.
func read(in net.Conn, to chan<- *chunk, done <-chan struct{}) {
	defer close(to)
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			select {
			case to <- &chunk{bytes.Clone(buf[:n]), time.Now()}:
			case <-done:
			}
		}
		if err != nil {
			return
		}
	}
}

// run carries chunks from in to out until the connection ends. A write that fails is not looked at: the other
// direction meets the same end, and whether its client may hear of it depends on what it drops.
func (p *pipe) run(in, out net.Conn) {
	input, done := make(chan *chunk, 1024), make(chan struct{})
	go read(in, input, done)
	defer p.end()
	defer close(done)

	var (
		held    *chunk // taken from the input and not yet written
		checked bool   // held was compared with the losses
		ended   bool   // there is no more input
	)
	for {
		rule, changed := p.rule()
		var more <-chan *chunk
		var timer <-chan time.Time
		switch {
		case rule.dead:
			return
		case held != nil && rule.drop:
			p.dropped()
			held = nil
			continue
		case held != nil && !checked:
			checked = true
			if p.loses(held.data) {
				held = nil
			}
			continue
		case held != nil:
			wait := rule.delay - time.Since(held.at)
			if wait <= 0 {
				_, _ = out.Write(held.data)
				held = nil
				continue
			}
			timer = time.After(wait)
		case ended && !rule.drop:
			out.Close()
			return
		case !ended:
			more = input
		}
		if rule.closeIn > 0 {
			timer = time.After(rule.closeIn)
		}
		select {
		case c := <-more:
			held, checked, ended = c, false, c == nil
		case <-timer:
		case <-changed:
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
	if p.link.late > 0 && p.dir == upstream {
		r.delay = p.link.late
	}
	if p.link.mute && p.dir == downstream {
		r.drop = true
		if !p.link.heard.IsZero() {
			if r.closeIn = quiet - time.Since(p.link.heard); r.closeIn <= 0 {
				p.link.endLocked()
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
func (p *pipe) loses(data []byte) bool {
	if p.dir != upstream {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link.mute {
		return false // this connection has lost its reply
	}
	for i, l := range p.losses {
		if !bytes.Contains(data, []byte(l.match)) {
			continue
		}
		if l.left--; l.left <= 0 {
			p.losses = append(p.losses[:i:i], p.losses[i+1:]...)
		}
		p.lost++
		if l.request {
			p.link.endLocked()
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
		p.link.endLocked() // nobody reads it any more
		delete(p.links, p.link)
	}
}
