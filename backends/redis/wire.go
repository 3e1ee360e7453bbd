package redis

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// rueidis trusts the server: a reply that nobody asked for is a panic in one of its goroutines,
// and so is a negative length. A panic there cannot be recovered, and ends the user's process.
// It does not take a hostile server: one that is at maxclients says so before it is asked, and so
// do some proxies and many servers that are no Redis. wire therefore reads along, and what would
// end the process ends the connection.
//
// It costs about 0.15 µs for a call (BenchmarkWire). Waiting with the first Read for the first Write is less, and
// enough for maxclients, but not for a proxy that says something before it closes an idle
// connection.

// The limits of a reply. Redis's own are that a string has 512 MB at most (proto-max-bulk-len) and
// that no command used here nests deeper than CLUSTER SHARDS, which is five. rueidis reads replies
// recursively and allocates what a length announces before it has arrived.
const (
	maxBulk     = 512 << 20
	maxElements = 1 << 20 // of all arrays and maps that one reply holds
	maxNesting  = 16
	maxLine     = 64 << 10
)

// wire is a connection whose two directions are read along.
type wire struct {
	net.Conn
	asked atomic.Int64 // commands written
	out   outgoing     // the writing goroutine's
	in    incoming     // the reading goroutine's
	subs  atomic.Bool  // a subscription was asked for

	seam    *seam        // may be nil
	answers atomic.Int64 // in.answered
	settled atomic.Bool  // the seam knows how the dial ended

	addr string // where it leads to, and
	born time.Time
	said atomic.Pointer[string] // the first error that the server gave meanwhile: why it may not last
}

func (w *wire) Write(b []byte) (int, error) {
	n, subs := w.out.scan(b)
	if subs {
		w.subs.Store(true)
	}
	w.asked.Add(n) // before the server can answer
	written, err := w.Conn.Write(b)
	if w.seam != nil && w.seam.inFlight.Load() >= crowd {
		runtime.Gosched()
	}
	return written, err
}

// crowd is how many calls must be in flight for the connection's writer to yield the processor
// after each write.
//
// rueidis writes all commands of a connection in one goroutine, and those that are queued
// together in one system call. That goroutine loops faster than callers can queue, so that most
// writes carry one command. Yielding lets whoever is about to queue do so: measured with 64
// callers, 1.3 to 1.5 times the throughput at 55 % of the CPU time. A pause does less, and
// rueidis's own, MaxFlushDelay, makes two to four callers wait 20 % longer.
//
// With few callers there is nothing to gather. Nor is yielding free where other goroutines
// compute all the time, because it lasts until they have had their turn: with 20 of those on two
// cores, 32 callers waited half as long again, 0.9 s for a pair.
const crowd = 8

func (w *wire) Read(b []byte) (int, error) {
	if w.in.fault != nil {
		return 0, w.in.fault
	}
	n, err := w.Conn.Read(b)
	if good := w.in.scan(w, b[:n]); w.in.fault != nil {
		w.says(w.in.fault.Error())
		_ = w.Close()
		return good, w.in.fault
	}
	w.answers.Store(w.in.answered)
	if !w.settled.Load() && w.in.answered > 0 && w.in.answered >= w.asked.Load() {
		w.settle()
	}
	return n, err
}

func (w *wire) Close() error {
	w.settle()
	if w.seam != nil && w.seam.unregister(w) {
		w.seam.ended(w)
	}
	return w.Conn.Close()
}

// says keeps the first error of a connection whose login is not through.
func (w *wire) says(text string) {
	if !w.settled.Load() {
		w.said.CompareAndSwap(nil, &text)
	}
}

func (w *wire) settle() {
	if !w.settled.Swap(true) && w.seam != nil {
		w.seam.up()
	}
}

// outgoing counts commands in what rueidis writes, which is well-formed.
type outgoing struct {
	num   int  // the number that is being read
	skip  int  // bytes of an argument, with its line end
	array bool // num is that of the arguments
	first bool // the next argument is the command's name
	name  []byte
}

func (r *outgoing) scan(b []byte) (commands int64, subs bool) {
	num, skip := r.num, r.skip // in registers: this is the hot path
	for len(b) > 0 {
		if skip > 0 {
			k := min(skip, len(b))
			if r.first {
				r.name = append(r.name, b[:k]...)
				if skip == k {
					r.first = false
					subs = subs || isSubscription(r.name[:len(r.name)-2])
				}
			}
			b = b[k:]
			skip -= k
			continue
		}
		c := b[0]
		b = b[1:]
		switch {
		case c-'0' <= 9:
			num = num*10 + int(c-'0')
		case c == '\n' && r.array:
			commands++
			r.first, r.name = true, r.name[:0]
		case c == '\n':
			skip = num + 2
			r.first = r.first && num >= len("SUBSCRIBE") // most names are shorter
		case c != '\r':
			num, r.array = 0, c == '*'
		}
	}
	r.num, r.skip = num, skip
	return commands, subs
}

// isSubscription is true for SUBSCRIBE, UNSUBSCRIBE, PSUBSCRIBE, and so on.
func isSubscription(name []byte) bool {
	return len(name) >= 9 && len(name) <= 12 && bytes.EqualFold(name[len(name)-9:], []byte("SUBSCRIBE"))
}

// frame is an array or a map of which elements are still to come.
type frame struct {
	left int
	kind byte // its type
}

// incoming is where in a reply the reading is.
type incoming struct {
	at       int // what comes next
	typ      byte
	num      int // of the header that is being read
	digits   int
	minus    bool
	skip     int // bytes of a string, with its line end
	line     int // bytes of a line so far
	frames   [maxNesting]frame
	depth    int
	open     int    // elements of the reply so far
	kindNext bool   // what comes next is the first element of a push,
	naming   bool   // which is being read,
	kind     []byte // so far

	answered int64 // replies so far, and those that may come
	allowed  int64
	isPush   bool // what is read is not an answer
	pushed   bool // the server speaks RESP3
	fault    error
}

// The values of incoming.at.
const (
	atType   = iota
	atLine   // of a simple string, an error or a number
	atHeader // of anything with a length
	atNewline
	atBody
	atTail // of a null or a boolean
)

// scan reads b, and returns how many of its bytes rueidis may see.
func (r *incoming) scan(w *wire, b []byte) int {
	i := 0
	for i < len(b) && r.fault == nil {
		var n int
		switch r.at {
		case atType:
			n, r.fault = oneByte(r.begin(w, b[i:]))
		case atLine:
			n, r.fault = r.endOfLine(b[i:])
		case atHeader, atNewline:
			n, r.fault = oneByte(r.header(b[i]))
		case atBody:
			n, r.fault = r.body(w, b[i:])
		case atTail:
			n, r.fault = oneByte(r.tail(b[i]))
		}
		i += n
	}
	return i
}

// oneByte is how many bytes rueidis may see of one: none if it is at fault.
func oneByte(err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return 1, nil
}

// endOfLine skips a line, or what has come of it.
func (r *incoming) endOfLine(b []byte) (n int, err error) {
	end := bytes.IndexByte(b, '\n')
	n = end + 1
	if end < 0 {
		n = len(b)
	}
	if r.line += n; r.line > maxLine {
		return n, errors.New("the server sent a line of more than 64 KB")
	}
	if end >= 0 {
		r.at = atType
		r.complete()
	}
	return n, nil
}

// body skips a string, or what has come of it, and keeps it if it is the kind of a push.
func (r *incoming) body(w *wire, b []byte) (n int, err error) {
	n = min(r.skip, len(b))
	if r.naming {
		r.kind = append(r.kind, b[:n]...)
	}
	if r.skip -= n; r.skip > 0 {
		return n, nil
	}
	if r.naming {
		r.naming = false
		if kind := r.kind[:len(r.kind)-2]; isSubscription(kind) && !w.subs.Load() {
			return n - 1, fmt.Errorf("the server spoke unasked: a push %q", kind) // its last byte is not seen
		}
	}
	r.at = atType
	r.complete()
	return n, nil
}

// tail reads one byte of what follows the type of a null or a boolean. rueidis skips it: it must
// be what it takes it for.
func (r *incoming) tail(c byte) error {
	want := [...]string{"tf", "\r", "\n"}[r.line]
	if strings.IndexByte(want, c) < 0 {
		return errors.New("the server sent a malformed null or boolean")
	}
	if r.line++; r.line == len("t\r\n") {
		r.at = atType
		r.complete()
	}
	return nil
}

// begin reads the type of what begins at b.
func (r *incoming) begin(w *wire, b []byte) error {
	r.typ = b[0]
	top := r.depth == 0
	if top {
		r.open = 0
		// With RESP2, what is published comes as an array.
		push := r.typ == '>' || r.typ == '*' && !r.pushed && w.subs.Load()
		r.isPush, r.kindNext = push, false
		r.pushed = r.pushed || r.typ == '>' || r.typ == '%'
		if !push && r.typ != '|' {
			if r.answered >= r.allowed {
				r.allowed = w.asked.Load()
			}
			if r.answered >= r.allowed {
				return unasked(b)
			}
		}
	} else if r.kindNext {
		if r.typ != '$' {
			return fmt.Errorf("the server sent a push that begins with %q instead of its kind", r.typ)
		}
		r.kindNext, r.naming, r.kind = false, true, r.kind[:0]
	}
	r.num, r.digits, r.minus, r.line = 0, 0, false, 0
	switch r.typ {
	case '+', '-', ':', ',', '(':
		r.at = atLine
		if r.typ == '-' && top {
			w.says(firstLine(b[1:]))
		}
	case '$', '!', '=', '*', '~', '%', '|':
		r.at = atHeader
	case '>':
		if !top {
			return errors.New("the server sent a push inside of a reply")
		}
		r.at, r.kindNext = atHeader, true
	case '_':
		r.at, r.line = atTail, 1
	case '#':
		r.at = atTail
	default:
		return fmt.Errorf("the server does not speak Redis's protocol: %s", excerpt(b))
	}
	return nil
}

// header reads one byte of a length.
func (r *incoming) header(c byte) error {
	malformed := func() error {
		return fmt.Errorf("the server sent a malformed length of a %q", r.typ)
	}
	if r.at == atNewline {
		if c != '\n' {
			return malformed()
		}
		r.length()
		return nil
	}
	switch {
	case c == '-' && r.digits == 0 && !r.minus:
		r.minus = true
	case c >= '0' && c <= '9' && r.digits < 10:
		r.num, r.digits = r.num*10+int(c-'0'), r.digits+1
	case c == '\r' && r.digits > 0:
		r.at = atNewline
		if r.minus && (r.num != 1 || r.typ == '%' || r.typ == '|') {
			return malformed()
		}
		return r.announced() // here, not after the newline: with that, rueidis would allocate it
	default:
		return malformed()
	}
	return nil
}

// announced judges a length before the line that says it has ended.
func (r *incoming) announced() error {
	limit := maxElements - r.open
	switch r.typ {
	case '$', '!', '=':
		limit = maxBulk
	case '%', '|':
		limit /= 2
	}
	if r.num > limit {
		return fmt.Errorf("the server announced a %q of %d, more than the %d allowed", r.typ, r.num, limit)
	}
	if limit != maxBulk && !r.minus && r.num > 0 && r.depth == maxNesting {
		return fmt.Errorf("the server sent a reply nested more than %d deep", maxNesting)
	}
	return nil
}

// length goes on after a header.
func (r *incoming) length() {
	r.at = atType
	switch {
	case r.minus: // a null of RESP2
		r.naming = false
		r.complete()
	case r.typ == '$' || r.typ == '!' || r.typ == '=':
		r.at, r.skip = atBody, r.num+2
	default:
		n := r.num
		if r.typ == '%' || r.typ == '|' {
			n *= 2
		}
		r.open += n
		if n > 0 {
			r.frames[r.depth] = frame{n, r.typ}
			if r.depth == 0 && r.isPush {
				r.frames[0].kind = '>'
			}
			r.depth++
		} else if r.typ != '|' {
			r.complete()
		}
	}
}

// complete notes that an element has been read, and what else ends with it.
func (r *incoming) complete() {
	last := r.typ
	for r.depth > 0 {
		f := &r.frames[r.depth-1]
		if f.left--; f.left > 0 {
			return
		}
		r.depth--
		if last = f.kind; last == '|' {
			return // attributes: what they belong to follows
		}
	}
	if last != '>' {
		r.answered++
	}
}

func unasked(b []byte) error { return fmt.Errorf("the server spoke unasked: %s", excerpt(b)) }

// excerpt is the first line of b. It is longer than what secrets.words shows of it, so that the cut
// comes after the secrets were hidden: nobody finds half a secret.
func excerpt(b []byte) string {
	line := firstLine(b)
	return fmt.Sprintf("%q", line[:min(len(line), 4*maxWords)])
}

func firstLine(b []byte) string {
	if end := bytes.IndexAny(b, "\r\n"); end >= 0 {
		b = b[:end]
	}
	return string(b)
}
