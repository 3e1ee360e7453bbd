package harness

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Tap stands between the core and a backend. It writes the calls into the history,
// counts them, and fails them as the case asks, so that what the contract says about
// outages is proven on backends without a network too: what is under test is the
// core's behaviour, and that the real backend bears repetitions.
//
// It has no Unwrap: the core sees the abilities that the case wants it to see, see
// [Trial.Tap].
type Tap struct {
	c     *Trial
	name  string
	Inner driver.Backend
	hints Hub

	mu       sync.Mutex
	counts   map[string]int
	once     map[string][]Fault
	always   Fault
	isDown   bool
	isDeaf   bool
	last     map[string]driver.Holder   // by key, what was granted last
	heard    map[string]driver.Listener // by key, who has it
	sick     context.Context            // ends when faults do
	heal     context.CancelFunc
	up       context.Context // ends when the backend goes down
	fall     context.CancelFunc
	muted    bool
	late     chan struct{} // losses are told when it is closed; nil: at once
	hinted   int           // wake-ups that the backend has given
	doubts   int           // attempts whose outcome the core cannot know
	refusals int           // attempts that were answered with ErrHeld
	handOffs int           // holds that were handed off
	turn     int           // of them since the last one that failed, as at the end of a turn, or the last grant
	longest  int           // turn
	holds    map[driver.Owner]driver.Listener
	ttl      time.Duration // of the last call that has one
	called   time.Time     // when that was
}

// The operations, as history and faults name them.
const (
	OpAcquire = "acquire"
	OpWait    = "wait"
	OpExtend  = "extend"
	OpRelease = "release"
	OpHandOff = "pass" // counts and fails as OpRelease
	OpClose   = "close"
)

// Fault does what a call does instead of only making it.
type Fault func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error)

var errInjected = fmt.Errorf("%w (injected by the suite)", driver.ErrUnavailable)

// Refuse is a fault: the request never reached the store.
func Refuse(context.Context, func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
	return driver.Grant{}, errInjected
}

// Lose is a fault: the request was carried out, and the reply lost.
func Lose(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
	_, _ = call(ctx)
	return driver.Grant{}, errInjected
}

// LoseAfter is Lose that does not come to know of it before gate closes. It closes carried when the
// request has been carried out.
func LoseAfter(carried chan<- struct{}, gate <-chan struct{}) Fault {
	return func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
		_, _ = call(ctx)
		close(carried)
		select {
		case <-gate:
		case <-ctx.Done():
			return driver.Grant{}, fmt.Errorf("%w: %w", errInjected, ctx.Err())
		}
		return driver.Grant{}, errInjected
	}
}

// SlowReply is a fault: the reply takes d.
func SlowReply(d time.Duration) Fault {
	return func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
		g, err := call(ctx)
		time.Sleep(d)
		return g, err
	}
}

// SlowRequest is a fault: the request takes d.
func SlowRequest(d time.Duration) Fault {
	return func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
		time.Sleep(d)
		return call(ctx)
	}
}

// Hang is a fault: no reply and no error, until the caller's patience ends. The request was lost.
func Hang(ctx context.Context, _ func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
	<-ctx.Done()
	return driver.Grant{}, fmt.Errorf("%w: %w", errInjected, ctx.Err())
}

// HangAfter is hang where the request was carried out.
func HangAfter(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
	_, _ = call(ctx)
	<-ctx.Done()
	return driver.Grant{}, fmt.Errorf("%w: %w", errInjected, ctx.Err())
}

// Answer is a fault: the store says err.
func Answer(err error) Fault {
	return func(context.Context, func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
		return driver.Grant{}, err
	}
}

// Next makes the next call of op fail with f; several of them queue.
func (t *Tap) Next(op string, f Fault) {
	t.c.Tamper()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.once[op] = append(t.once[op], f)
}

// All makes every call fail with f, until f is nil. Calls that hang then end too: nobody
// shall wait for the end of a fault that is over.
func (t *Tap) All(f Fault) {
	t.c.Tamper()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.always = f; f == nil {
		t.heal()
		t.sick, t.heal = context.WithCancel(context.Background())
	}
}

// Down cuts the client off: calls are refused, those that wait end, wake-ups are lost.
func (t *Tap) Down() {
	t.c.Tamper()
	t.c.Hist.Add("%s  (cut off from the store)", t.name)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isDown = true
	t.fall()
}

// Deaf keeps wake-ups from the core.
func (t *Tap) Deaf() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isDeaf = true
}

// Vanish frees key in the store behind the core's back, as somebody would who deletes it where
// nobody is told.
func (t *Tap) Vanish(ctx context.Context, key string) error {
	t.mu.Lock()
	h := t.last[key]
	t.mu.Unlock()
	t.c.Hist.Add("%s  (%s vanishes)", t.name, t.c.Short(key))
	return t.Inner.Release(ctx, h)
}

// note keeps what was granted, and to whom. mu is held.
func (t *Tap) note(h driver.Holder, l driver.Listener) {
	if t.last == nil {
		t.last, t.heard = map[string]driver.Holder{}, map[string]driver.Listener{}
	}
	t.last[h.Key], t.heard[h.Key] = h, l
}

// Restore ends down.
func (t *Tap) Restore() {
	t.c.Hist.Add("%s  (reaches the store again)", t.name)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isDown = false
	t.up, t.fall = context.WithCancel(context.Background())
}

// Mute keeps losses that the backend reports from the core.
func (t *Tap) Mute() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.muted = true
}

// Lost reports a loss to the core as the backend would, of every hold there is.
func (t *Tap) Lost(cause error) {
	t.mu.Lock()
	var all []driver.Listener
	for _, l := range t.holds {
		all = append(all, l)
	}
	t.mu.Unlock()
	for _, l := range all {
		l.Lost(cause)
	}
}

// Lose takes the hold on key away, and reports it to the core as a backend would.
func (t *Tap) Lose(key string) {
	t.mu.Lock()
	h := t.last[key]
	l := t.heard[key]
	t.mu.Unlock()
	t.c.Hist.Add("%s  (%s is taken away)", t.name, t.c.Short(key))
	l.Lost(driver.ErrLost)
	_ = t.Inner.Release(context.Background(), h)
}

// Count is how many calls of ops there have been; of all, with none.
func (t *Tap) Count(ops ...string) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for op, k := range t.counts {
		if len(ops) == 0 || slices.Contains(ops, op) {
			n += k
		}
	}
	return n
}

// Refused is how many attempts have been answered with ErrHeld.
func (t *Tap) Refused() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refusals
}

// WakeUps is how many wake-ups the backend has given.
func (t *Tap) WakeUps() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hinted
}

// Doubted is how many attempts there have been whose outcome the core cannot know.
func (t *Tap) Doubted() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.doubts
}

// HandOffs is how many holds this client has handed off from one owner to the next.
func (t *Tap) HandOffs() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.handOffs
}

// LongestTurn is how many holds this client has handed off one after the other at most.
func (t *Tap) LongestTurn() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.longest
}

// asks notes when the store is asked for which ttl.
func (t *Tap) asks(ttl time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ttl, t.called = ttl, time.Now()
}

// LastCall is when the store was last asked for a hold or an extension, and for which ttl.
func (t *Tap) LastCall() (at time.Time, ttl time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.called, t.ttl
}

// do makes one call, or what a fault makes of it.
func (t *Tap) do(ctx context.Context, op string, call func(context.Context) (driver.Grant, error), what string, args ...any) (driver.Grant, error) {
	as := op
	if op == OpHandOff {
		as = OpRelease // it is one, whether or not somebody waits
	}
	t.mu.Lock()
	t.counts[as]++
	f := t.always
	if q := t.once[as]; len(q) > 0 {
		f, t.once[as] = q[0], q[1:]
	}
	if t.isDown {
		f = Refuse
	}
	sick := t.sick
	t.mu.Unlock()
	t.c.advance()
	call = t.guarded(op, call)
	note := ""
	var g driver.Grant
	var err error
	if f == nil {
		g, err = call(ctx)
	} else {
		reached := ", which did not reach the store"
		hanging, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(sick, cancel)()
		g, err = f(hanging, func(context.Context) (driver.Grant, error) {
			g, err := call(ctx)
			reached = ", which the store answered with " + outcome(g, err)
			return g, err
		})
		note = " (fault" + reached + ")"
	}
	what = fmt.Sprintf(what, args...) // only now: it takes longer than some calls
	if (op == OpAcquire || op == OpWait) && err != nil && !errors.Is(err, driver.ErrHeld) {
		t.mu.Lock()
		t.doubts++
		t.mu.Unlock()
	}
	if errors.Is(err, driver.ErrHeld) {
		t.mu.Lock()
		t.refusals++
		t.mu.Unlock()
	}
	fold := ""
	if f == nil && errors.Is(err, driver.ErrHeld) {
		fold = t.name + op + what
	}
	t.c.Hist.Fold(fold, "%s    %s %s → %s%s", t.name, op, what, outcome(g, err), note)
	return g, err
}

// guarded makes a panic of the backend a failure of the case: the core may call it from a
// goroutine of its own, where a panic would end the test binary and name no clause.
func (t *Tap) guarded(op string, call func(context.Context) (driver.Grant, error)) func(context.Context) (driver.Grant, error) {
	return func(ctx context.Context) (g driver.Grant, err error) {
		defer func() {
			if p := recover(); p != nil {
				t.c.add(t.c.text(t.c.ID, "no panic of the backend's "+op, fmt.Sprintf("panic: %v", p), "") + "\n" + Indent(string(debug.Stack()), "    "))
				t.c.cancel()
				g, err = driver.Grant{}, fmt.Errorf("%w: it has panicked: %v", driver.ErrUnavailable, p)
			}
		}()
		return call(ctx)
	}
}

func outcome(g driver.Grant, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case g.Token == 0:
		return "ok"
	}
	return fmt.Sprintf("token %d", g.Token)
}

// Acquire implements driver.Backend.
func (t *Tap) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	return t.acquire(ctx, r, t.Inner.Acquire)
}

func (t *Tap) acquire(ctx context.Context, r driver.Request, ask func(context.Context, driver.Request) (driver.Grant, error)) (driver.Grant, error) {
	t.asks(r.TTL)
	r.Hold = t.listen(r)
	g, err := t.do(ctx, OpAcquire, func(ctx context.Context) (driver.Grant, error) { return ask(ctx, r) },
		"%s #%d %s", t.c.Short(r.Key), r.Owner.Seq, KindOf(r.TTL))
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(err, driver.ErrHeld) {
		delete(t.holds, r.Owner)
	}
	if err == nil {
		t.turn = 0
		t.note(driver.Holder{Key: r.Key, Owner: r.Owner, Token: g.Token, Session: r.Session()}, r.Hold)
	}
	return g, err
}

// AcquireAll counts and fails as one acquire. Where the backend cannot do it, nothing is counted.
func (t *Tap) AcquireAll(ctx context.Context, rs []driver.Request) (grants []driver.Grant, at int, err error) {
	inner, ok := driver.As[driver.Together](t.Inner)
	if !ok {
		return nil, -1, driver.ErrNotTogether
	}
	t.asks(rs[0].TTL)
	rs, names := slices.Clone(rs), make([]string, len(rs))
	for i := range rs {
		rs[i].Hold = t.listen(rs[i])
		names[i] = fmt.Sprintf("%s #%d", t.c.Short(rs[i].Key), rs[i].Owner.Seq)
	}
	at = -1
	_, err = t.do(ctx, OpAcquire, func(ctx context.Context) (driver.Grant, error) {
		grants, at, err = inner.AcquireAll(ctx, rs)
		return driver.Grant{}, err
	}, "%s %s", strings.Join(names, ", "), KindOf(rs[0].TTL))
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		if errors.Is(err, driver.ErrHeld) {
			for _, r := range rs {
				delete(t.holds, r.Owner)
			}
		}
		return nil, at, err
	}
	for i, g := range grants {
		if i < len(rs) {
			t.note(driver.Holder{Key: rs[i].Key, Owner: rs[i].Owner, Token: g.Token, Session: rs[i].Session()}, rs[i].Hold)
		}
	}
	return grants, at, nil
}

func (t *Tap) wait(ctx context.Context, r driver.Request) (driver.Grant, error) {
	w, ok := driver.As[driver.Waiter](t.Inner)
	if !ok {
		return driver.Grant{}, driver.ErrUnsupported
	}
	t.asks(r.TTL)
	r.Hold = t.listen(r)
	t.mu.Lock()
	up := t.up
	t.mu.Unlock()
	g, err := t.do(ctx, OpWait, func(ctx context.Context) (driver.Grant, error) {
		wctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(up, cancel)()
		t.c.Hist.Add("%s    wait %s #%d …", t.name, t.c.Short(r.Key), r.Owner.Seq)
		g, err := w.Wait(wctx, r)
		if up.Err() != nil {
			return driver.Grant{}, errInjected // whatever it was, the reply was lost
		}
		return g, err
	}, "%s #%d %s", t.c.Short(r.Key), r.Owner.Seq, KindOf(r.TTL))
	if err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.note(driver.Holder{Key: r.Key, Owner: r.Owner, Token: g.Token, Session: r.Session()}, r.Hold)
	}
	return g, err
}

// Extend implements driver.Backend.
func (t *Tap) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	return t.extend(ctx, h, ttl, t.Inner.Extend)
}

func (t *Tap) extend(ctx context.Context, h driver.Holder, ttl time.Duration, how func(context.Context, driver.Holder, time.Duration) (driver.Grant, error)) (driver.Grant, error) {
	t.asks(ttl)
	return t.do(ctx, OpExtend, func(ctx context.Context) (driver.Grant, error) {
		g, err := how(ctx, h, ttl)
		t.c.hub.Wake(h.Key) // it may be to less
		return g, err
	},
		"%s #%d token %d to %s", t.c.Short(h.Key), h.Owner.Seq, h.Token, ttl)
}

// Release implements driver.Backend.
func (t *Tap) Release(ctx context.Context, h driver.Holder) error {
	_, err := t.do(ctx, OpRelease, func(ctx context.Context) (driver.Grant, error) {
		err := t.Inner.Release(ctx, h)
		t.c.hub.Wake(h.Key)
		return driver.Grant{}, err
	}, "%s #%d token %d", t.c.Short(h.Key), h.Owner.Seq, h.Token)
	t.mu.Lock()
	delete(t.holds, h.Owner)
	t.mu.Unlock()
	return err
}

func (t *Tap) handOff(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
	p, ok := driver.As[driver.Handoff](t.Inner)
	if !ok {
		return driver.Handed{}, driver.ErrUnsupported
	}
	t.asks(r.TTL)
	core, l := r.Hold, &listener{t: t, r: r}
	r.Hold = l
	var owner driver.Owner
	g, err := t.do(ctx, OpHandOff, func(ctx context.Context) (driver.Grant, error) {
		g, err := p.HandOff(ctx, h, r)
		if err != nil {
			t.c.hub.Wake(h.Key)
		}
		owner = g.Owner
		return g.Grant, err
	}, "%s #%d token %d to #%d %s", t.c.Short(h.Key), h.Owner.Seq, h.Token, r.Owner.Seq, KindOf(r.TTL))
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.holds, h.Owner)
	if l.gone = err != nil; l.gone {
		t.turn = 0
		return driver.Handed{}, err
	}
	t.handOffs++
	t.turn++
	t.longest = max(t.longest, t.turn)
	t.holds[owner] = core
	t.note(driver.Holder{Key: h.Key, Owner: owner, Token: g.Token}, core)
	return driver.Handed{Grant: g, Owner: owner}, nil
}

// Queue is Acquire for a backend that keeps no order among processes.
func (t *Tap) Queue(ctx context.Context, r driver.Request) (driver.Grant, error) {
	if q, ok := driver.As[driver.Queuer](t.Inner); ok {
		return t.acquire(ctx, r, q.Queue)
	}
	return t.acquire(ctx, r, t.Inner.Acquire)
}

// SessionErr asks the backend's clock, if it has one.
func (t *Tap) SessionErr(h driver.Holder) error {
	if c, ok := driver.As[driver.SessionClock](t.Inner); ok {
		return c.SessionErr(h)
	}
	return nil
}

// Leave asks the backend, if its Close would otherwise free what is left.
func (t *Tap) Leave(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	if v, ok := driver.As[driver.Leaver](t.Inner); ok {
		return t.extend(ctx, h, ttl, v.Leave)
	}
	return t.extend(ctx, h, ttl, t.Inner.Extend)
}

// Capabilities implements driver.Backend.
func (t *Tap) Capabilities() driver.Capabilities { return t.Inner.Capabilities() }

// Close implements driver.Backend.
func (t *Tap) Close(ctx context.Context) error {
	_, err := t.do(ctx, OpClose, func(ctx context.Context) (driver.Grant, error) {
		err := t.Inner.Close(ctx)
		t.c.hub.WakeAll()
		return driver.Grant{}, err
	}, "")
	return err
}

// notify asks the backend for hints, or makes some from what goes through the taps, so
// that the core's own loop can be run over a backend that has no need of hints.
func (t *Tap) notify(key string, wake func()) (stop func()) {
	through := func() {
		t.mu.Lock()
		down := t.isDown || t.isDeaf
		t.hinted++
		t.mu.Unlock()
		if !down {
			wake()
		}
	}
	ask := t.c.hub.Notify
	if n, ok := driver.As[driver.Notifier](t.Inner); ok {
		ask = n.Notify
	}
	unhint, unask := t.hints.Notify(key, through), ask(key, through)
	return func() { unhint(); unask() }
}

// Hint is a wake-up that leads to nothing.
func (t *Tap) Hint(key string) { t.hints.Wake(key) }

// KindOf is what a ttl asks for, in the words of the history.
func KindOf(ttl time.Duration) string {
	if ttl == 0 {
		return "session"
	}
	return "lease " + ttl.String()
}

// listener tells losses to the core, and into the history.
type listener struct {
	t    *Tap
	r    driver.Request
	gone bool // nothing was granted, as far as the core knows
}

func (t *Tap) listen(r driver.Request) driver.Listener {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holds[r.Owner] = r.Hold
	return &listener{t: t, r: r}
}

func (l *listener) Lost(cause error) {
	l.t.mu.Lock()
	muted, late := l.t.muted || l.gone, l.t.late
	l.t.mu.Unlock()
	l.t.c.Hist.Add("%s    lost %s #%d: %v", l.t.name, l.t.c.Short(l.r.Key), l.r.Owner.Seq, cause)
	switch {
	case muted:
	case late != nil:
		go func() {
			<-late
			l.r.Hold.Lost(cause)
		}()
	default:
		l.r.Hold.Lost(cause)
	}
}

// LateLosses holds back what the backend tells of losses until tell is called.
func (t *Tap) LateLosses() (tell func()) {
	late := make(chan struct{})
	t.mu.Lock()
	t.late = late
	t.mu.Unlock()
	return sync.OnceFunc(func() {
		t.mu.Lock()
		t.late = nil
		t.mu.Unlock()
		close(late)
	})
}

// The abilities that a case may show to the core beside the tap itself.
type (
	tapWaiter   struct{ t *Tap }
	tapNotifier struct{ t *Tap }
	tapHandoff  struct{ t *Tap }
)

func (s tapWaiter) Wait(ctx context.Context, r driver.Request) (driver.Grant, error) {
	return s.t.wait(ctx, r)
}

func (s tapNotifier) Notify(key string, wake func()) (stop func()) { return s.t.notify(key, wake) }

func (s tapHandoff) HandOff(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
	return s.t.handOff(ctx, h, r)
}

// Tap wraps b: it shows what b can, except that in the core's own loop it hides the
// waiting, and then offers hints.
func (c *Trial) Tap(name string, b driver.Backend) (*Tap, driver.Backend) {
	t := &Tap{c: c, name: name, Inner: b, counts: map[string]int{}, once: map[string][]Fault{}, holds: map[driver.Owner]driver.Listener{}}
	t.up, t.fall = context.WithCancel(context.Background())
	t.sick, t.heal = context.WithCancel(context.Background())
	_, waits := driver.As[driver.Waiter](b)
	_, hints := driver.As[driver.Notifier](b)
	_, handsOff := driver.As[driver.Handoff](b)
	if c.CoreLoop {
		waits, hints = false, true
	}
	here, _ := driver.As[driver.Local](b)
	switch { // who waits natively has no line in the core from which one could be served
	case waits && c.Local():
		return t, struct {
			*Tap
			driver.Waiter
			driver.Local
		}{t, tapWaiter{t}, tapLocal{t, here}}
	case waits && hints:
		return t, struct {
			*Tap
			driver.Waiter
			driver.Notifier
		}{t, tapWaiter{t}, tapNotifier{t}}
	case waits:
		return t, struct {
			*Tap
			driver.Waiter
		}{t, tapWaiter{t}}
	case hints && handsOff:
		return t, struct {
			*Tap
			driver.Notifier
			driver.Handoff
		}{t, tapNotifier{t}, tapHandoff{t}}
	case hints:
		return t, struct {
			*Tap
			driver.Notifier
		}{t, tapNotifier{t}}
	case handsOff:
		return t, struct {
			*Tap
			driver.Handoff
		}{t, tapHandoff{t}}
	}
	return t, t
}

// tapLocal counts what goes by the short way of a backend in this process, and writes it into
// the history. It makes nothing fail: the core relies on that.
type tapLocal struct {
	t *Tap
	driver.Local
}

func (l tapLocal) Attach(instance [16]byte, identity string) driver.Hand {
	return tapHand{l.t, l.Local.Attach(instance, identity), instance}
}

type tapHand struct {
	t        *Tap
	hand     driver.Hand
	instance [16]byte
}

func (h tapHand) count(op string) {
	h.t.mu.Lock()
	h.t.counts[op]++
	h.t.mu.Unlock()
	h.t.c.advance()
}

func (h tapHand) Take(key string, ttl, sent time.Duration, hold driver.Listener, wait bool, note string) (token, where uint64, turn driver.Turn, err error) {
	h.t.asks(ttl)
	h.count(OpAcquire)
	l := &listener{t: h.t, r: driver.Request{Key: key, TTL: ttl, Hold: hold}}
	token, where, turn, err = h.hand.Take(key, ttl, sent, l, wait, note)
	if turn != nil {
		h.t.c.Hist.Add("%s    wait %s %s …", h.t.name, h.t.c.Short(key), KindOf(ttl))
		return 0, 0, tapTurn{h, l.r, turn}, nil
	}
	h.took(OpAcquire, l.r, token, err)
	return token, where, nil, err
}

// took notes what came of a Take or of its turn.
func (h tapHand) took(op string, r driver.Request, token uint64, err error) {
	h.t.mu.Lock()
	if err == nil {
		o := driver.Owner{Instance: h.instance, Seq: driver.TakenSeq(token)}
		h.t.holds[o] = r.Hold
		h.t.note(driver.Holder{Key: r.Key, Owner: o, Token: token, Session: r.Session()}, r.Hold)
	}
	if errors.Is(err, driver.ErrHeld) {
		h.t.refusals++
	}
	h.t.mu.Unlock()
	fold := ""
	if errors.Is(err, driver.ErrHeld) {
		fold = h.t.name + op + r.Key
	}
	h.t.c.Hist.Fold(fold, "%s    %s %s %s → %s", h.t.name, op, h.t.c.Short(r.Key), KindOf(r.TTL), outcome(driver.Grant{Token: token}, err))
}

type tapTurn struct {
	h    tapHand
	r    driver.Request
	turn driver.Turn
}

func (t tapTurn) Await(ctx context.Context) (token, where uint64, from time.Duration, err error) {
	t.h.count(OpWait)
	token, where, from, err = t.turn.Await(ctx)
	t.h.took(OpWait, t.r, token, err)
	return token, where, from, err
}

func (h tapHand) Drop(where, token uint64, at time.Duration) error {
	h.count(OpRelease)
	err := h.hand.Drop(where, token, at)
	h.t.mu.Lock()
	delete(h.t.holds, driver.Owner{Instance: h.instance, Seq: driver.TakenSeq(token)})
	h.t.mu.Unlock()
	h.t.c.Hist.Add("%s    release token %d → %s", h.t.name, token, outcome(driver.Grant{}, err))
	return err
}

// Shut gives the core its own listeners back, in place of the tap's.
func (h tapHand) Shut() []driver.Listener {
	all := h.hand.Shut()
	for i, n := range all {
		if n, ok := n.(*listener); ok {
			all[i] = n.r.Hold
		}
	}
	return all
}
