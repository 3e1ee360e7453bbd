package redis

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// A key that many want costs the server little, because a process is one waiter to it
// (the core's line), because a lease goes from hand to hand inside of a process without
// the server's hearing of it (Pass), and because the processes take turns (lua/line.lua)
// instead of racing after each release.
//
// What goes from hand to hand is the lock with the value of the owner who acquired it. Each
// next owner gets a token from a block that the server set aside (lua/pass.lua), and no
// longer a life than the server has confirmed.
const (
	// turnPasses and turnTime bound the turn of a process: after so many passes, or so
	// long, it asks whether other processes wait, and gives way to them. While there are
	// none, its turns get longer, up to maxPasses: who comes then waits for turnTime at most.
	turnPasses = 64
	maxPasses  = 1024
	turnTime   = 5 * time.Millisecond
	// shortage is the part of a ttl that may be missing from what the server has confirmed
	// when a lease is passed; beyond it the server is asked for more. As much as the drift
	// allowance takes.
	shortage = driftFactor
	// excess is how much longer than the ttl the lock may last in the server (TTL-001).
	excess = 5 * time.Millisecond
	// patience is how long the others in line wait for the process whose turn it is, in ms.
	patience = "10"
	// soon is when a process that hears of no changes asks again after it got its place, in ms.
	// The turn of the process before it is over by then, and the others still wait for it. By
	// its polls alone it would come too late, time after time. (WAIT-007)
	soon = "6"
	// lineTTL is how long a line outlives the last attempt of anybody in it, in ms.
	lineTTL = "60000"
)

// Pass implements driver.Passer.
func (b *backend) Pass(ctx context.Context, h driver.Holder, r driver.Request) (driver.Grant, error) {
	if b.closed.Load() {
		return driver.Grant{}, driver.ErrClosed
	}
	lock, owner := b.layout.lockKey(h.Key), ownerValue(h.Owner, false)
	held, g := b.watched.pass(lock, owner, r)
	if held == nil { // lost, and watched no more
		return driver.Grant{}, b.Release(ctx, h)
	}
	if g.Token == 0 {
		var err error
		if g, err = b.passByServer(ctx, held, h, r); g.Token == 0 {
			return g, err
		}
	}
	g.Owner = h.Owner
	return g, nil
}

// passByServer asks for more tokens, for more time, or whether it is another process's turn.
func (b *backend) passByServer(ctx context.Context, held *hold, h driver.Holder, r driver.Request) (driver.Grant, error) {
	sent := time.Now()
	yield := "0"
	passes, ends := b.watched.turn(held, sent)
	if ends {
		yield = "1"
	}
	reply, err := passScript.Exec(ctx, b.client,
		[]string{held.lock, b.layout.tokenKey(h.Key), b.layout.lineKey(h.Key)},
		[]string{held.owner, millis(r.TTL), counterTTL, b.process, strconv.Itoa(passes), yield, lineTTL}).AsIntSlice()
	if err == nil && len(reply) == 2 && reply[0] > 0 {
		if g, ok := b.watched.passed(held, r, uint64(reply[0]), uint64(reply[1]), sent, ends); ok {
			return g, nil
		}
		// Given up here meanwhile, most likely deleted right after. What Redis has just
		// prolonged must not stay without anybody to free it (CTX-004).
		return driver.Grant{}, b.Release(ctx, h)
	}
	b.watched.unhold(held)
	switch {
	case err != nil:
		if err = b.classify(ctx, err); !errors.Is(err, driver.ErrUnavailable) {
			err = b.Release(ctx, h) // the server refuses this script, not every one
		}
		return driver.Grant{}, err
	case reply[0] == 0:
		return driver.Grant{}, driver.ErrLost
	}
	b.watched.inLine(held.lock, true)
	b.watched.wake(held.lock)
	return driver.Grant{}, nil
}

// acquireInLine is acquire for one who waits.
func (b *backend) acquireInLine(ctx context.Context, key, owner string, ttl time.Duration) (uint64, error) {
	lock := b.layout.lockKey(key)
	again := soon
	if b.caps.Has.Has(driver.PromptLoss) {
		again = "0"
	}
	token, err := b.grantOrRest(ctx, lineScript.Exec(ctx, b.client,
		[]string{lock, b.layout.tokenKey(key), b.layout.lineKey(key)},
		[]string{owner, millis(ttl), counterTTL, b.process, patience, lineTTL, again}))
	switch {
	case errors.Is(err, driver.ErrUnsupported): // the line is what is refused: an ACL, or a key in its place
		return b.acquireNow(ctx, key, owner, ttl)
	case err == nil || errors.Is(err, driver.ErrHeld):
		b.watched.inLine(lock, err != nil)
	}
	return token, err
}

// leaveLine gives up this process's place. If that fails, the others wait for it once,
// for the length of patience.
func (b *backend) leaveLine(key string) {
	if b.closed.Load() {
		return
	}
	b.leaving.Add(1)
	go func() {
		defer b.leaving.Done()
		ctx, cancel := context.WithTimeout(b.closing, b.cfg.Timeout)
		defer cancel()
		_ = b.client.Do(ctx, b.client.B().Zrem().Key(b.layout.lineKey(key)).Member(b.process).Build()).Error()
	}()
}

// pass makes r the owner of what lock's owner holds, without the server. It returns no grant
// if the server must be asked, and no hold if it is lost.
func (w *watched) pass(lock, owner string, r driver.Request) (*hold, driver.Grant) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.find(lock, owner)
	if h == nil {
		return nil, driver.Grant{}
	}
	now := time.Now()
	left := h.ttl - now.Sub(h.from)
	if h.doubted || h.unsure || h.token >= h.last || now.Sub(h.since) >= turnTime ||
		left > r.TTL+excess || left < r.TTL-time.Duration(shortage*float64(r.TTL)) {
		return h, driver.Grant{}
	}
	h.token++
	h.passes++
	h.hears = r.Hold
	g := driver.Grant{Token: h.token, TTL: h.ttl, From: h.from}
	if left > r.TTL {
		g.TTL, g.From = r.TTL, now
	}
	return h, g
}

// turn says how many passes the turn has, and whether it has ended, so that it is time to
// ask for others who wait.
func (w *watched) turn(h *hold, now time.Time) (passes int, ends bool) {
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.passes >= h.turn {
		h.turn = min(2*h.turn, maxPasses)
		return h.turn, true
	}
	return h.turn, now.Sub(h.since) >= turnTime
}

// passed makes r the owner of h, as the server has confirmed. again says that a new turn
// begins with it.
func (w *watched) passed(h *hold, r driver.Request, first, last uint64, sent time.Time, again bool) (driver.Grant, bool) {
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.gone {
		return driver.Grant{}, false
	}
	if again {
		h.since, h.passes = sent, 0
	}
	h.token, h.last, h.from, h.ttl = first, last, sent, r.TTL
	h.passes++
	h.hears = r.Hold
	return driver.Grant{Token: first, TTL: r.TTL, From: sent}, true
}

// token is the present holder's, if that is one of this process.
func (w *watched) token(lock, owner string) (token uint64, ok bool) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.find(lock, owner)
	if h == nil || !h.held {
		return 0, false
	}
	return h.token, true
}

func (s *watchedShard) find(lock, owner string) *hold {
	for _, h := range s.holds[lock] {
		if h.owner == owner {
			return h
		}
	}
	return nil
}

// inLine notes whether this process has a place in the server's line for lock.
func (w *watched) inLine(lock string, is bool) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, waker := range s.wakes[lock] {
		waker.inLine = is
	}
}
