package conformance

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// keeper keeps the sessions of one client of a reference alive. The fields break it.
type keeper struct {
	kmu  sync.Mutex
	kept []*keptSession
	quit chan struct{} // closed by Close; nil while nothing was kept
	gone chan struct{}

	validity time.Duration // at the store
	every    time.Duration // how often sessions are renewed
	broken   struct {
		most         int  // so many are renewed
		byKey        bool // a renewal does not look at the owner
		resurrects   bool // a renewal makes anew what is gone
		stops        bool // a loss ends the round
		stopsForGood bool // a loss ends all rounds
		takesAll     bool // a loss is told to all
		forgetsNone  bool // what is released is renewed
		forgetsKey   bool // a release of anybody ends the renewal of the key
		forgetsLast  bool // a release that fails leaves it renewed
		first        bool // a repeat leaves the first listener
		twice        bool // a repeat adds a second one
		silent       bool // nobody hears of a loss
		extra        time.Duration
	}
}

type keptSession struct {
	driver.Request
	confirmed time.Time
}

const refSession = 500 * time.Millisecond

func newReference(s *refStore) *reference {
	return &reference{refStore: s, keeper: keeper{validity: refSession, every: refSession / 4}}
}

// keep begins, or goes on, to renew what r was granted after before.
func (b *reference) keep(r driver.Request, before time.Time) {
	b.kmu.Lock()
	defer b.kmu.Unlock()
	for _, s := range b.kept {
		if s.Owner == r.Owner && !b.broken.twice {
			if s.confirmed = before; !b.broken.first {
				s.Request = r
			}
			return
		}
	}
	b.kept = append(b.kept, &keptSession{r, before})
	if b.quit == nil {
		b.quit, b.gone = make(chan struct{}), make(chan struct{})
		go b.renewAll(b.quit, b.gone)
	}
}

// forget ends the renewal of what which names.
func (b *reference) forget(which func(*keptSession) bool) {
	b.kmu.Lock()
	defer b.kmu.Unlock()
	left := b.kept[:0:0]
	for _, s := range b.kept {
		if !which(s) {
			left = append(left, s)
		}
	}
	b.kept = left
}

func (b *reference) forgetHolder(h driver.Holder) {
	b.forget(func(s *keptSession) bool {
		return !b.broken.forgetsNone && s.Key == h.Key && (s.Owner == h.Owner || b.broken.forgetsKey)
	})
}

func (b *reference) believed() time.Duration {
	return b.validity - b.validity/100 + b.broken.extra
}

// renewAll runs until Close.
func (b *reference) renewAll(quit, gone chan struct{}) {
	defer close(gone)
	tick := time.NewTicker(b.every)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
		}
		if !b.renewRound() {
			return
		}
	}
}

func (b *reference) renewRound() (goOn bool) {
	b.kmu.Lock()
	all := b.kept
	b.kmu.Unlock()
	for i, s := range all {
		if b.broken.most > 0 && i >= b.broken.most {
			break
		}
		cause := b.renewOne(s)
		if cause == nil {
			continue
		}
		b.forget(func(other *keptSession) bool { return other == s || b.broken.takesAll })
		for _, other := range all {
			if (other == s || b.broken.takesAll) && !b.broken.silent {
				other.Hold.Lost(cause)
			}
		}
		if b.broken.stopsForGood {
			return false
		}
		if b.broken.stops {
			return true
		}
	}
	return true
}

// renewOne renews s, or says why it is lost.
func (b *reference) renewOne(s *keptSession) error {
	sent := time.Now()
	b.refStore.mu.Lock()
	defer b.refStore.mu.Unlock()
	e, ok := b.live(s.Key)
	switch {
	case !ok && b.broken.resurrects:
		b.token++
		e = refEntry{Request: s.Request, token: b.token}
	case !ok, e.Owner != s.Owner && !b.broken.byKey:
		return driver.ErrLost
	}
	e.until = b.now().Add(b.validity)
	b.m[s.Key] = e
	b.kmu.Lock()
	s.confirmed = sent
	b.kmu.Unlock()
	return nil
}

// SessionErr implements driver.SessionClock.
func (b *reference) SessionErr(h driver.Holder) error {
	b.kmu.Lock()
	defer b.kmu.Unlock()
	for _, s := range b.kept {
		if s.Owner == h.Owner && time.Since(s.confirmed) >= b.believed() {
			return fmt.Errorf("%w: no renewal was confirmed", driver.ErrUnavailable)
		}
	}
	return nil
}

// stopKeeping is the keeper's part of Close.
func (b *reference) stopKeeping() {
	b.kmu.Lock()
	quit, gone := b.quit, b.gone
	b.kept, b.quit = nil, nil
	b.kmu.Unlock()
	if quit != nil {
		close(quit)
		<-gone
	}
}

// Ping implements driver.Pinger.
func (b *reference) Ping(ctx context.Context) error { return b.ready(ctx) }
