package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// connections is what the seam knows of its connections.
type connections struct {
	dialling atomic.Int64 // from the dial to the first answers
	refusals atomic.Int64 // in a row
	last     atomic.Pointer[dialError]
	opened   atomic.Bool // Open has succeeded
	asked    preflights

	mu    sync.Mutex
	wires map[*wire]struct{}
	paces map[string]pace // by address
}

const (
	// grace is how long a dial waits for the commands that may be waiting for it, and
	// maxRefusals how often it is refused for their sake. Then it is none that waits, but one of
	// another connection.
	grace       = 20 * time.Millisecond
	maxRefusals = 2
)

// dialError is the error of a failed dial. What was to be sent was not sent.
type dialError struct{ error }

func (e *dialError) Unwrap() []error { return []error{driver.ErrRefused, e.error} }

// errNotNow is the error of a dial that was not tried: a caller's, or one that others wait for.
var errNotNow = &dialError{errors.New("there is no connection to the server yet")}

// errNoMaster is the error of a dial that was not tried: the Sentinel knew no master a moment ago.
var errNoMaster = &dialError{errors.New("the Sentinel names no master")}

// dialler dials as opt says.
func (s *seam) dialler(opt rueidis.ClientOption) dialFunc {
	opt.DialCtxFn = dialOf(opt)
	return func(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
		// Background is rueidis's own: at Open, for a Sentinel and what it names, and when a
		// Cluster's nodes are asked for their slots.
		if ctx != context.Background() && ctx.Value(mayDial{}) == nil {
			return nil, errNotNow
		}
		sentinel := ofSentinel(d)
		ofOne := ctx.Value(ofOne{}) != nil
		alone := sentinel || ofOne
		// Not at Open: what it meets is for the configuration to mend. Nor for a List: it dials once.
		paced := s.opened.Load() && !ofOne
		if paced {
			if e := s.pausing(addr, time.Now()); e != nil {
				return nil, e
			}
		}
		s.dialling.Add(1)
		if alone {
			// No command of a caller's waits for it.
		} else if s.distrust(); !s.drained() && s.refusals.Add(1) <= maxRefusals {
			s.dialling.Add(-1)
			return nil, errNotNow
		}
		if !alone {
			s.refusals.Store(0)
		}
		if sentinel = sentinel && s.opened.Load(); sentinel && s.asked.recent(addr) {
			s.dialling.Add(-1)
			return nil, errNoMaster
		}

		timeout := d.Timeout
		if timeout <= 0 {
			timeout = rueidis.DefaultDialTimeout
		}
		ctx, cancel := context.WithTimeout(s.life, timeout)
		defer cancel()
		conn, err := opt.DialCtxFn(ctx, addr, d, conf)
		if err == nil && sentinel {
			if err = preflight(ctx, opt, conn); err != nil {
				_ = conn.Close()
				s.asked.note(addr)
			}
		}
		if err != nil {
			s.dialling.Add(-1)
			e := &dialError{withoutEnd(err)}
			s.last.Store(e)
			if paced {
				s.failed(addr, e)
			}
			return nil, e
		}
		w := &wire{Conn: conn, seam: s}
		if paced && !sentinel { // rueidis closes those to Sentinels whenever it looks for the master
			w.addr, w.born = addr, time.Now()
		}
		if !s.register(w) {
			_ = w.Close()
			return nil, &dialError{driver.ErrClosed}
		}
		return w, nil
	}
}

// pace is how fast an address is dialled, for which no connection has lasted.
type pace struct {
	tries int // since one did
	until time.Time
	why   *dialError
}

// lasting is how long a connection works at least that is made anew at once. A server that refuses the
// login, or says that it has no connection left, does so within it; each attempt of each waiter would
// dial anew, and dials would be all that the client and the server do.
const lasting = 100 * time.Millisecond

// maxPause is how long a dial is refused at most after one that failed: for every try since a connection
// lasted a pause more, up to there.
const (
	pause    = 10 * time.Millisecond
	maxPause = 200 * time.Millisecond
)

// pausing is the error of a dial to addr that is not tried, because another failed a moment ago. It is
// that one's error. A dial that waited instead would hold up a worker, and with it who could be told.
func (s *seam) pausing(addr string, now time.Time) *dialError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.paces[addr]; now.Before(p.until) {
		return p.why
	}
	return nil
}

// failed notes that a dial to addr failed, or that its connection did not last.
func (s *seam) failed(addr string, why *dialError) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paces == nil {
		s.paces = make(map[string]pace)
	}
	// Addresses may be new ones for ever, such as a Cluster's after each restart.
	maps.DeleteFunc(s.paces, func(_ string, p pace) bool { return now.Sub(p.until) > time.Minute })
	tries := s.paces[addr].tries + 1
	s.paces[addr] = pace{tries, now.Add(min(time.Duration(tries)*pause, maxPause)), why}
}

// ended notes how long a connection lasted.
func (s *seam) ended(w *wire) {
	if w.addr == "" || s.life.Err() != nil {
		return
	}
	if time.Since(w.born) < lasting {
		why := "the last connection ended as soon as it was made"
		if said := w.said.Load(); said != nil {
			why = *said
		}
		s.failed(w.addr, &dialError{errors.New(why)})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.paces, w.addr)
}

// ofOne is the key of a value of the ctx with which a client of one caller's own dials.
type ofOne struct{}

// dialledForOne is dial for such a client: what is in flight on other connections says nothing about it.
func dialledForOne(dial dialFunc) dialFunc {
	return func(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
		if ctx == context.Background() { // rueidis's own
			ctx = context.WithValue(ctx, mayDial{}, true)
		}
		return dial(context.WithValue(ctx, ofOne{}, true), addr, d, conf)
	}
}

// dialOf dials as rueidis would with opt.
func dialOf(opt rueidis.ClientOption) dialFunc {
	switch {
	case opt.DialCtxFn != nil:
		return opt.DialCtxFn
	case opt.DialFn != nil: // deprecated, but rueidis would ask it
		return func(_ context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
			return opt.DialFn(addr, d, conf)
		}
	}
	return func(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
		if conf != nil {
			return (&tls.Dialer{NetDialer: d, Config: conf}).DialContext(ctx, "tcp", addr)
		}
		return d.DialContext(ctx, "tcp", addr)
	}
}

// distrust sends all further commands to the workers.
func (s *seam) distrust() {
	for i := range s.lanes {
		s.lanes[i].trust.lose()
	}
}

// drained waits until no direct command is in flight that began before distrust.
func (s *seam) drained() bool {
	for end := time.Now().Add(grace); ; time.Sleep(grace / 100) {
		var n int64
		for i := range s.lanes {
			n += s.lanes[i].direct.Load()
		}
		if n == 0 {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// quiet is whether nothing is being dialled and no connection owes many answers.
func (s *seam) quiet() bool {
	if s.dialling.Load() > 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.wires {
		if w.asked.Load()-w.answers.Load() > maxUnanswered {
			return false
		}
	}
	return true
}

// why is why nothing can be sent, as far as it is known.
func (s *seam) why() string {
	if e := s.last.Load(); e != nil && s.dialling.Load() > 0 {
		return "the server does not answer, and before that, " + e.Error()
	}
	return "the server does not answer"
}

func (s *seam) register(w *wire) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return false
	}
	if s.wires == nil {
		s.wires = make(map[*wire]struct{})
	}
	s.wires[w] = struct{}{}
	return true
}

// up notes that the server has answered all that it was asked so far, or that it never will.
func (s *seam) up() { s.dialling.Add(-1); s.last.Store(nil) }

// unregister is false if w was not registered any more.
func (s *seam) unregister(w *wire) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.wires[w]
	delete(s.wires, w)
	return ok
}

// closeAll closes what is left after rueidis's Close, a connection that was being made then, and
// waits for the workers.
func (s *seam) closeAll() {
	s.cut() // and with it, nobody is hired any more
	s.working.Wait()
}

// cut closes all connections. It does not wait for anything.
func (s *seam) cut() {
	s.mu.Lock()
	left := make([]*wire, 0, len(s.wires))
	for w := range s.wires {
		left = append(left, w)
	}
	s.mu.Unlock()
	for _, w := range left {
		_ = w.Close()
	}
}
