package conformance

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// A healthy backend passes behind a network that fails in all the ways that there are: the whole suite, because each mutant of
// it has to fail by its own clause first.
func TestFaults(t *testing.T) {
	Run(t, refNetTarget(nil), Synctest())
}

// The store that faults happen to may keep sessions for longer than the target's own: a case that
// uses the one measures by the one.
func TestFaultsElsewhere(t *testing.T) {
	Run(t, func(t *testing.T) *Target {
		target := refNetTarget(nil)(t)
		target.Backend = brief{target.Backend}
		return target
	}, Synctest(), Only("LOSS-001/silence", "FLT-003", "FLT-009"))
}

// brief says that sessions last for less than they do.
type brief struct{ driver.Backend }

func (b brief) Unwrap() driver.Backend { return b.Backend }

func (b brief) Capabilities() driver.Capabilities {
	caps := b.Backend.Capabilities()
	caps.SessionValidity /= 4
	return caps
}

// faultMutants are clients that bear a network badly, each with the clause that must fail
// it. (The mutants of the store itself are in mutants.)
var faultMutants = []struct {
	name   string
	clause string
	alter  func(w *wired)
}{
	{"the owner of a lost reply is locked out by itself", "FLT-001", func(w *wired) {
		w.Backend = &forgetful{Backend: w.Backend}
	}},
	{"an internal timeout of 500 ms", "FLT-002", func(w *wired) { w.impatient = 500 * time.Millisecond }},
	{"a token is the store's clock, and nothing besides", "TOK-001", func(w *wired) { w.net.clockTokens = true }},
	{"a release overtakes the attempt that it takes back", "CTX-004", func(w *wired) { w.line.disorder, w.forgetsUndone = true, true }},
	{"an attempt that was taken back is granted when it comes late", "CTX-004", func(w *wired) { w.forgetsUndone = true }},
	{"an attempt is granted that comes when its repeat has been granted and released", "CTX-004", func(w *wired) { w.forgetsCopies = true }},
	{"the drift is added to a session's validity", "LOSS-001", func(w *wired) { w.extra = refValidity / 50 }},
	{"a hold is believed in from the reply on", "FLT-003", func(w *wired) { w.fromReply = true }},
	{"a session is believed in without being renewed", "FLT-003", func(w *wired) { w.neverLooks = true }},
	{"a loss of the store's data is not noticed", "FLT-004", func(w *wired) { w.neverLooks = true }},
	{"a call does not end with its ctx", "FLT-005", func(w *wired) { w.deafToCtx = true }},
	{"a call does not end with its ctx once the connection has timed out", "FLT-005", func(w *wired) { w.deafAfter = refSilence }},
	{"the end of a hold is named by the client's clock", "FLT-006", func(w *wired) { w.clientsClock = true }},
	{"what an administrator does is not noticed", "FLT-007", func(w *wired) { w.neverLooks = true }},
	{"a store that refuses is asked no more who holds a key", "ERR-002", func(w *wired) { w.takesFirst = true }},
	{"a refusal is taken for contention", "ERR-002", func(w *wired) { w.refusalIsHeld = true }},
	{"a broken connection ends a hold", "FLT-008", func(w *wired) { w.fragile = true }},
	{"a new connection wakes nobody", "FLT-008", func(w *wired) { w.sleepsOn = true }},
	{"a session outlives its process for longer than declared", "FLT-009", func(w *wired) { w.validity = 3 * refValidity }},
}

// forgetful knows nobody who asks again.
type forgetful struct{ driver.Backend }

func (f *forgetful) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	b := f.Backend.(*reference)
	b.refStore.mu.Lock()
	e, held := b.live(r.Key)
	b.refStore.mu.Unlock()
	if held && e.Owner == r.Owner {
		return driver.Grant{}, driver.ErrHeld
	}
	return f.Backend.Acquire(ctx, r)
}

// refProcess is no process at all, but dies like one: at once, and without a word.
type refProcess struct {
	io.Reader
	io.Writer
	kill func()
}

func startRefProcess(w *wired) Process {
	in, orders := io.Pipe()
	answers, out := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = Holder(w, in, out)
	}()
	return &refProcess{answers, orders, func() {
		w.net.change(func() { w.line.up, w.line.down = true, true })
		w.end()
		_ = orders.Close()
		_ = answers.Close()
		<-ended
	}}
}

func (p *refProcess) Kill() error     { p.kill(); return nil }
func (p *refProcess) Stop() error     { return errors.ErrUnsupported }
func (p *refProcess) Continue() error { return errors.ErrUnsupported }
