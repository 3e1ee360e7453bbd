package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var tokenCases = []Case{
	{ID: "TOK-001", Kinds: both, Clause: "every grant has a token greater than every earlier grant's on that key, across release, expiry and loss", Parts: []Part{
		{Name: "release", fn: tokenRelease},
		{Name: "expiry", fn: tokenExpiry},
		{Name: "loss", Needs: []Need{needsDelete}, fn: tokenLoss},
		passed(passedTokens)[0],
	}},
	{ID: "TOK-002", fn: tokenKept, Parts: passed(passedTokenKept), Clause: "Extend keeps it, and so does a repetition of the attempt by the present owner"},
	{ID: "TOK-003", Kinds: both, fn: tokenRange, Clause: "0 < token ≤ 2^53"},
	{ID: "TOK-004", Kinds: both, Clause: "minted atomically with the grant (lease), and never handed to a holder that a later one has overtaken", Parts: []Part{
		{Name: "expiry", Kinds: []Kind{Lease}, fn: tokenAtomic},
		{Name: "loss", Needs: []Need{needsDelete}, fn: tokenOvertaken},
	}},
	{ID: "TOK-005", Clause: "what it survives (server restart, lost data) is a declared capability", Parts: []Part{
		{Name: "declared", fn: capabilitiesHold},
		{Name: "restart", Needs: []Need{needCapability(driver.TokensSurviveRestart), needsRestart}, fn: tokenRestart},
		{Name: "wipe", Needs: []Need{needCapability(driver.TokensSurviveDataLoss), needsWipe}, fn: tokenWipe},
	}},
}

// rising makes sure of each key that tokens rise from one grant to the next.
type rising struct {
	c    *trial
	last map[string]uint64
}

func (c *trial) rising() *rising { return &rising{c, map[string]uint64{}} }

func (r *rising) grant(h *hold, after string) *hold {
	last := r.last[h.Key()]
	r.c.must(h.Token() > last, fmt.Sprintf("a grant of %s after %s has a token above %d", r.c.short(h.Key()), after, last), "%d", h.Token())
	r.last[h.Key()] = h.Token()
	return h
}

func tokenRelease(c *trial) {
	a, b := c.client(), c.client()
	tokens := c.rising()
	keys := []string{c.key("x"), c.key("y")}
	kinds := [][]locker.Option{c.hold(), {locker.WithTTL(far)}, {locker.WithSession()}}
	for i := range 12 {
		for _, key := range keys {
			cl := []*client{a, b}[i/2%2]
			opts := c.hold()
			if i >= 6 {
				opts = kinds[i%len(kinds)] // the other kind between
			}
			tokens.grant(cl.mustTry(key, opts...), "a release").mustUnlock()
		}
	}

	// A waiter gets a newer token too, from the hand of the holder.
	h := tokens.grant(a.mustTry(keys[0], c.hold()...), "a release")
	p, q := b.goLock(keys[0], append(c.hold(), c.polling())...), a.goLock(keys[0], append(c.hold(), c.polling())...)
	c.settle()
	h.mustUnlock()
	select {
	case <-p.done:
	case <-q.done:
		p, q = q, p
	case <-time.After(c.limit()):
		c.fatal("one of those who wait gets the key", "neither does")
	case <-c.ctx.Done():
		return
	}
	tokens.grant(p.granted(c.limit(), "the release"), "a hand-over").mustUnlock()
	tokens.grant(q.granted(c.limit(), "the release"), "a hand-over").mustUnlock()

	// Also through the end of a client, and from a new one.
	tokens.grant(a.mustTry(keys[1], c.hold()...), "a release")
	c.ok(a.l.Close(c.ctxFor(c.limit())), "Close")
	last := c.client()
	tokens.grant(last.mustTry(keys[1], c.hold()...), "the Close of the holder's client").mustUnlock()
	c.ok(b.l.Close(c.ctxFor(c.limit())), "Close")
	c.ok(last.l.Close(c.ctxFor(c.limit())), "Close")
	// Nobody has the store open now.
	tokens.grant(c.client().mustTry(keys[1], c.hold()...), "the Close of all clients").mustUnlock()
}

// tokenExpiry: the kind is what follows the expired lease.
func tokenExpiry(c *trial) {
	a, b := c.client(), c.client()
	tokens := c.rising()
	key := c.key("k")
	for i, next := range []*client{b, a, b} {
		h := a.mustTry(key, locker.WithTTL(c.unit()))
		tokens.grant(h, "a release")
		if i == 1 { // somebody waits for it, or comes when it is over
			tokens.grant(next.goLock(key, append(c.hold(), c.polling())...).granted(c.limit(), "the end of the ttl"), "an expiry").mustUnlock()
			continue
		}
		c.sleep(c.unit() + c.granularity())
		tokens.grant(next.mustTry(key, c.hold()...), "an expiry").mustUnlock()
	}

	// The same owner again, after its own hold has expired, is a new grant.
	d := c.driver()
	r := driver.Request{Key: key, Owner: c.owner(), TTL: c.unit(), Hold: newRecorder()}
	g1, err := d.Acquire(c.ctxFor(c.limit()), r)
	c.ok(err, "the driver's Acquire")
	c.must(g1.Token > tokens.last[key], "the token rises", "%d after %d", g1.Token, tokens.last[key])
	c.sleep(c.unit() + c.granularity())
	tokens.last[key] = g1.Token
	between := tokens.grant(b.mustTry(key, c.hold()...), "an expiry")
	between.mustUnlock()
	r.TTL = far
	g2, err := d.Acquire(c.ctxFor(c.limit()), r)
	c.ok(err, "the driver's Acquire by an owner whose earlier hold has expired")
	c.must(g2.Token > between.Token(), "the token rises", "%d after %d", g2.Token, between.Token())
}

func tokenLoss(c *trial) {
	a, b := c.client(), c.client()
	tokens := c.rising()
	key := c.key("k")
	for range 3 {
		h := tokens.grant(a.mustTry(key, c.hold()...), "a deletion")
		c.target.Delete(c.t, key)
		c.hist.add("   (an administrator deletes %s)", c.short(key))
		got := tokens.grant(b.mustTry(key, c.hold()...), "a deletion")
		_ = h.unlock()
		got.mustLive()
		got.mustUnlock()
		h = tokens.grant(a.mustTry(key, c.hold()...), "a deletion and a release")
		c.target.Delete(c.t, key)
		_ = h.unlock()
	}
}

func tokenKept(c *trial) {
	a, b := c.client(), c.client()
	key := c.key("k")
	h := a.mustTry(key, locker.WithTTL(far))
	token := h.Token()
	for range 3 {
		c.ok(h.extend(far), "Extend")
		c.must(h.Token() == token, "Extend keeps the token", "%d became %d", token, h.Token())
	}
	h.mustUnlock()
	c.must(h.Token() == token, "Unlock keeps the token", "%d became %d", token, h.Token())
	next := b.mustTry(key, locker.WithTTL(far))
	c.must(next.Token() > token, "the token after an Extend is greater too", "%d after %d", next.Token(), token)
	next.mustUnlock()

	d := c.driver()
	ctx := c.ctxFor(c.limit())
	for _, ttl := range []time.Duration{far, 0} {
		what := kindOf(ttl)
		r := driver.Request{Key: key, Owner: c.owner(), TTL: ttl, Hold: newRecorder()}
		g, err := d.Acquire(ctx, r)
		c.ok(err, "the driver's Acquire (%s)", what)
		for range 3 {
			again, err := d.Acquire(ctx, r)
			c.ok(err, "a repetition of Acquire by the present owner (%s)", what)
			c.must(again.Token == g.Token, "a repetition of Acquire by the present owner gives the same token ("+what+")", "%d became %d", g.Token, again.Token)
		}
		holder := driver.Holder{Key: key, Owner: r.Owner, Token: g.Token, Session: ttl == 0}
		if ttl > 0 {
			e, err := d.Extend(ctx, holder, far)
			c.ok(err, "the driver's Extend")
			c.must(e.Token == g.Token, "the driver's Extend returns the token of the hold", "%d instead of %d", e.Token, g.Token)
		}
		b.mustHeld(key)
		c.ok(d.Release(ctx, holder), "the driver's Release")
		b.mustTry(key).mustUnlock() // a repetition is no second hold
	}
}

func tokenRange(c *trial) {
	a, b := c.client(), c.client()
	inRange := func(token uint64) {
		c.must(0 < token && token <= driver.MaxToken, "0 < token ≤ 9007199254740992", "%d", token)
	}
	for i := range 50 {
		h := a.mustTry(c.key(fmt.Sprint("own ", i)), c.hold()...)
		inRange(h.Token())
		h.mustUnlock()
		h = b.mustTry(c.key("shared"), c.hold()...)
		inRange(h.Token())
		h.mustUnlock()
	}
}

// tokenAtomic: leases so short that they are taken over all the time, also between the
// grant and whatever a backend does after it.
func tokenAtomic(c *trial) {
	log := c.hammer(hammer{
		clients: []*client{c.client(), c.client()}, keys: []string{c.key("k")},
		rounds: c.rounds(60, 25), lapse: true, stay: 2 * time.Millisecond,
		ttl: func(r *rand.Rand) time.Duration { return time.Duration(1+r.IntN(3)) * time.Millisecond },
	}, 8)
	if c.ctx.Err() == nil && len(log.spans) == 0 {
		c.note("no lease of 1 to 3 ms was ever in hand before it was over: this store is too far away for this part")
		return
	}
	c.checkSpans(log)
}

// tokenOvertaken is tokenAtomic for holds that end because an administrator deletes them.
func tokenOvertaken(c *trial) {
	key := c.key("k")
	clients := []*client{c.client(), c.client()}
	quit, cancel := context.WithCancel(c.ctx)
	r := c.rand()
	admin := c.spawn(func() {
		for quit.Err() == nil {
			c.target.Delete(c.t, key)
			c.sleep(time.Duration(r.Int64N(int64(time.Millisecond))))
		}
	})
	log := c.hammer(hammer{
		clients: clients, keys: []string{key}, rounds: c.rounds(60, 25), stay: time.Millisecond, lossy: true,
		ttl: func(*rand.Rand) time.Duration { return c.ttl() },
	}, 8)
	cancel()
	<-admin
	c.checkSpans(log)
}

// capabilitiesHold: what can be seen of the declaration itself.
func capabilitiesHold(c *trial) {
	a := c.client()
	_, b := c.open()
	c.onClose(func(ctx context.Context) { _ = b.Close(ctx) })
	first := c.caps
	for range 3 {
		for name, got := range map[string]driver.Capabilities{"the same backend": a.tap.Capabilities(), "another client of the store": b.Capabilities(), "the Locker": a.l.Capabilities()} {
			c.must(got == first, "Capabilities is the same at every call", "%+v, and from %s %+v", first, name, got)
		}
		a.mustTry(c.key("k")).mustUnlock()
	}
	c.must(first.Name != "", "Capabilities.Name says what the backend is called", "it is empty")
	c.must(first.Granularity > 0, "Capabilities.Granularity is above 0: nothing is free in the very instant of its ttl", "%s", first.Granularity)
	c.must(first.SessionValidity >= 0, "Capabilities.SessionValidity is not negative", "%s", first.SessionValidity)
	known := driver.NewSet(driver.All()...)
	c.must(first.Has&^known == 0, "Capabilities.Has holds capabilities that package driver knows", "also %b", first.Has&^known)
}

func tokenRestart(c *trial) { c.tokenAcross("a restart of the store", c.target.Restart) }

func tokenWipe(c *trial) { c.tokenAcross("the loss of all data", c.target.Wipe) }

// tokenAcross makes sure that tokens go on rising after what happens to the store.
func (c *trial) tokenAcross(what string, happens func(testing.TB)) {
	tokens := c.rising()
	a := c.client()
	var keys []string
	for i := range 10 {
		key := c.key(fmt.Sprint(i))
		keys = append(keys, key)
		for range 3 {
			tokens.grant(a.mustTry(key), "a release").mustUnlock()
		}
	}
	c.hist.add("   (%s)", what)
	happens(c.t)
	b := c.client()
	patience := locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: max(c.granularity(), 10*time.Millisecond)})
	for _, key := range keys {
		h, err := b.lock(c.ctxFor(c.limit()), key, patience)
		if errors.Is(err, locker.ErrUnavailable) {
			c.fatal("the store answers after "+what, "%v", err)
		}
		c.ok(err, "Lock after %s", what)
		tokens.grant(h, what).mustUnlock()
	}
}
