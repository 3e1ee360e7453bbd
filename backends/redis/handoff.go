package redis

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// A key that many want costs the server little, because a process is one waiter to it
// (the core's queue), because a lease is handed off inside of a process without
// the server's hearing of it (HandOff), and because the processes take turns (lua/queue.lua)
// instead of racing after each release.
//
// What goes from hand to hand is the lock with the value of the owner who acquired it. Each
// next owner gets a token from a block that the server set aside (lua/handoff.lua), and no
// longer a life than the server has confirmed.
const (
	// turnHandOffs and turnTime bound the turn of a process: after so many hand-offs, or so
	// long, it asks whether other processes wait, and gives way to them. While there are
	// none, its turns get longer, up to maxHandOffs: who comes then waits for turnTime at most.
	turnHandOffs = 64
	maxHandOffs  = 1024
	turnTime     = 5 * time.Millisecond
	// shortage is the part of a ttl that may be missing from what the server has confirmed
	// when a lease is handed off; beyond it the server is asked for more. As much as the drift
	// allowance takes.
	shortage = driftFactor
	// excess is how much longer than the ttl the lock may last in the server (TTL-001).
	excess = 5 * time.Millisecond
)

// HandOff implements driver.Handoff.
func (b *backend) HandOff(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
	if b.closed.Load() {
		return driver.Handed{}, driver.ErrClosed
	}
	lock, owner := b.layout.lockKey(h.Key), ownerValue(h.Owner, false)
	held, g := b.watched.handOff(lock, owner, r, b.caps.Has.Has(driver.PromptLoss))
	if held == nil { // lost, and watched no more
		return driver.Handed{}, b.releaseInstead(ctx, h)
	}
	if g.Token == 0 {
		var err error
		if g, err = b.handOffByServer(ctx, held, h, r); err != nil {
			return driver.Handed{}, err
		}
	}
	return driver.Handed{Grant: g, Owner: h.Owner}, nil
}

// releaseInstead frees h where it cannot be handed off.
func (b *backend) releaseInstead(ctx context.Context, h driver.Holder) error {
	if err := b.Release(ctx, h); err != nil {
		return err
	}
	return driver.ErrYielded
}

// handOffByServer asks for more tokens, for more time, or whether it is another process's turn.
func (b *backend) handOffByServer(ctx context.Context, held *hold, h driver.Holder, r driver.Request) (driver.Grant, error) {
	sent := time.Now()
	yield := "0"
	handOffs, ends := b.watched.turn(held, sent)
	if ends {
		yield = "1"
	}
	if !b.caps.Has.Has(driver.PromptLoss) {
		handOffs = 1 // the next one asks again
	}
	keys, call := []string{held.lock, b.layout.tokenKey(h.Key), b.layout.queueKey(h.Key)}, ""
	if ends && b.announced() {
		keys, call = append(keys, b.bellOf(h.Key)), patience
		b.watched.yielding(held.lock, sent)
	}
	said := ""
	if b.watched.noteOf(held) != r.Note {
		said = about(&r)
	}
	result := handOffScript.Exec(ctx, b.client,
		keys, []string{held.owner, millis(r.TTL), counterLife(r.TTL), b.process, strconv.Itoa(handOffs), yield, queueTTL, said, call})
	first, last, err := b.tokens(ctx, h.Key, result, held, handOffs)
	if err == nil && first > 0 {
		if g, ok := b.watched.handedOff(held, r, uint64(first), uint64(last), sent, ends); ok {
			return g, nil
		}
		// Given up here meanwhile, most likely deleted right after. What Redis has just
		// prolonged must not stay without anybody to free it (CTX-004).
		return driver.Grant{}, b.releaseInstead(ctx, h)
	}
	b.watched.unhold(held)
	switch {
	case errors.Is(err, driver.ErrRefused) || err != nil && !errors.Is(err, driver.ErrUnavailable):
		return driver.Grant{}, b.releaseInstead(ctx, h) // the server refuses this script, not every one
	case err != nil:
		return driver.Grant{}, err
	case first == 0:
		return driver.Grant{}, b.whyLost(ctx, held.lock, held.owner)
	}
	if b.announced() {
		b.watched.yielded(held.lock, int(last))
	} else {
		b.watched.refused(held.lock, 0, time.Time{}, false)
		b.watched.wake(held.lock)
	}
	return driver.Grant{}, driver.ErrYielded
}

// tokens reads the reply of handoff.lua: a block of up to n tokens, all of them greater than the
// present holder's, or what it says with first <= 0.
func (b *backend) tokens(ctx context.Context, key string, result rueidis.RedisResult, held *hold, n int) (first, last int64, err error) {
	reply, err := result.AsIntSlice()
	switch {
	case err != nil:
		return 0, 0, b.scriptError(ctx, key, result, err)
	case len(reply) != 2:
		return 0, 0, b.malformed(key, fmt.Sprintf("%d values, not 2", len(reply)))
	}
	first, last = reply[0], reply[1]
	if first == 0 || first == -1 && last >= 0 && last <= math.MaxInt32 {
		return first, last, nil
	}
	if before := b.watched.tokenOf(held); first <= int64(before) || last < first || last-first >= int64(n) || last > driver.MaxToken {
		return 0, 0, b.malformed(key, fmt.Sprintf("tokens %d to %d after %d", first, last, before))
	}
	return first, last, nil
}

// handOff makes r the owner of what lock's owner holds, without the server. It returns no grant
// if the server must be asked, and no hold if it is lost. Where the server announces nothing it
// is always asked: the key may have been deleted and granted to somebody else, whose token is
// greater than what we should hand on (TOK-004). So it is where the two owners have different
// notes, because what others see must be the present holder's (ADM-002).
func (w *watched) handOff(lock, owner string, r driver.Request, announced bool) (*hold, driver.Grant) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.find(lock, owner)
	if h == nil {
		return nil, driver.Grant{}
	}
	now := time.Now()
	left := h.ttl - now.Sub(h.from)
	if !announced || h.unconfirmed || h.unsure || h.breaking > 0 || h.note != r.Note || h.token >= h.last || now.Sub(h.since) >= turnTime ||
		left > r.TTL+excess || left < r.TTL-time.Duration(shortage*float64(r.TTL)) {
		return h, driver.Grant{}
	}
	h.token++
	h.handOffs++
	h.hears, h.taken = r.Hold, now
	g := driver.Grant{Token: h.token, TTL: h.ttl, From: h.from}
	if left > r.TTL {
		g.TTL, g.From = r.TTL, now
	}
	return h, g
}

// turn says how many hand-offs the turn has, and whether it has ended, so that it is time to
// ask for others who wait.
func (w *watched) turn(h *hold, now time.Time) (handOffs int, ends bool) {
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	h.unsure = true // the server may prolong it
	if h.handOffs >= h.turn {
		h.turn = min(2*h.turn, maxHandOffs)
		return h.turn, true
	}
	return h.turn, now.Sub(h.since) >= turnTime
}

// handedOff makes r the owner of h, as the server has confirmed. again says that a new turn
// begins with it.
func (w *watched) handedOff(h *hold, r driver.Request, first, last uint64, sent time.Time, again bool) (driver.Grant, bool) {
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.gone {
		return driver.Grant{}, false
	}
	if again {
		h.since, h.handOffs = sent, 0
	}
	h.token, h.last, h.from, h.ttl, h.unsure = first, last, sent, r.TTL, false
	h.counted = counted(sent, r.TTL)
	h.handOffs++
	h.hears, h.taken, h.note = r.Hold, sent, r.Note
	return driver.Grant{Token: first, TTL: r.TTL, From: sent}, true
}

// present is what is known of the hold with this owner, if it is one of this process.
func (w *watched) present(lock, owner string) (token uint64, taken time.Time, ok bool) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.find(lock, owner)
	if h == nil || !h.held {
		return 0, time.Time{}, false
	}
	return h.token, h.taken, true
}

// noteOf is the note that the server has of h.
func (w *watched) noteOf(h *hold) string {
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.note
}

// tokenOf is the present holder's token.
func (w *watched) tokenOf(h *hold) uint64 {
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.token
}

func (s *watchedShard) find(lock, owner string) *hold {
	for _, h := range s.holds[lock] {
		if h.owner == owner {
			return h
		}
	}
	return nil
}
