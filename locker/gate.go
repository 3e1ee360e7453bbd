package locker

import (
	"context"
	"sync/atomic"
)

// gate counts what is under way and can be shut: after shut, nothing enters, and
// drained closes when the last one has left. A sync.WaitGroup would not do: its Add
// must not race with Wait, and here anybody may enter at any time.
type gate struct {
	n       atomic.Int64 // the number inside, and the two bits
	drained chan struct{}
}

const (
	shutBit    = 1 << 62
	drainedBit = 1 << 61 // set once, so that late ones who are turned away find the work done
)

func (g *gate) open() { g.drained = make(chan struct{}) }

func (g *gate) enter() bool {
	if g.n.Add(1) < shutBit {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.n.Add(-1) == shutBit && g.n.CompareAndSwap(shutBit, shutBit|drainedBit) {
		close(g.drained)
	}
}

// shut lets nothing more in. Only one goroutine calls it, again without effect.
func (g *gate) shut() {
	if g.n.Load() >= shutBit {
		return
	}
	g.n.Add(shutBit + 1) // one inside, so that the leave finds the gate empty if it is
	g.leave()
}

// wait returns when all have left, or with ctx's error.
func (g *gate) wait(ctx context.Context) error {
	select {
	case <-g.drained:
		return nil
	default:
	}
	select {
	case <-g.drained:
		return nil
	case <-ctx.Done():
		return ctxError(ctx)
	}
}
