package harness

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Setup is what a trial needs to know of the case that it runs, of the suite, and of the
// store.
type Setup struct {
	// ID is the case's clause, and ClauseOf the sentence of one. They begin the text of each failure.
	ID       string
	ClauseOf func(id string) string
	// CoreLoop hides the waiting of a backend that waits by itself.
	CoreLoop bool
	// Tampers says that the case makes calls fail or slow: the core must not take the
	// backend for one whose calls do neither, see [Trial.Tamper].
	Tampers bool

	Known   bool          // the case is declared as known to fail
	Virtual bool          // in a bubble of testing/synctest
	Slack   float64       // multiplies every time limit
	Timeout time.Duration // of the watchdog; 0 for the default
	Seed    uint64        // of the suite, as failures name it
	Random  uint64        // of this trial's random choices

	Backend driver.Backend                     // the first client
	Peer    func(tb testing.TB) driver.Backend // opens one more
	Advance func(d time.Duration)              // moves the store's clock; nil where it runs
}

// Trial is one run of one subtest. It collects failures rather than failing a testing.T,
// so that a case may be expected to fail, and so that a goroutine of it may fail.
type Trial struct {
	Setup
	T      *testing.T // for the target's functions and names only
	Caps   driver.Capabilities
	Hist   *History
	Unique string          // random; in every key
	Ctx    context.Context // ends with the case, and with its first fatal failure

	hub *Hub

	clock struct { // the store's, if it must be moved
		mu sync.Mutex
		at time.Time
	}

	cancel context.CancelFunc
	wg     sync.WaitGroup // of the case's goroutines
	grace  time.Duration  // what is left for the end of a case that hangs; 0 while it does not

	mu       sync.Mutex
	failures []string
	notes    []string
	skipped  string
	tampered bool     // see Tamper
	trusted  []string // the failures until then
	closers  []func(context.Context)
	used     bool // Backend has been taken
	clients  int
	owners   uint64
	rngs     uint64
	waits    map[*wait]bool
}

// New is a trial that has not begun.
func New(t *testing.T, s Setup) *Trial {
	var id [6]byte
	_, _ = crand.Read(id[:]) // never fails
	c := &Trial{
		Setup: s, T: t, Caps: s.Backend.Capabilities(),
		Hist: &History{Start: time.Now()}, hub: &Hub{}, Unique: hex.EncodeToString(id[:]),
	}
	c.clock.at = c.Hist.Start
	c.Hist.cut = c.Key("")
	c.Ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Result is what has come of a trial.
type Result struct {
	Failures []string
	Notes    []string
	Skipped  string // why, if the case found that it could not run
	Tampered bool   // begin again with Setup.Tampers; Failures are those from before
}

// Result is what has come of the trial so far.
func (c *Trial) Result() Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := Result{slices.Clone(c.failures), slices.Clone(c.notes), c.skipped, c.tampered}
	if c.tampered {
		r.Failures = slices.Clone(c.trusted)
	}
	return r
}

// Run runs the case under the watchdog.
func (c *Trial) Run(fn func()) {
	stop := c.pump()
	defer stop()
	limit := c.Watchdog() // before the case begins, which may learn more of its backend
	grace := min(c.Limit(), limit)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.guard(fn)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		c.add(c.text(c.ID, "the case ends", fmt.Sprintf("it hangs: it has not ended after %s", limit), "") + c.stuck() + "\n" + Indent(Labelled(c.T.Name()), "    "))
		c.cancel()
		c.grace = grace
		select {
		case <-done:
		case <-time.After(c.grace): // abandoned; what it still does harms nobody
		}
	}
}

// guard runs fn and turns a panic into a failure.
func (c *Trial) guard(fn func()) {
	defer func() {
		if p := recover(); p != nil {
			c.add(c.text(c.ID, "no panic", fmt.Sprintf("panic: %v", p), "") + "\n" + Indent(string(debug.Stack()), "    "))
			c.cancel()
		}
	}()
	fn()
}

// Finish closes what the case opened.
func (c *Trial) Finish() {
	c.cancel()
	c.mu.Lock()
	closers := c.closers
	used := c.used
	c.mu.Unlock()
	if !used {
		closers = append(closers, func(ctx context.Context) { _ = c.Backend.Close(ctx) })
	}
	done := make(chan struct{})
	stop := c.pump()
	defer stop()
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), c.Limit())
		defer cancel()
		for i := len(closers) - 1; i >= 0; i-- {
			c.guard(func() { closers[i](ctx) })
		}
		c.wg.Wait()
	}()
	select {
	case <-done:
	case <-time.After(cmp.Or(c.grace, 2*c.Limit())):
		if c.grace > 0 {
			return // it hangs, as has been said
		}
		c.add(c.text("CLO-004", "what the case opened can be closed, and the calls that it made end", "they do not end", "") + "\n" + Indent(Labelled(c.T.Name()), "    "))
	}
}

// Open takes the next backend: the target's own first, then its peers.
func (c *Trial) Open() (name string, b driver.Backend) {
	name = c.NextName()
	c.mu.Lock()
	first := !c.used
	c.used = true
	c.mu.Unlock()
	if first {
		return name, c.Backend
	}
	return name, c.Peer(c.T)
}

// NextName is a name for one more client.
func (c *Trial) NextName() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clients++
	return string(rune('A' + (c.clients-1)%26))
}

// pump moves the store's clock in step with ours, if it does not move by itself.
func (c *Trial) pump() (stop func()) {
	if c.Setup.Advance == nil {
		return func() {}
	}
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(max(c.Granularity()/4, time.Millisecond))
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
func (c *Trial) advance() {
	if c.Setup.Advance == nil {
		return
	}
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	now := time.Now()
	c.Setup.Advance(now.Sub(c.clock.at))
	c.clock.at = now
}

// Indent puts by before each line of text.
func Indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by)
}
