package pgtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a client and a server and does to their connections what networks do.
// It knows where a message of Postgres's protocol ends, and so loses whole ones. Its methods
// are safe for concurrent use, act on connections that are open as well as on later ones, and
// take effect before they return. TLS goes through it unseen; nothing but closing can then be
// done to a single request.
//
//	proxy := pgtest.NewProxy(t, srv.Addr())
//	proxy.Latency(0, 200*time.Millisecond)   // replies are late
//	proxy.BlackHole(true, true)              // a partition: silence, in both directions
//	proxy.LoseReplies(1, "acquire")          // carried out, but nobody hears of it
//	proxy.Heal()                             // all is well again
type Proxy struct {
	target string
	addr   string

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced whenever a rule changes
	listener net.Listener
	delay    [2]time.Duration
	drop     [2]bool
	losses   []*loss
	lost     int
	late     map[string]bool // keys, as a CancelRequest names them, of connections of which a request is held
	links    map[*link]bool
	closed   bool
	wg       sync.WaitGroup
}

// The directions.
const (
	up   = iota // from the client
	down        // from the server
)

// loss is an order about requests to come.
type loss struct {
	left  int
	match string
	kind  lossKind
	held  *Held
}

type lossKind int

const (
	loseReply   lossKind = iota // and close the connection
	hangReply                   // and leave it open
	loseRequest                 // and close the connection
	holdRequest
)

// link is one client's connection and the one to the server that belongs to it.
type link struct {
	p              *Proxy
	client, server net.Conn
	unread         chan struct{} // closed when nobody reads from server any more

	// Under the proxy's mutex.
	encrypting bool // one byte comes next, which says whether TLS begins
	opaque     bool // TLS has begun
	asked      int  // requests that end with ReadyForQuery
	answered   int
	mute       int // replies from this one on are lost; 0: none
	hang       bool
	gap        bool   // something was swallowed: what follows cannot be understood
	key        string // what a CancelRequest for this connection carries
	held       *Held
	late       time.Duration // above 0: severed, what is on its way to the server comes so long after it was sent
	over       bool
}

// NewProxy returns a proxy for the server at addr (host:port) on an address of its own. It ends
// with the test.
func NewProxy(tb testing.TB, addr string) *Proxy {
	tb.Helper()
	p := &Proxy{target: addr, addr: fmt.Sprintf("127.0.0.1:%d", freePort()), changed: make(chan struct{}), links: map[*link]bool{}, late: map[string]bool{}}
	p.mu.Lock()
	err := p.listen()
	p.mu.Unlock()
	if err != nil {
		tb.Fatalf("pgtest: proxy for %s: %v", addr, err)
	}
	tb.Cleanup(p.close)
	return p
}

// Addr returns the address that clients connect to, host:port.
func (p *Proxy) Addr() string { return p.addr }

// Redirect sends later connections to another server, as a name that moves does.
func (p *Proxy) Redirect(addr string) { p.change(func() { p.target = addr }) }

// Latency makes every request late by up and every reply by down.
func (p *Proxy) Latency(toServer, toClient time.Duration) {
	p.change(func() { p.delay = [2]time.Duration{up: toServer, down: toClient} })
}

// BlackHole swallows what clients send (up), what the server sends (down), or both. Nobody is
// told: connections stay open, new ones are accepted, and even a close does not get through.
// After it, connections that lost something are closed.
func (p *Proxy) BlackHole(toServer, toClient bool) {
	p.change(func() {
		p.drop = [2]bool{up: toServer, down: toClient}
		p.endGaps()
	})
}

// LoseReplies lets the next n requests that contain match through to the server, and loses the
// replies: the client gets nothing more on that connection, which closes when the server has
// replied. What only prepares a statement is no request; "" matches every one.
func (p *Proxy) LoseReplies(n int, match string) { p.lose(&loss{left: n, match: match}) }

// HangReplies is LoseReplies, but the connection stays open.
func (p *Proxy) HangReplies(n int, match string) {
	p.lose(&loss{left: n, match: match, kind: hangReply})
}

// LoseRequests is LoseReplies for requests: the server never sees them, and the connection
// closes at once. The client cannot tell the two apart.
func (p *Proxy) LoseRequests(n int, match string) {
	p.lose(&loss{left: n, match: match, kind: loseRequest})
}

// Held is a request that is late.
type Held struct {
	p      *Proxy
	taken  chan struct{}
	unit   []byte
	server net.Conn
	unread chan struct{}
}

// HoldRequest keeps the next request that contains match on its way. For its client the
// connection breaks; for the server it lives until [Held.Deliver].
func (p *Proxy) HoldRequest(match string) *Held {
	h := &Held{p: p, taken: make(chan struct{})}
	p.lose(&loss{left: 1, match: match, kind: holdRequest, held: h})
	return h
}

// Taken closes when the request has been caught.
func (h *Held) Taken() <-chan struct{} { return h.taken }

// Deliver lets the request arrive, and returns the server's reply: the messages up to
// ReadyForQuery, and the SQLSTATE if one was an error.
func (h *Held) Deliver(tb testing.TB) (sqlstate string) {
	tb.Helper()
	select {
	case <-h.taken:
	case <-time.After(adminTimeout):
		tb.Fatal("pgtest: nothing came that is to be late")
	}
	defer h.server.Close()
	<-h.unread // who waits at this moment would go on waiting with the new deadline, and take the reply
	_ = h.server.SetDeadline(time.Now().Add(adminTimeout))
	if _, err := h.server.Write(h.unit); err != nil {
		tb.Fatalf("pgtest: delivering what is late: %v", err)
	}
	r := bufio.NewReader(h.server)
	for {
		frame, err := readFrame(r)
		if err != nil {
			tb.Fatalf("pgtest: delivering what is late: %v", err)
		}
		switch frame[0] {
		case 'E':
			for _, field := range bytes.Split(frame[5:], []byte{0}) {
				if len(field) > 0 && field[0] == 'C' {
					sqlstate = string(field[1:])
				}
			}
		case 'Z':
			return sqlstate
		}
	}
}

func (p *Proxy) lose(l *loss) { p.change(func() { p.losses = append(p.losses, l) }) }

// Lost returns how many requests and replies have been lost so far.
func (p *Proxy) Lost() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lost
}

// Reset closes all connections. New ones are accepted.
func (p *Proxy) Reset() { p.change(p.endAll) }

// Sever closes all connections for the client alone: what it has sent, and what has not arrived,
// comes to the server late after it was sent, and then the end of the connection.
func (p *Proxy) Sever(late time.Duration) {
	p.change(func() {
		for l := range p.links {
			l.late = late
			_ = l.client.Close()
		}
	})
}

// Cut closes all connections and refuses new ones until Heal.
func (p *Proxy) Cut() {
	p.change(func() {
		if p.listener != nil {
			_ = p.listener.Close()
			p.listener = nil
		}
		p.endAll()
	})
}

// Heal ends everything that was done to the network.
func (p *Proxy) Heal() {
	p.change(func() {
		p.drop, p.delay, p.losses = [2]bool{}, [2]time.Duration{}, nil
		p.endGaps()
		for l := range p.links {
			if l.hang && l.mute > 0 {
				l.end()
			}
		}
		if p.listener == nil && !p.closed {
			if err := p.listen(); err != nil {
				panic(fmt.Sprintf("pgtest: the proxy's address %s is gone: %v", p.addr, err))
			}
		}
	})
}

func (p *Proxy) close() {
	p.change(func() {
		p.closed = true
		if p.listener != nil {
			_ = p.listener.Close()
			p.listener = nil
		}
		p.endAll()
	})
	p.wg.Wait()
}

func (p *Proxy) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) endAll() {
	for l := range p.links {
		l.end()
	}
}

func (p *Proxy) endGaps() {
	if p.drop != [2]bool{} {
		return
	}
	for l := range p.links {
		if l.gap {
			l.end()
		}
	}
}

// listen needs the mutex.
func (p *Proxy) listen() error {
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.listener = listener
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.wg.Add(1)
			go func() {
				defer p.wg.Done()
				p.serve(client)
			}()
		}
	}()
	return nil
}

func (p *Proxy) serve(client net.Conn) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		_ = client.Close()
		return
	}
	l := &link{p: p, client: client, server: server, unread: make(chan struct{})}
	p.mu.Lock()
	if p.closed || p.listener == nil {
		l.end()
	} else {
		p.links[l] = true
	}
	p.mu.Unlock()
	var wg sync.WaitGroup
	for dir := range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			l.carry(dir)
		}()
	}
	wg.Wait()
	p.mu.Lock()
	l.end()
	delete(p.links, l)
	p.mu.Unlock()
}

// end needs the mutex.
func (l *link) end() {
	l.over = true
	_ = l.client.Close()
	if l.held == nil { // otherwise the server's side lives on
		_ = l.server.Close()
	}
}

// severed says whether the client is gone, and the server does not know.
func (l *link) severed() bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.late > 0
}

// chunk is what is written at once, and not before due.
type chunk struct {
	data []byte
	at   time.Time
}

// carry carries one direction: one goroutine reads, so that each message is late by the delay
// and not by its predecessors' too, and this one writes.
func (l *link) carry(dir int) {
	from, to := l.client, l.server
	if dir == down {
		from, to = l.server, l.client
	}
	chunks := make(chan chunk, 4096)
	go func() {
		defer close(chunks)
		if dir == down {
			defer close(l.unread)
		}
		r := bufio.NewReaderSize(from, 64<<10)
		for {
			data, err := l.read(dir, r)
			if len(data) > 0 {
				chunks <- chunk{data, time.Now()}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range chunks {
		if l.wait(dir, c) {
			if _, err := to.Write(c.data); err != nil && !(dir == down && l.severed()) {
				break
			}
		}
	}
	l.p.mu.Lock()
	// In a black hole a close does not get through either.
	for l.p.drop[dir] && !l.over {
		changed := l.p.changed
		l.gap = true
		l.p.mu.Unlock()
		<-changed
		l.p.mu.Lock()
	}
	if server, ok := l.server.(*net.TCPConn); ok && dir == up && l.late > 0 && !l.over {
		_ = server.CloseWrite() // all has arrived; a close would throw away what the server has not read
	} else {
		l.end()
	}
	l.p.mu.Unlock()
	for range chunks { // the reader may be waiting
	}
}

// wait waits until c is to be written. false: it is swallowed.
func (l *link) wait(dir int, c chunk) bool {
	for {
		l.p.mu.Lock()
		if l.over {
			l.p.mu.Unlock()
			return false
		}
		if l.p.drop[dir] {
			l.gap = true
			l.p.mu.Unlock()
			return false
		}
		if dir == down && l.late > 0 {
			l.p.mu.Unlock()
			return false // its client is gone
		}
		delay := l.p.delay[dir]
		if l.late > 0 {
			delay = l.late
		}
		rest := delay - time.Since(c.at)
		changed := l.p.changed
		l.p.mu.Unlock()
		if rest <= 0 {
			return l.judge(dir, c.data)
		}
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		}
	}
}

// read reads what belongs together: a request up to where its answer is asked for, or a message
// of the server's.
func (l *link) read(dir int, r *bufio.Reader) ([]byte, error) {
	l.p.mu.Lock()
	opaque, first := l.opaque, l.asked == 0
	l.p.mu.Unlock()
	switch {
	case opaque:
		buf := make([]byte, 32<<10)
		n, err := r.Read(buf)
		return buf[:n], err
	case dir == down:
		kind, err := r.Peek(1)
		if err != nil {
			return nil, err
		}
		l.p.mu.Lock()
		encrypting := l.encrypting
		if encrypting {
			l.encrypting, l.opaque = false, kind[0] == 'S'
		}
		l.p.mu.Unlock()
		if encrypting {
			_, err := r.Discard(1)
			return []byte{kind[0]}, err
		}
		return readFrame(r)
	case first:
		return l.readStartup(r)
	}
	var unit []byte
	for {
		frame, err := readFrame(r)
		unit = append(unit, frame...)
		if err != nil {
			return unit, err
		}
		switch frame[0] {
		case 'P', 'B', 'D', 'E', 'C':
		default: // Sync, Query, Flush, Terminate, a password, …
			return unit, nil
		}
	}
}

func readFrame(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(5)
	if err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size < 4 || size > 1<<30 {
		return nil, fmt.Errorf("a message of %d bytes", size)
	}
	frame := make([]byte, 1+size)
	_, err = io.ReadFull(r, frame)
	return frame, err
}

var errLate = errors.New("it cancels what is on its way")

// readStartup reads the first message, which has no type.
func (l *link) readStartup(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(8)
	if err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head)
	if size < 8 || size > 1<<20 {
		return nil, fmt.Errorf("a first message of %d bytes", size)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	switch binary.BigEndian.Uint32(data[4:]) {
	case 80877103, 80877104: // SSLRequest, GSSENCRequest
		l.encrypting = true
	case 80877102: // CancelRequest
		l.opaque = true
		// A client cancels what it gave up. Nothing ran then; it must not stop what is delivered later.
		if l.p.late[string(data[8:])] {
			return nil, errLate
		}
	default:
		l.asked++ // ReadyForQuery follows
	}
	return data, nil
}

// judge compares data with what was ordered. false: it is lost.
func (l *link) judge(dir int, data []byte) bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.opaque || len(data) < 5 {
		return true
	}
	if dir == down {
		if data[0] == 'K' { // BackendKeyData
			l.key = string(data[5:])
		}
		mine := l.mute > 0 && l.answered >= l.mute-1
		if data[0] == 'Z' {
			l.answered++
			if mine && !l.hang {
				l.end()
			}
		}
		return !mine
	}
	executes, answers := kinds(data)
	if executes {
		for i, o := range l.p.losses {
			if l.mute > 0 || !bytes.Contains(data, []byte(o.match)) {
				continue
			}
			if o.left--; o.left <= 0 {
				l.p.losses = append(l.p.losses[:i:i], l.p.losses[i+1:]...)
			}
			l.p.lost++
			switch o.kind {
			case loseReply, hangReply:
				l.mute, l.hang = l.asked+1, o.kind == hangReply
			case loseRequest:
				l.end()
				return false
			case holdRequest:
				l.held = o.held
				l.p.late[l.key] = true
				o.held.unit, o.held.server, o.held.unread = data, l.server, l.unread
				// What reads the server's side must not take the reply.
				_ = l.server.SetReadDeadline(time.Now())
				l.end()
				close(o.held.taken)
				return false
			}
			break
		}
	}
	if answers {
		l.asked++
	}
	return true
}

// kinds says whether a request executes anything, and whether it ends with ReadyForQuery.
func kinds(unit []byte) (executes, answers bool) {
	for len(unit) >= 5 {
		switch unit[0] {
		case 'E':
			executes = true
		case 'Q':
			executes, answers = true, true
		case 'S':
			answers = true
		}
		size := int(binary.BigEndian.Uint32(unit[1:])) + 1
		if size > len(unit) {
			break
		}
		unit = unit[size:]
	}
	return executes, answers
}
