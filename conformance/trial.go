package conformance

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// trial is one run of one leaf. It collects failures rather than failing a testing.T,
// so that a case may be expected to fail, and so that a goroutine of it may fail.
type trial struct {
	t      *testing.T // for the target's functions and names only
	suite  *suite
	leaf   leaf
	target *Target
	caps   driver.Capabilities
	hist   *history
	hub    *hub
	seed   uint64
	id     string // random; in every key

	clock struct { // the store's, if it must be moved
		mu sync.Mutex
		at time.Time
	}

	ctx    context.Context // ends with the case, and with its first fatal failure
	cancel context.CancelFunc
	wg     sync.WaitGroup // of the case's goroutines
	grace  time.Duration  // what is left for the rest of a case that hangs; 0 while it does not

	injected sync.Once // caps are those of the store that faults happen to

	mu       sync.Mutex
	failures []string
	notes    []string
	skipped  string
	tampered bool     // see tamper
	trusted  []string // the failures until then
	closers  []func(context.Context)
	used     bool // target.Backend has been taken
	clients  int
	owners   uint64
	rngs     uint64
}

func newTrial(t *testing.T, s *suite, l leaf, target *Target) *trial {
	var id [6]byte
	_, _ = crand.Read(id[:]) // never fails
	c := &trial{
		t: t, suite: s, leaf: l, target: target, caps: target.Backend.Capabilities(),
		hist: &history{start: time.Now()}, hub: &hub{}, seed: s.seedOf(t.Name()), id: hex.EncodeToString(id[:]),
	}
	c.clock.at = c.hist.start
	c.hist.cut = c.key("")
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// run runs the case under the watchdog.
func (c *trial) run() {
	stop := c.pump()
	defer stop()
	limit := c.watchdog() // before the case begins, which may learn more of its backend
	grace := min(c.limit(), limit)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.guard(c.leaf.fn)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		c.add(c.text("the case ends", fmt.Sprintf("it hangs: it has not ended after %s", limit), "") + "\n" + indent(labelled(c.t.Name()), "    "))
		c.cancel()
		c.grace = grace
		select {
		case <-done:
		case <-time.After(c.grace): // abandoned; what it still does harms nobody
		}
	}
}

// guard runs fn and turns a panic into a failure.
func (c *trial) guard(fn func(*trial)) {
	defer func() {
		if p := recover(); p != nil {
			c.add(c.text("no panic", fmt.Sprintf("panic: %v", p), "") + "\n" + indent(string(debug.Stack()), "    "))
			c.cancel()
		}
	}()
	fn(c)
}

// finish closes what the case opened.
func (c *trial) finish() {
	c.cancel()
	c.mu.Lock()
	closers := c.closers
	used := c.used
	c.mu.Unlock()
	if !used {
		closers = append(closers, func(ctx context.Context) { _ = c.target.Backend.Close(ctx) })
	}
	done := make(chan struct{})
	stop := c.pump()
	defer stop()
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), c.limit())
		defer cancel()
		for i := len(closers) - 1; i >= 0; i-- {
			c.guard(func(*trial) { closers[i](ctx) })
		}
		c.wg.Wait()
	}()
	select {
	case <-done:
	case <-time.After(cmp.Or(c.grace, 2*c.limit())):
		if c.grace > 0 {
			return // it hangs, as has been said
		}
		c.add(c.text("what the case opened can be closed, and the calls that it made end", "they do not end", "") + "\n" + indent(labelled(c.t.Name()), "    "))
	}
}

// pump moves the store's clock in step with ours, if it does not move by itself.
func (c *trial) pump() (stop func()) {
	if c.target.Advance == nil {
		return func() {}
	}
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(max(c.granularity()/4, time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.advance()
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-gone }
}

// advance brings the store's clock to where ours is. The taps call it too: were the clock
// behind when a lease begins, the next step would take that time from the lease.
func (c *trial) advance() {
	if c.target.Advance == nil {
		return
	}
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	now := time.Now()
	c.target.Advance(now.Sub(c.clock.at))
	c.clock.at = now
}

// --- time -------------------------------------------------------------------------

// far is a time that no case waits for: of polls that must not matter, and of leases
// that end by other means.
const far = 10 * time.Minute

func (c *trial) granularity() time.Duration { return max(c.caps.Granularity, time.Millisecond) }

// prompt is how late what the contract calls prompt may be: the backend's own word, and
// in real time a margin for a machine with other things to do.
func (c *trial) prompt() time.Duration {
	d := c.granularity() + time.Millisecond // one for stores that round to it
	if !c.suite.virtual {
		d = 5*c.granularity() + 100*time.Millisecond
	}
	return time.Duration(float64(d) * c.suite.slack)
}

// unit is the ttl of leases that a case lets expire: long against the granularity.
func (c *trial) unit() time.Duration {
	return (max(10*c.granularity(), 50*time.Millisecond) + time.Millisecond - 1).Truncate(time.Millisecond)
}

// handOver is how late a waiter that polls may have the key after it has become free. Only
// WAIT-001 and its like insist on the wake-up: the other cases shall not fail for the want
// of it.
func (c *trial) handOver() time.Duration {
	r := c.retry()
	return c.prompt() + r.Delay + r.Jitter
}

func (c *trial) retry() locker.Retry {
	return locker.Retry{Attempts: locker.Forever, Delay: c.unit() / 5, Jitter: c.unit() / 10}
}

// polling waits with polls that come soon.
func (c *trial) polling() locker.Option { return locker.WithRetry(c.retry()) }

// patient waits without polls that could hide a missing wake-up.
func patient() locker.Option {
	return locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: far})
}

// limit is a bound for what must happen, however late.
func (c *trial) limit() time.Duration {
	return time.Duration(float64(5*time.Second+10*c.unit()+10*c.prompt()) * max(1, c.suite.slack))
}

func (c *trial) watchdog() time.Duration {
	switch {
	case c.suite.virtual:
		return 10 * far
	case c.suite.timeout > 0:
		return c.suite.timeout
	}
	return 30*time.Second + 6*c.limit()
}

// rounds is how often something random is tried.
func (c *trial) rounds(virtual, realTime int) int {
	if c.suite.virtual {
		return virtual
	}
	return realTime
}

// sleep ends the calling goroutine when the case ends before. It is not a settle: in a
// bubble a timer fires when all others wait, even one of no time at all, and so it is not asked.
func (c *trial) sleep(d time.Duration) {
	if d <= 0 {
		if c.ctx.Err() != nil {
			runtime.Goexit()
		}
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ctx.Done():
		runtime.Goexit()
	}
}

// settle lets what was started come to where it waits. No event tells that of a backend
// that waits by itself; coming too early makes a case weaker, never wrong.
func (c *trial) settle() {
	if c.suite.virtual {
		synctest.Wait()
		return
	}
	c.sleep(max(5*time.Millisecond, 2*c.granularity()))
}

// --- randomness and names -----------------------------------------------------------

// rand is a source of its own for each caller: one per goroutine keeps each one's choices the
// same, however they are scheduled.
func (c *trial) rand() *rand.Rand {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rngs++
	return rand.New(rand.NewPCG(c.seed, c.rngs))
}

// key is a key that nobody else has.
func (c *trial) key(name string) string {
	return "conformance/" + c.leaf.ID + "/" + c.id + "/" + name
}

// short is a key as the history shows it.
func (c *trial) short(key string) string {
	s := fmt.Sprintf("%q", strings.ReplaceAll(key, c.hist.cut, ""))
	if len(s) > 48 {
		s = s[:40] + `…"`
	}
	return s
}

func (c *trial) owner() driver.Owner {
	o := driver.Owner{}
	_, _ = crand.Read(o.Instance[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners++
	o.Seq = c.owners
	return o
}

// hold is the options for a hold of the case's kind that does not end by itself.
func (c *trial) hold() []locker.Option {
	if c.leaf.kind == Lease {
		return []locker.Option{locker.WithTTL(far)}
	}
	return nil // with no ttl anywhere it is a session
}

// ttl is hold for a driver.Request.
func (c *trial) ttl() time.Duration {
	if c.leaf.kind == Lease {
		return far
	}
	return 0
}

// --- failures -------------------------------------------------------------------------

// must ends the case unless ok. want and got say what was wanted and what came.
func (c *trial) must(ok bool, want, got string, args ...any) {
	if !ok {
		c.fatal(want, got, args...)
	}
}

// check is must that goes on.
func (c *trial) check(ok bool, want, got string, args ...any) {
	if !ok {
		c.add(c.text(want, fmt.Sprintf(got, args...), caller()))
	}
}

// fatal ends the calling goroutine, and with it the case.
func (c *trial) fatal(want, got string, args ...any) {
	if c.ctx.Err() == nil { // otherwise it is a consequence of the first
		c.add(c.text(want, fmt.Sprintf(got, args...), caller()))
	}
	c.cancel()
	runtime.Goexit()
}

// ok: what succeeds.
func (c *trial) ok(err error, what string, args ...any) {
	if err != nil {
		c.fatal(fmt.Sprintf(what, args...)+" succeeds", "%v", err)
	}
}

// is: what gives an error that matches target.
func (c *trial) is(err, target error, what string, args ...any) {
	if !errors.Is(err, target) {
		c.fatal(fmt.Sprintf(what, args...)+" gives an error that matches “"+target.Error()+"”", "%v", err)
	}
}

// isNot: err does not match target.
func (c *trial) isNot(err, target error, what string, args ...any) {
	if errors.Is(err, target) {
		c.fatal(fmt.Sprintf(what, args...)+" gives no error that matches “"+target.Error()+"”", "%v", err)
	}
}

// local says whether the core sees the backend as a driver.Local, whose calls take no time
// and do not fail. It does not where the case makes them fail, nor in the core's own loop.
func (c *trial) local() bool {
	_, local := driver.As[driver.Local](c.target.Backend)
	return local && !c.leaf.tampers && !c.leaf.coreLoop
}

// tamper is called before a fault is put into a client's calls. If the core has seen a
// driver.Local, it relies on there being none: unless something has failed by then, the case
// begins again, see [suite.trial].
func (c *trial) tamper() {
	if !c.local() {
		return
	}
	c.mu.Lock()
	if !c.tampered {
		c.tampered, c.trusted = true, slices.Clone(c.failures)
	}
	c.mu.Unlock()
	c.cancel()
	runtime.Goexit()
}

// skip ends the case as one that could not run.
func (c *trial) skip(why string) {
	c.mu.Lock()
	c.skipped = why
	c.mu.Unlock()
	runtime.Goexit()
}

// note tells the reader of the test's log something that is no failure.
func (c *trial) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

func (c *trial) add(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const most = 5
	if len(c.failures) < most {
		c.failures = append(c.failures, text)
	}
}

func (c *trial) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.failures) > 0
}

// text is a failure as it is printed.
func (c *trial) text(want, got, at string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n  want   %s\n  got    %s\n", c.leaf.ID, c.leaf.Clause, want, got)
	if at != "" {
		fmt.Fprintf(&b, "  at     %s\n", at)
	}
	fmt.Fprintf(&b, "  %s\n  again  %s", c.hist.text("    "), c.again())
	return b.String()
}

// again is the command that runs this subtest with the same random choices.
func (c *trial) again() string {
	names := strings.Split(c.t.Name(), "/")
	for i, n := range names {
		names[i] = "^" + regexp.QuoteMeta(n) + "$"
	}
	return fmt.Sprintf("%s=%d go test -run '%s' -count=1", SeedEnv, c.suite.seed, strings.Join(names, "/"))
}

// caller is where the case found the failure: the innermost frame that is not one of the
// helpers'.
func caller() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		switch filepath.Base(f.File) {
		case "trial.go", "client.go", "fault.go":
		default:
			return fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line)
		}
		if !more {
			return ""
		}
	}
}

// --- goroutines and events --------------------------------------------------------------

// spawn runs fn in a goroutine of the case; done closes when it has ended, also by a failure.
func (c *trial) spawn(fn func()) (done <-chan struct{}) {
	ch := make(chan struct{})
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer close(ch)
		c.guard(func(*trial) { fn() })
	}()
	return ch
}

// together runs n goroutines that begin at the same moment, and waits for them.
func (c *trial) together(n int, fn func(i int)) {
	begin := make(chan struct{})
	var all []<-chan struct{}
	for i := range n {
		all = append(all, c.spawn(func() { <-begin; fn(i) }))
	}
	close(begin)
	for _, done := range all {
		<-done
	}
	if c.ctx.Err() != nil {
		runtime.Goexit()
	}
}

// await waits for ch to close, no longer than within.
func (c *trial) await(ch <-chan struct{}, within time.Duration, what string, args ...any) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-ch:
	case <-c.ctx.Done():
		runtime.Goexit()
	case <-timer.C:
		c.fatal(fmt.Sprintf(what, args...)+fmt.Sprintf(" within %s", within), "it has not")
	}
}

// isClosed says whether ch is closed now.
func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// moment is when a channel was closed.
type moment struct {
	seen chan struct{}
	at   time.Time
}

func (c *trial) moment(ch <-chan struct{}) *moment {
	m := &moment{seen: make(chan struct{})}
	c.spawn(func() {
		select {
		case <-ch:
			m.at = time.Now()
			close(m.seen)
		case <-c.ctx.Done():
		}
	})
	return m
}

// ctxFor is a ctx of the case that ends after d.
func (c *trial) ctxFor(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(c.ctx, d)
	c.onClose(func(context.Context) { cancel() })
	return ctx
}

func (c *trial) onClose(fn func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closers = append(c.closers, fn)
}
