package proof

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// What a history cannot show is what its holders believe meanwhile: to it, a session that
// is lost may have been lost at any time. So beside the histories some clients do nothing
// but hold one key, in turn, and look at their holds again and again: none may believe in
// its own when another has been granted (MX-001, LOSS-001, FLT-003). Nobody deletes this key.

// beliefs is who has been granted the key of one lane. All are in this process, so that one
// clock serves.
type beliefs struct {
	s     *soak
	mu    sync.Mutex
	token uint64    // the greatest that was granted
	at    time.Time // when its holder knew of it
}

// lateTimer is how late what ends a session may run on a busy machine. A lease asks the
// clock itself, and is never late.
const lateTimer = 100 * time.Millisecond

// granted notes a grant.
func (b *beliefs) granted(h *locker.Lease, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case h.Token() > b.token:
		b.token, b.at = h.Token(), at
	case h.Token() == b.token:
		b.s.violation("token %d was granted twice", h.Token())
	}
}

// alive says whether h is, and checks that nobody else had been granted the key before that
// was asked.
func (b *beliefs) alive(h *locker.Lease) bool {
	at := time.Now()
	if h.Err() != nil {
		return false
	}
	b.mu.Lock()
	token, since := b.token, at.Sub(b.at)
	b.mu.Unlock()
	allowed, kind := time.Duration(0), "lease"
	if h.Session() {
		allowed, kind = lateTimer, "session"
	}
	if token <= h.Token() || since <= 0 {
		return true
	}
	b.s.count(func() { b.s.overlap = max(b.s.overlap, since) })
	if since > allowed {
		b.s.violation("the %s with token %d was believed in %s after token %d had been granted", kind, h.Token(), since, token)
		return false // once is enough
	}
	return true
}

// believe holds the key again and again until over is closed.
func (b *beliefs) believe(l *locker.Locker, key string, r *rand.Rand, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		default:
		}
		if err := b.hold(l, key, r, over); err != nil && !errors.Is(err, locker.ErrHeld) && !errors.Is(err, locker.ErrUnavailable) && !errors.Is(err, locker.ErrLost) {
			b.s.violation("a lock that nobody deletes or closes: %v", err)
		}
	}
}

func (b *beliefs) hold(l *locker.Locker, key string, r *rand.Rand, over <-chan struct{}) error {
	const ms = time.Millisecond
	opts := []locker.Option{locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: 100 * ms, Jitter: 50 * ms})}
	ttl := time.Duration(0)
	if r.IntN(2) == 0 {
		ttl = time.Duration(100+r.IntN(400)) * ms
		opts = append(opts, locker.WithTTL(ttl))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	h, err := l.Lock(ctx, key, opts...)
	if err != nil {
		return err
	}
	at := time.Now()
	if h.Err() != nil {
		return h.Err()
	}
	b.granted(h, at)
	b.s.count(func() { b.s.held++ })

	stays := time.Duration(r.IntN(1500)) * ms
	if ttl > 0 && r.IntN(2) == 0 {
		stays = time.Minute // to the very end
	}
	look, stay, extend := time.NewTicker(2*ms), time.NewTimer(stays), time.NewTimer(time.Duration(r.IntN(1500))*ms)
	defer look.Stop()
	defer stay.Stop()
	defer extend.Stop()
	for b.alive(h) {
		select {
		case <-look.C:
			continue
		case <-extend.C:
			if ttl > 0 {
				short, cancel := context.WithTimeout(ctx, ttl/2)
				_ = h.Extend(short, time.Duration(50+r.IntN(500))*ms) // whatever comes of it, belief must be right
				cancel()
			}
			continue
		case <-stay.C:
		case <-over:
		}
		break
	}
	return h.Unlock(ctx)
}

// believers lets one client on each network of a lane hold one key until stop is called.
func (s *soak) believers(key string, opens []func() (*locker.Locker, error)) (stop func()) {
	b := &beliefs{s: s}
	over := make(chan struct{})
	var wg sync.WaitGroup
	for _, open := range opens {
		k, err := open()
		if err != nil {
			s.t.Errorf("opening a believer: %v", err)
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			b.believe(k, key, rand.New(rand.NewPCG(rand.Uint64(), 0)), over)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = k.Close(ctx)
		}()
	}
	return func() { close(over); wg.Wait() }
}
