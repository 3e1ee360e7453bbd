package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// refNet is a reference store behind a network, all of it in this process and in virtual
// time: what the FLT cases are tested with. Its clients keep sessions alive, look whether
// their holds still stand, and believe in nothing for longer than they may.
type refNet struct {
	*refStore
	mu      sync.Mutex
	changed chan struct{} // closed and replaced when anything below, or of a line, changes
	down    bool
	paused  bool
	refuses bool // to grant
	lines   []*refLine

	pausedAt time.Time // the last time
	undone   sync.Map  // the owners whose attempt was taken back
}

// silentFor is for how long nothing has been answered.
func (n *refNet) silentFor() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.paused {
		return 0
	}
	return time.Since(n.pausedAt)
}

func (n *refNet) refusing() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.refuses
}

func (n *refNet) heldByOther(r driver.Request) bool {
	n.refStore.mu.Lock()
	defer n.refStore.mu.Unlock()
	e, ok := n.live(r.Key)
	return ok && e.Owner != r.Owner
}

const (
	refValidity = 2 * time.Second
	refLook     = 2 * time.Millisecond // how often a client looks after each of its holds
	refSilence  = 5 * time.Second      // what a client says of its connections, which never time out
)

// refLine is one client's way.
type refLine struct {
	n                         *refNet
	latency                   time.Duration
	up, down                  bool // swallow
	loseReplies, loseRequests int
	cuts                      int
	severs                    int           // of the cuts, those after which what was on its way came late
	late                      time.Duration // so late
	last                      chan struct{} // closed when the latest request has been carried out
	disorder                  bool          // a mutant: requests overtake each other
}

func (n *refNet) change(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
	close(n.changed)
	n.changed = make(chan struct{})
}

// until waits for ok, which is asked with the mutex held.
func (n *refNet) until(ctx context.Context, ok func() bool) error {
	for {
		n.mu.Lock()
		done, changed := ok(), n.changed
		n.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", driver.ErrUnavailable, ctx.Err())
		}
	}
}

func (l *refLine) heal() {
	l.latency, l.up, l.down, l.loseReplies, l.loseRequests = 0, false, false, 0, 0
	l.cuts++ // what lost bytes cannot go on
}

var errBroken = fmt.Errorf("%w: the connection is broken", driver.ErrUnavailable)

// request is what is asked of the store.
type request func() (driver.Grant, error)

// call carries do to the store, and the answer back. counts says whether what is to be
// lost is this.
func (l *refLine) call(ctx context.Context, counts bool, do request) (driver.Grant, error) {
	var none driver.Grant
	n := l.n
	n.mu.Lock()
	cuts, severs, latency, down := l.cuts, l.severs, l.latency, n.down
	loses := counts && l.loseRequests > 0
	if loses {
		l.loseRequests--
	}
	n.mu.Unlock()
	if down || loses {
		return none, errBroken
	}
	cut := func() bool { return l.cuts != cuts }
	broken := func() (driver.Grant, error) { // the request went into a hole, or the answer did
		if err := n.until(ctx, cut); err != nil {
			return none, err
		}
		return none, errBroken
	}
	n.mu.Lock()
	up := l.up
	n.mu.Unlock()
	if up {
		return broken()
	}
	done := make(chan struct{})
	var answer driver.Grant
	var err error
	n.mu.Lock()
	before := l.last
	l.last = done
	n.mu.Unlock()
	go func() { // it reaches a store that hangs, which carries it out in the end, and in order
		defer close(done)
		time.Sleep(latency)
		n.mu.Lock()
		late := time.Duration(0)
		if l.severs != severs {
			late = l.late - latency
		}
		n.mu.Unlock()
		time.Sleep(late)
		if before != nil && !l.disorder {
			<-before
		}
		_ = n.until(context.Background(), func() bool { return !n.paused })
		answer, err = do()
	}()
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	severed := make(chan struct{})
	go func() {
		if n.until(waiting, func() bool { return l.severs != severs }) == nil {
			close(severed)
		}
	}()
	select {
	case <-done:
	case <-severed:
		return none, errBroken
	case <-ctx.Done():
		return none, fmt.Errorf("%w: %w", driver.ErrUnavailable, ctx.Err())
	}
	n.mu.Lock()
	swallowed := l.down
	loses = counts && l.loseReplies > 0
	if loses {
		l.loseReplies--
	}
	n.mu.Unlock()
	switch {
	case loses:
		return none, errBroken
	case swallowed:
		return broken()
	}
	if latency > 0 { // a timer of 0 in a bubble crashes the race detector now and then (Go 1.26)
		back := time.NewTimer(latency)
		defer back.Stop()
		select {
		case <-back.C:
		case <-ctx.Done():
			return none, fmt.Errorf("%w: %w", driver.ErrUnavailable, ctx.Err())
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if cut() || n.down {
		return none, errBroken
	}
	return answer, err
}

// wired is one client, healthy unless a field breaks it.
type wired struct {
	driver.Backend // what the store does, once a request has come there
	net            *refNet
	line           *refLine
	life           context.Context
	end            context.CancelFunc

	mu    sync.Mutex
	holds map[driver.Owner]*wiredHold

	unanswered sync.Map // the owners of attempts without an answer, which may still be under way

	reconnects harness.Hub

	validity time.Duration // of the sessions at the store
	// What mutants change.
	fromReply     bool // believes from the reply on
	extra         time.Duration
	neverLooks    bool
	sleepsOn      bool          // a new connection wakes nobody
	fragile       bool          // gives a hold up when the connection breaks
	impatient     time.Duration // an internal timeout
	deafToCtx     bool
	deafAfter     time.Duration // deaf to ctx when the store has not answered for so long
	forgetsUndone bool          // what was taken back is granted when it comes
	forgetsCopies bool          // so is a first attempt whose repeat was granted and released
	clientsClock  bool          // names the end of a hold by its own clock
	takesFirst    bool          // asks who holds the key only if it could have been granted
	refusalIsHeld bool          // takes a refusal for contention
}

type wiredHold struct {
	driver.Request
	confirmed time.Time
	stop      context.CancelFunc
}

var (
	_ driver.Notifier = (*wired)(nil)
	_ driver.Handoff  = (*wired)(nil)
)

func (w *wired) ctx(ctx context.Context) (context.Context, context.CancelFunc) {
	if w.deafToCtx || w.deafAfter > 0 && w.net.silentFor() > w.deafAfter {
		return w.life, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(w.life, func() { cancel(driver.ErrClosed) })
	if w.impatient > 0 {
		timer := time.AfterFunc(w.impatient, func() { cancel(errBroken) })
		return ctx, func() { timer.Stop(); stop(); cancel(nil) }
	}
	return ctx, func() { stop(); cancel(nil) }
}

func (w *wired) ask(ctx context.Context, do request) (driver.Grant, error) {
	ctx, cancel := w.ctx(ctx)
	defer cancel()
	g, err := w.line.call(ctx, true, do)
	if w.life.Err() != nil {
		return g, driver.ErrClosed
	}
	return g, err
}

func (w *wired) ttl(r driver.Request) driver.Request {
	if r.TTL == 0 {
		r.TTL = w.validity
	}
	if w.clientsClock {
		r.TTL = max(1, time.Now().Add(r.TTL).Sub(w.net.now()))
	}
	return r
}

func (w *wired) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	sent := time.Now()
	g, err := w.ask(ctx, func() (driver.Grant, error) {
		if _, undone := w.net.undone.Load(r.Owner); undone && !w.forgetsUndone {
			return driver.Grant{}, fmt.Errorf("%w: the attempt was taken back before it arrived", driver.ErrLost)
		}
		if w.net.refusing() && (w.takesFirst || !w.net.heldByOther(r)) {
			if w.refusalIsHeld {
				return driver.Grant{}, driver.ErrHeld
			}
			return driver.Grant{}, fmt.Errorf("%w: the store is full", driver.ErrRefused)
		}
		return w.Backend.Acquire(context.Background(), w.ttl(r))
	})
	if errors.Is(err, driver.ErrUnavailable) {
		w.unanswered.Store(r.Owner, true)
	}
	if err != nil {
		return driver.Grant{}, err
	}
	g.TTL = r.TTL
	if w.fromReply {
		sent = time.Now()
		g.From = sent
	}
	w.watch(r, sent)
	return g, nil
}

func (w *wired) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	g, err := w.ask(ctx, func() (driver.Grant, error) {
		return w.Backend.Extend(context.Background(), h, w.ttl(driver.Request{TTL: ttl}).TTL)
	})
	g.TTL = ttl
	return g, err
}

func (w *wired) Release(ctx context.Context, h driver.Holder) error {
	w.drop(h.Owner)
	_, err := w.ask(ctx, func() (driver.Grant, error) {
		if _, copies := w.unanswered.LoadAndDelete(h.Owner); h.Token == 0 || copies && !w.forgetsCopies {
			w.net.undone.Store(h.Owner, true)
		}
		return driver.Grant{}, w.Backend.Release(context.Background(), h)
	})
	return err
}

// Ping fails where nothing can be granted.
func (w *wired) Ping(ctx context.Context) error {
	_, err := w.ask(ctx, func() (driver.Grant, error) {
		if w.net.refusing() {
			return driver.Grant{}, fmt.Errorf("%w: the store is full", driver.ErrRefused)
		}
		return driver.Grant{}, nil
	})
	return err
}

// HandOff goes to the store each time.
func (w *wired) HandOff(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
	p, ok := w.Backend.(driver.Handoff)
	if !ok {
		return driver.Handed{}, yielded(w.Release(ctx, h))
	}
	w.drop(h.Owner)
	sent := time.Now()
	var owner driver.Owner
	g, err := w.ask(ctx, func() (driver.Grant, error) {
		g, err := p.HandOff(context.Background(), h, w.ttl(r))
		owner = g.Owner
		return g.Grant, err
	})
	if err != nil {
		return driver.Handed{}, err
	}
	g.TTL = r.TTL
	if w.fromReply {
		sent = time.Now()
		g.From = sent
	}
	r.Owner = owner
	w.watch(r, sent)
	return driver.Handed{Grant: g, Owner: owner}, nil
}

func (w *wired) drop(o driver.Owner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.holds[o]; h != nil {
		h.stop()
		delete(w.holds, o)
	}
}

func (w *wired) watch(r driver.Request, sent time.Time) {
	w.drop(r.Owner)
	ctx, stop := context.WithCancel(w.life)
	h := &wiredHold{r, sent, stop}
	w.mu.Lock()
	w.holds[r.Owner] = h
	w.mu.Unlock()
	go w.look(ctx, h)
}

// look asks the store about a hold again and again; each answer renews a session.
func (w *wired) look(ctx context.Context, h *wiredHold) {
	session := h.Session()
	w.net.mu.Lock()
	cuts := w.line.cuts
	w.net.mu.Unlock()
	for ctx.Err() == nil {
		until := h.confirmed.Add(refValidity*99/100 + w.extra)
		if session && !time.Now().Before(until) {
			h.Hold.Lost(fmt.Errorf("silence: %w", driver.ErrUnavailable))
			return
		}
		pause := time.NewTimer(refLook)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		if w.neverLooks {
			if session {
				h.confirmed = time.Now()
			}
			continue
		}
		call, cancel := context.WithDeadline(ctx, until)
		if !session {
			call, cancel = context.WithCancel(ctx)
		}
		sent := time.Now()
		_, err := w.line.call(call, false, func() (driver.Grant, error) {
			if session {
				return w.Backend.Extend(context.Background(), driver.Holder{Key: h.Key, Owner: h.Owner}, w.ttl(h.Request).TTL)
			}
			w.net.refStore.mu.Lock()
			defer w.net.refStore.mu.Unlock()
			if e, ok := w.net.live(h.Key); !ok || e.Owner != h.Owner {
				return driver.Grant{}, driver.ErrLost
			}
			return driver.Grant{}, nil
		})
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, driver.ErrLost):
			h.Hold.Lost(driver.ErrLost)
			return
		case err == nil:
			if h.confirmed = sent; w.fromReply {
				h.confirmed = time.Now()
			}
		}
		w.net.mu.Lock()
		cut := w.line.cuts != cuts
		w.net.mu.Unlock()
		if w.fragile && cut {
			h.Hold.Lost(errBroken)
			return
		}
	}
}

func (w *wired) Notify(key string, wake func()) (stop func()) {
	unheard := w.net.wakes.Notify(key, func() {
		w.net.mu.Lock()
		lost := w.line.down || w.net.down
		w.net.mu.Unlock()
		if !lost {
			wake()
		}
	})
	unwatch := w.reconnects.Notify("", wake) // what was announced meanwhile is lost
	return func() { unheard(); unwatch() }
}

func (w *wired) Capabilities() driver.Capabilities {
	caps := w.Backend.Capabilities()
	caps.SessionValidity = refValidity
	caps.Granularity = 5 * time.Millisecond
	caps.Has &^= driver.NewSet(driver.Listing, driver.Breaking) // it is neither a Lister nor a Breaker
	return caps
}

func (w *wired) Close(ctx context.Context) error {
	w.end()
	return w.Backend.Close(ctx)
}

// refNetTarget is a target with all the faults that need no second process, and a process
// that can be killed. Each client is as alter makes it.
func refNetTarget(alter func(*wired)) func(*testing.T) *Target {
	return func(*testing.T) *Target {
		n := &refNet{refStore: newRefStore(), changed: make(chan struct{})}
		client := func(testing.TB) (driver.Backend, Line) {
			l := &refLine{n: n}
			n.change(func() { n.lines = append(n.lines, l) })
			w := &wired{Backend: newReference(n.refStore), net: n, line: l, holds: map[driver.Owner]*wiredHold{}, validity: refValidity}
			w.life, w.end = context.WithCancel(context.Background())
			if alter != nil {
				alter(w)
			}
			return w, Line{
				Latency:      func(d time.Duration) { n.change(func() { l.latency = d }) },
				BlackHole:    func(up, down bool) { n.change(func() { l.up, l.down = up, down }) },
				LoseReplies:  func(k int) { n.change(func() { l.loseReplies += k }) },
				LoseRequests: func(k int) { n.change(func() { l.loseRequests += k }) },
				Cut: func() {
					n.change(func() { l.cuts++ })
					if !w.sleepsOn {
						w.reconnects.Wake("")
					}
				},
				Sever: func(late time.Duration) {
					n.change(func() { l.cuts++; l.severs++; l.last = nil; l.late = late })
				},
				Heal: func() {
					n.change(func() { l.heal() })
				},
			}
		}
		open := func(tb testing.TB) driver.Backend { b, _ := client(tb); return b }
		cutAll := func() {
			for _, l := range n.lines {
				l.cuts++
			}
		}
		remove := func(_ testing.TB, key string) {
			n.refStore.mu.Lock()
			delete(n.m, key)
			n.refStore.mu.Unlock()
			n.wakes.Wake(key)
		}
		wipe := func(testing.TB) {
			n.refStore.mu.Lock()
			clear(n.m)
			n.refStore.mu.Unlock()
			n.wakes.WakeAll()
		}
		return &Target{Backend: open(nil), Peer: open, Inject: &Inject{
			Open: open, Client: client,
			Pause:      func(testing.TB) { n.change(func() { n.paused, n.pausedAt = true, time.Now() }) },
			Silence:    refSilence,
			Resume:     func(testing.TB) { n.change(func() { n.paused = false }) },
			Kill:       func(tb testing.TB) { n.change(func() { n.down = true; cutAll() }); wipe(tb) },
			Restart:    func(testing.TB) { n.change(func() { n.down = false }); n.wakes.WakeAll() },
			Refuse:     func(testing.TB) { n.change(func() { n.refuses = true }) },
			Accept:     func(testing.TB) { n.change(func() { n.refuses = false }) },
			Disconnect: func(testing.TB) { n.change(cutAll) },
			Delete:     remove, Wipe: wipe,
			Overwrite: func(_ testing.TB, key string) {
				n.refStore.mu.Lock()
				defer n.refStore.mu.Unlock()
				n.m[key] = refEntry{Request: driver.Request{Key: key, Hold: newRecorder()}}
			},
			Skew:    func(_ testing.TB, by time.Duration) { n.now = func() time.Time { return time.Now().Add(by) } },
			Clock:   func(testing.TB) time.Time { return n.now() },
			Process: func(tb testing.TB) Process { return startRefProcess(open(tb).(*wired)) },
		}}
	}
}
