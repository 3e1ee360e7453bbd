package harness

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// Spawn runs fn in a goroutine of the case; done closes when it has ended, also by a failure.
func (c *Trial) Spawn(fn func()) (done <-chan struct{}) {
	ch := make(chan struct{})
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer close(ch)
		c.guard(fn)
	}()
	return ch
}

// Together runs n goroutines that begin at the same moment, and waits for them.
func (c *Trial) Together(n int, fn func(i int)) {
	begin := make(chan struct{})
	var all []<-chan struct{}
	for i := range n {
		all = append(all, c.Spawn(func() { <-begin; fn(i) }))
	}
	close(begin)
	for _, done := range all {
		<-done
	}
	if c.Ctx.Err() != nil {
		runtime.Goexit()
	}
}

// Await waits for ch to close, no longer than within.
func (c *Trial) Await(ch <-chan struct{}, within time.Duration, what string, args ...any) {
	c.Claim(c.ID).Await(ch, within, what, args...)
}

// Await is Trial.Await of the claim.
func (cl Claim) Await(ch <-chan struct{}, within time.Duration, what string, args ...any) {
	c := cl.c
	timer := time.NewTimer(within)
	defer timer.Stop()
	defer c.Waits("the case", "this: "+fmt.Sprintf(what, args...), "")()
	select {
	case <-ch:
	case <-c.Ctx.Done():
		runtime.Goexit()
	case <-timer.C:
		cl.Fatal(fmt.Sprintf(what, args...)+fmt.Sprintf(" within %s", within), "it has not")
	}
}

// IsClosed says whether ch is closed now.
func IsClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// Moment is when a channel was closed.
type Moment struct {
	Seen chan struct{}
	At   time.Time
}

// Moment notes when ch is closed.
func (c *Trial) Moment(ch <-chan struct{}) *Moment {
	m := &Moment{Seen: make(chan struct{})}
	c.Spawn(func() {
		select {
		case <-ch:
			m.At = time.Now()
			close(m.Seen)
		case <-c.Ctx.Done():
		}
	})
	return m
}

// CtxFor is a ctx of the case that ends after d.
func (c *Trial) CtxFor(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(c.Ctx, d)
	c.OnClose(func(context.Context) { cancel() })
	return ctx
}

// OnClose has fn called when the case is over, before what was opened earlier is closed.
func (c *Trial) OnClose(fn func(context.Context)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closers = append(c.closers, fn)
}
