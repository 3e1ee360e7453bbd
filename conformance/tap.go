package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// tap stands between the core and a backend. It writes the calls into the history,
// counts them, and fails them as the case asks, so that what the contract says about
// outages is proven on backends without a network too: what is under test is the
// core's behaviour, and that the real backend bears repetitions.
//
// It has no Unwrap: the core sees the abilities that the case wants it to see, see
// [trial.tap].
type tap struct {
	c     *trial
	name  string
	inner driver.Backend
	hints hub

	mu       sync.Mutex
	counts   map[string]int
	once     map[string][]fault
	always   fault
	isDown   bool
	sick     context.Context // ends when faults do
	heal     context.CancelFunc
	up       context.Context // ends when the backend goes down
	fall     context.CancelFunc
	muted    bool
	hinted   int // wake-ups that the backend has given
	doubts   int // attempts whose outcome the core cannot know
	refusals int // attempts that were answered with ErrHeld
	passes   int // holds that were passed on
	holds    map[driver.Owner]driver.Listener
	ttl      time.Duration // of the last call that has one
	called   time.Time     // when that was
}

// The operations, as history and faults name them.
const (
	opAcquire = "acquire"
	opWait    = "wait"
	opExtend  = "extend"
	opRelease = "release"
	opPass    = "pass" // counts and fails as opRelease
	opClose   = "close"
)

// fault does what a call does instead of only making it.
type fault func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error)

var errInjected = fmt.Errorf("%w (injected by the suite)", driver.ErrUnavailable)

// refuse: the request never reached the store.
func refuse(context.Context, func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
	return driver.Grant{}, errInjected
}

// lose: the request was carried out, and the reply lost.
func lose(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
	_, _ = call(ctx)
	return driver.Grant{}, errInjected
}

// loseAfter is lose that does not come to know of it before gate closes.
func loseAfter(gate <-chan struct{}) fault {
	return func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
		_, _ = call(ctx)
		select {
		case <-gate:
		case <-ctx.Done():
			return driver.Grant{}, fmt.Errorf("%w: %w", errInjected, ctx.Err())
		}
		return driver.Grant{}, errInjected
	}
}

// slowReply: the reply takes d.
func slowReply(d time.Duration) fault {
	return func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
		g, err := call(ctx)
		time.Sleep(d)
		return g, err
	}
}

// slowRequest: the request takes d.
func slowRequest(d time.Duration) fault {
	return func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
		time.Sleep(d)
		return call(ctx)
	}
}

// hang: no reply and no error, until the caller's patience ends. The request was lost.
func hang(ctx context.Context, _ func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
	<-ctx.Done()
	return driver.Grant{}, fmt.Errorf("%w: %w", errInjected, ctx.Err())
}

// hangAfter is hang where the request was carried out.
func hangAfter(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
	_, _ = call(ctx)
	<-ctx.Done()
	return driver.Grant{}, fmt.Errorf("%w: %w", errInjected, ctx.Err())
}

// answer: the store says err.
func answer(err error) fault {
	return func(context.Context, func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
		return driver.Grant{}, err
	}
}

// next makes the next call of op fail with f; several of them queue.
func (t *tap) next(op string, f fault) {
	t.c.tamper()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.once[op] = append(t.once[op], f)
}

// all makes every call fail with f, until f is nil. Calls that hang then end too: nobody
// shall wait for the end of a fault that is over.
func (t *tap) all(f fault) {
	t.c.tamper()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.always = f; f == nil {
		t.heal()
		t.sick, t.heal = context.WithCancel(context.Background())
	}
}

// down cuts the client off: calls are refused, those that wait end, wake-ups are lost.
func (t *tap) down() {
	t.c.tamper()
	t.c.hist.add("%s  (cut off from the store)", t.name)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isDown = true
	t.fall()
}

// restore ends down.
func (t *tap) restore() {
	t.c.hist.add("%s  (reaches the store again)", t.name)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isDown = false
	t.up, t.fall = context.WithCancel(context.Background())
}

// mute keeps losses that the backend reports from the core.
func (t *tap) mute() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.muted = true
}

// lost reports a loss to the core as the backend would, of every hold there is.
func (t *tap) lost(cause error) {
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

// count is how many calls of ops there have been; of all, with none.
func (t *tap) count(ops ...string) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for op, k := range t.counts {
		if len(ops) == 0 || slices.Contains(ops, op) {
			n += k
		}
	}
	return n
}

// refused is how many attempts have been answered with ErrHeld.
func (t *tap) refused() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refusals
}

// wakeUps is how many wake-ups the backend has given.
func (t *tap) wakeUps() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hinted
}

// doubted is how many attempts there have been whose outcome the core cannot know.
func (t *tap) doubted() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.doubts
}

// passed is how many holds this client has passed from one to the next.
func (t *tap) passed() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.passes
}

// asks notes when the store is asked for which ttl.
func (t *tap) asks(ttl time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ttl, t.called = ttl, time.Now()
}

// lastCall is when the store was last asked for a hold or an extension, and for which ttl.
func (t *tap) lastCall() (at time.Time, ttl time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.called, t.ttl
}

// do makes one call, or what a fault makes of it.
func (t *tap) do(ctx context.Context, op string, call func(context.Context) (driver.Grant, error), what string, args ...any) (driver.Grant, error) {
	as := op
	if op == opPass {
		as = opRelease // it is one, whether or not somebody waits
	}
	t.mu.Lock()
	t.counts[as]++
	f := t.always
	if q := t.once[as]; len(q) > 0 {
		f, t.once[as] = q[0], q[1:]
	}
	if t.isDown {
		f = refuse
	}
	sick := t.sick
	t.mu.Unlock()
	t.c.advance()
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
	if (op == opAcquire || op == opWait) && err != nil && !errors.Is(err, driver.ErrHeld) {
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
	t.c.hist.fold(fold, "%s    %s %s → %s%s", t.name, op, what, outcome(g, err), note)
	return g, err
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

func (t *tap) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	t.asks(r.TTL)
	r.Hold = t.listen(r)
	g, err := t.do(ctx, opAcquire, func(ctx context.Context) (driver.Grant, error) { return t.inner.Acquire(ctx, r) },
		"%s #%d %s", t.c.short(r.Key), r.Owner.Seq, kindOf(r.TTL))
	if errors.Is(err, driver.ErrHeld) {
		t.mu.Lock()
		delete(t.holds, r.Owner)
		t.mu.Unlock()
	}
	return g, err
}

func (t *tap) wait(ctx context.Context, r driver.Request) (driver.Grant, error) {
	w, ok := driver.As[driver.Waiter](t.inner)
	if !ok {
		return driver.Grant{}, driver.ErrUnsupported
	}
	t.asks(r.TTL)
	r.Hold = t.listen(r)
	t.mu.Lock()
	up := t.up
	t.mu.Unlock()
	return t.do(ctx, opWait, func(ctx context.Context) (driver.Grant, error) {
		wctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(up, cancel)()
		t.c.hist.add("%s    wait %s #%d …", t.name, t.c.short(r.Key), r.Owner.Seq)
		g, err := w.Wait(wctx, r)
		if up.Err() != nil {
			return driver.Grant{}, errInjected // whatever it was, the reply was lost
		}
		return g, err
	}, "%s #%d %s", t.c.short(r.Key), r.Owner.Seq, kindOf(r.TTL))
}

func (t *tap) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	t.asks(ttl)
	return t.do(ctx, opExtend, func(ctx context.Context) (driver.Grant, error) { return t.inner.Extend(ctx, h, ttl) },
		"%s #%d token %d to %s", t.c.short(h.Key), h.Owner.Seq, h.Token, ttl)
}

func (t *tap) Release(ctx context.Context, h driver.Holder) error {
	_, err := t.do(ctx, opRelease, func(ctx context.Context) (driver.Grant, error) {
		err := t.inner.Release(ctx, h)
		t.c.hub.wake(h.Key)
		return driver.Grant{}, err
	}, "%s #%d token %d", t.c.short(h.Key), h.Owner.Seq, h.Token)
	t.mu.Lock()
	delete(t.holds, h.Owner)
	t.mu.Unlock()
	return err
}

func (t *tap) pass(ctx context.Context, h driver.Holder, r driver.Request) (driver.Grant, error) {
	p, ok := driver.As[driver.Passer](t.inner)
	if !ok {
		return driver.Grant{}, driver.ErrUnsupported
	}
	t.asks(r.TTL)
	core, l := r.Hold, &listener{t: t, r: r}
	r.Hold = l
	g, err := t.do(ctx, opPass, func(ctx context.Context) (driver.Grant, error) {
		g, err := p.Pass(ctx, h, r)
		if g.Token == 0 {
			t.c.hub.wake(h.Key)
		}
		return g, err
	}, "%s #%d token %d to #%d %s", t.c.short(h.Key), h.Owner.Seq, h.Token, r.Owner.Seq, kindOf(r.TTL))
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.holds, h.Owner)
	if l.gone = err != nil || g.Token == 0; l.gone {
		return g, err
	}
	t.passes++
	if g.Owner != (driver.Owner{}) {
		r.Owner = g.Owner
	}
	t.holds[r.Owner] = core
	return g, nil
}

func (t *tap) Capabilities() driver.Capabilities { return t.inner.Capabilities() }

func (t *tap) Close(ctx context.Context) error {
	_, err := t.do(ctx, opClose, func(ctx context.Context) (driver.Grant, error) {
		err := t.inner.Close(ctx)
		t.c.hub.wakeAll()
		return driver.Grant{}, err
	}, "")
	return err
}

// notify asks the backend for hints, or makes some from what goes through the taps, so
// that the core's own loop can be run over a backend that has no need of hints.
func (t *tap) notify(key string, wake func()) (stop func()) {
	through := func() {
		t.mu.Lock()
		down := t.isDown
		t.hinted++
		t.mu.Unlock()
		if !down {
			wake()
		}
	}
	ask := t.c.hub.notify
	if n, ok := driver.As[driver.Notifier](t.inner); ok {
		ask = n.Notify
	}
	unhint, unask := t.hints.notify(key, through), ask(key, through)
	return func() { unhint(); unask() }
}

// hint is a wake-up that leads to nothing.
func (t *tap) hint(key string) { t.hints.wake(key) }

func kindOf(ttl time.Duration) string {
	if ttl == 0 {
		return "session"
	}
	return "lease " + ttl.String()
}

// listener passes losses on to the core, and into the history.
type listener struct {
	t    *tap
	r    driver.Request
	gone bool // nothing was granted, as far as the core knows
}

func (t *tap) listen(r driver.Request) driver.Listener {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holds[r.Owner] = r.Hold
	return &listener{t: t, r: r}
}

func (l *listener) Lost(cause error) {
	l.t.mu.Lock()
	muted := l.t.muted || l.gone
	l.t.mu.Unlock()
	l.t.c.hist.add("%s    lost %s #%d: %v", l.t.name, l.t.c.short(l.r.Key), l.r.Owner.Seq, cause)
	if !muted {
		l.r.Hold.Lost(cause)
	}
}

// The abilities that a case may show to the core beside the tap itself.
type (
	tapWaiter   struct{ t *tap }
	tapNotifier struct{ t *tap }
	tapPasser   struct{ t *tap }
)

func (s tapWaiter) Wait(ctx context.Context, r driver.Request) (driver.Grant, error) {
	return s.t.wait(ctx, r)
}

func (s tapNotifier) Notify(key string, wake func()) (stop func()) { return s.t.notify(key, wake) }

func (s tapPasser) Pass(ctx context.Context, h driver.Holder, r driver.Request) (driver.Grant, error) {
	return s.t.pass(ctx, h, r)
}

// tap wraps b: it shows what b can, except that in the core's own loop it hides the
// waiting, and then offers hints.
func (c *trial) tap(name string, b driver.Backend) (*tap, driver.Backend) {
	t := &tap{c: c, name: name, inner: b, counts: map[string]int{}, once: map[string][]fault{}, holds: map[driver.Owner]driver.Listener{}}
	t.up, t.fall = context.WithCancel(context.Background())
	t.sick, t.heal = context.WithCancel(context.Background())
	_, waits := driver.As[driver.Waiter](b)
	_, hints := driver.As[driver.Notifier](b)
	_, passes := driver.As[driver.Passer](b)
	if c.leaf.coreLoop {
		waits, hints = false, true
	}
	here, _ := driver.As[driver.Local](b)
	switch { // who waits natively has no line in the core from which one could be served
	case waits && c.local():
		return t, struct {
			*tap
			driver.Waiter
			driver.Local
		}{t, tapWaiter{t}, tapLocal{here}}
	case waits && hints:
		return t, struct {
			*tap
			driver.Waiter
			driver.Notifier
		}{t, tapWaiter{t}, tapNotifier{t}}
	case waits:
		return t, struct {
			*tap
			driver.Waiter
		}{t, tapWaiter{t}}
	case hints && passes:
		return t, struct {
			*tap
			driver.Notifier
			driver.Passer
		}{t, tapNotifier{t}, tapPasser{t}}
	case hints:
		return t, struct {
			*tap
			driver.Notifier
		}{t, tapNotifier{t}}
	case passes:
		return t, struct {
			*tap
			driver.Passer
		}{t, tapPasser{t}}
	}
	return t, t
}

// tapLocal gives the core its own listeners back, in place of the tap's.
type tapLocal struct{ driver.Local }

func (t tapLocal) Shut() []driver.Listener {
	all := t.Local.Shut()
	for i, n := range all {
		if n, ok := n.(*listener); ok {
			all[i] = n.r.Hold
		}
	}
	return all
}

// hub hands hints from every tap to every tap of one trial.
type hub struct {
	mu   sync.Mutex
	next int
	subs map[int]sub
}

type sub struct {
	key  string
	wake func()
}

func (h *hub) notify(key string, wake func()) (stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs == nil {
		h.subs = map[int]sub{}
	}
	h.next++
	n := h.next
	h.subs[n] = sub{key, wake}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, n)
	}
}

func (h *hub) wake(key string) { h.each(func(k string) bool { return k == key }) }
func (h *hub) wakeAll()        { h.each(func(string) bool { return true }) }

func (h *hub) each(want func(key string) bool) {
	h.mu.Lock()
	var wakes []func()
	for _, s := range h.subs {
		if want(s.key) {
			wakes = append(wakes, s.wake)
		}
	}
	h.mu.Unlock()
	for _, w := range wakes {
		w()
	}
}
