package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var tokenCases = []Case{
	{ID: "TOK-001", Kinds: both, Clause: "every grant has a token greater than every earlier grant's on that key, across release, expiry and loss", Parts: []Part{
		{Name: "release", fn: tokenRelease},
		{Name: "expiry", fn: tokenExpiry},
		{Name: "loss", Needs: []Need{needsDelete}, fn: tokenLoss},
		{Name: "process", Needs: []Need{needsProcess}, fn: tokensOfProcesses},
		{Name: "clock", Needs: []Need{needsSkew}, fn: tokenClock},
		{Name: "turns", fn: tokensInTurns},
		passed(passedTokens)[0],
	}},
	{ID: "TOK-002", fn: tokenKept, Parts: passed(passedTokenKept), Clause: "Extend keeps it, and so does a repetition of the attempt by the present owner"},
	{ID: "TOK-003", Kinds: both, fn: tokenRange, Parts: []Part{{Name: "refused", Needs: []Need{needsRefuse}, fn: tokenAfterRefusal}}, Clause: "0 < token ≤ 2^53"},
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
	r.c.Must(h.Token() > last, fmt.Sprintf("a grant of %s after %s has a token above %d", r.c.Short(h.Key()), after, last), "%d", h.Token())
	r.last[h.Key()] = h.Token()
	return h
}

// throughLine has n others of h's client wait for its key, and each release by the one before. It returns the last
// one's hold.
func (r *rising) throughLine(h *hold, n int, opts ...locker.Option) *hold {
	c, opts := r.c, append(opts, r.c.Polling())
	var line []*pending
	for range n {
		line = append(line, h.cl.goLock(h.Key(), opts...))
	}
	c.Settle()
	for range n {
		h.mustUnlock()
		i, p := c.first(line)
		line = append(line[:i], line[i+1:]...)
		h = r.grant(p.granted(c.Limit(), "the release"), "a hand-over")
	}
	return h
}

func tokenRelease(c *trial) {
	a, b := c.client(), c.client()
	tokens := c.rising()
	keys := []string{c.Key("x"), c.Key("y")}
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
	p, q := b.goLock(keys[0], append(c.hold(), c.Polling())...), a.goLock(keys[0], append(c.hold(), c.Polling())...)
	c.Settle()
	h.mustUnlock()
	select {
	case <-p.done:
	case <-q.done:
		p, q = q, p
	case <-time.After(c.Limit()):
		c.Fatal("one of those who wait gets the key", "neither does")
	case <-c.Ctx.Done():
		return
	}
	tokens.grant(p.granted(c.Limit(), "the release"), "a hand-over").mustUnlock()
	tokens.grant(q.granted(c.Limit(), "the release"), "a hand-over").mustUnlock()

	// Also through the end of a client, and from a new one.
	tokens.grant(a.mustTry(keys[1], c.hold()...), "a release")
	c.OK(a.l.Close(c.CtxFor(c.Limit())), "Close")
	last := c.client()
	tokens.grant(last.mustTry(keys[1], c.hold()...), "the Close of the holder's client").mustUnlock()
	c.OK(b.l.Close(c.CtxFor(c.Limit())), "Close")
	c.OK(last.l.Close(c.CtxFor(c.Limit())), "Close")
	// Nobody has the store open now.
	tokens.grant(c.client().mustTry(keys[1], c.hold()...), "the Close of all clients").mustUnlock()
}

// tokenExpiry: the kind is what follows the expired lease.
func tokenExpiry(c *trial) {
	a, b := c.client(), c.client()
	tokens := c.rising()
	key := c.Key("k")
	for i, next := range []*client{b, a, b} {
		h := a.mustTry(key, locker.WithTTL(c.Unit()))
		tokens.grant(h, "a release")
		if i == 1 { // somebody waits for it, or comes when it is over
			tokens.grant(next.goLock(key, append(c.hold(), c.Polling())...).granted(c.Limit(), "the end of the ttl"), "an expiry").mustUnlock()
			continue
		}
		c.Sleep(c.Unit() + c.Granularity())
		tokens.grant(next.mustTry(key, c.hold()...), "an expiry").mustUnlock()
	}

	// The same owner again, after its own hold has expired, is a new grant.
	d := c.driver()
	r := driver.Request{Key: key, Owner: c.Owner(), TTL: c.Unit(), Hold: newRecorder()}
	g1, err := d.Acquire(c.CtxFor(c.Limit()), r)
	c.OK(err, "the driver's Acquire")
	c.Must(g1.Token > tokens.last[key], "the token rises", "%d after %d", g1.Token, tokens.last[key])
	c.Sleep(c.Unit() + c.Granularity())
	tokens.last[key] = g1.Token
	between := tokens.grant(b.mustTry(key, c.hold()...), "an expiry")
	between.mustUnlock()
	r.TTL = far
	g2, err := d.Acquire(c.CtxFor(c.Limit()), r)
	c.OK(err, "the driver's Acquire by an owner whose earlier hold has expired")
	c.Must(g2.Token > between.Token(), "the token rises", "%d after %d", g2.Token, between.Token())
}

func tokenLoss(c *trial) {
	a, b := c.client(), c.client()
	tokens := c.rising()
	key := c.Key("k")
	for range 3 {
		h := tokens.grant(a.mustTry(key, c.hold()...), "a deletion")
		c.target.Delete(c.T, key)
		c.Hist.Add("   (an administrator deletes %s)", c.Short(key))
		got, err := b.try(key, c.hold()...)
		c.Claim("LOSS-003").Must(!errors.Is(err, locker.ErrLost), "the next holder is not told of the loss of the one before", "%v", err)
		c.OK(err, "TryLock of what was deleted")
		tokens.grant(got, "a deletion")
		_ = h.unlock()
		got.mustLive()
		got.mustUnlock()
		h, err = a.try(key, c.hold()...)
		c.Claim("LOSS-003").Must(!errors.Is(err, locker.ErrLost), "the next holder is not told of the loss of the one before", "%v", err)
		c.OK(err, "TryLock of what was released")
		tokens.grant(h, "a deletion and a release")
		c.target.Delete(c.T, key)
		_ = h.unlock()
	}
}

// tokenClock: the store's clock is set back between two grants, and a token may have to do with it.
func tokenClock(c *trial) {
	set := func(by time.Duration) {
		c.inject().Skew(c.T, by)
		c.Hist.Add("   (the store's clock is set to %s ahead of ours)", by)
		off := time.Until(c.inject().Clock(c.T))
		c.Must((off-by).Abs() < time.Second, fmt.Sprintf("the store's clock is %s ahead", by), "it is %s ahead", off)
	}
	set(10 * time.Second)
	a, b := c.near(), c.near()
	tokens := c.rising()
	keys := []string{c.Key("x"), c.Key("y")}
	round := func(after string) {
		for _, cl := range []*client{a, b, a} {
			for _, key := range keys {
				tokens.grant(cl.mustTry(key, c.hold()...), after).mustUnlock()
			}
		}
	}
	round("a release")
	for _, by := range []time.Duration{0, -10 * time.Second, 10 * time.Second, 5 * time.Second} {
		set(by)
		round("a step of the store's clock")
	}
	// Once more while the key is held and waited for.
	h := tokens.grant(a.mustTry(keys[0], c.hold()...), "a release")
	p := b.goLock(keys[0], append(c.hold(), c.Polling())...)
	c.Settle()
	set(-5 * time.Second)
	h.mustUnlock()
	tokens.grant(p.granted(c.Limit(), "the release"), "a step of the store's clock").mustUnlock()

	// And after a line in one process, for which tokens may have been set aside.
	for _, ahead := range []time.Duration{20 * time.Second, 40 * time.Second} {
		set(ahead)
		h = tokens.grant(a.mustTry(keys[1], c.hold()...), "a release")
		tokens.throughLine(h, 8, c.hold()...).mustUnlock()
		set(-5 * time.Second)
		tokens.grant(b.mustTry(keys[1], c.hold()...), "hand-overs in another process, and a step of the store's clock").mustUnlock()
	}
}

func tokenKept(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	h := a.mustTry(key, locker.WithTTL(far))
	token := h.Token()
	for range 3 {
		c.OK(h.extend(far), "Extend")
		c.Must(h.Token() == token, "Extend keeps the token", "%d became %d", token, h.Token())
	}
	h.mustUnlock()
	c.Must(h.Token() == token, "Unlock keeps the token", "%d became %d", token, h.Token())
	next := b.mustTry(key, locker.WithTTL(far))
	c.Claim("TOK-001").Must(next.Token() > token, "the token after an Extend is greater too", "%d after %d", next.Token(), token)
	next.mustUnlock()

	d := c.driver()
	ctx := c.CtxFor(c.Limit())
	for _, ttl := range []time.Duration{far, 0} {
		what := harness.KindOf(ttl)
		r := driver.Request{Key: key, Owner: c.Owner(), TTL: ttl, Hold: newRecorder()}
		g, err := d.Acquire(ctx, r)
		c.OK(err, "the driver's Acquire (%s)", what)
		for range 3 {
			other := driver.Holder{Key: key, Owner: c.Owner(), Session: ttl == 0}
			c.Claim("REL-002").Is(d.Release(ctx, other), driver.ErrLost, "the driver's Release, without a token, by one who has nothing (%s)", what)
			again, err := d.Acquire(ctx, r)
			c.Claim("FLT-001").OK(err, "a repetition of Acquire by the present owner (%s)", what)
			c.Must(again.Token == g.Token, "a repetition of Acquire by the present owner gives the same token ("+what+")", "%d became %d", g.Token, again.Token)
		}
		holder := driver.Holder{Key: key, Owner: r.Owner, Token: g.Token, Session: ttl == 0}
		if ttl > 0 {
			e, err := d.Extend(ctx, holder, far)
			c.OK(err, "the driver's Extend")
			c.Must(e.Token == g.Token, "the driver's Extend returns the token of the hold", "%d instead of %d", e.Token, g.Token)
		}
		b.mustHeld(key)
		c.OK(d.Release(ctx, holder), "the driver's Release")
		next, err := b.try(key)
		c.Claim("FLT-001").OK(err, "TryLock of what was released once: a repetition is no second hold: it") // as by one owner
		next.mustUnlock()
	}
}

func tokenRange(c *trial) {
	a, b := c.client(), c.client()
	inRange := func(token uint64) {
		c.Must(0 < token && token <= driver.MaxToken, "0 < token ≤ 9007199254740992", "%d", token)
	}
	// Keys that were never held: that a release frees one is REL-001's.
	for i := range 50 {
		for _, cl := range []*client{a, b} {
			h := cl.mustTry(c.Key(fmt.Sprint(cl.name, i)), c.hold()...)
			inRange(h.Token())
			c.Claim("REL-001").OK(h.unlock(), "Unlock")
		}
	}
}

// tokenAtomic: leases so short that they are taken over all the time, also between the
// grant and whatever a backend does after it.
func tokenAtomic(c *trial) {
	within := c.Limit() / 6 // a store that is far away, or slow, may take minutes for all rounds
	if c.Virtual {
		within = 0
	}
	log := c.hammer(hammer{
		within:  within,
		clients: []*client{c.client(), c.client()}, keys: []string{c.Key("k")},
		rounds: c.Rounds(60, 25), lapse: true, stay: 2 * time.Millisecond,
		ttl: func(r *rand.Rand) time.Duration { return time.Duration(1+r.IntN(3)) * time.Millisecond },
	}, 8)
	if c.Ctx.Err() == nil && len(log.spans) == 0 {
		c.Note("no lease of 1 to 3 ms was ever in hand before it was over: this store is too far away for this part")
		return
	}
	c.checkSpans(log)
}

// tokenOvertaken is tokenAtomic for holds that end because an administrator deletes them.
func tokenOvertaken(c *trial) {
	key := c.Key("k")
	clients := []*client{c.client(), c.client()}
	quit, cancel := context.WithCancel(c.Ctx)
	r := c.Rand()
	admin := c.Spawn(func() {
		for quit.Err() == nil {
			c.target.Delete(c.T, key)
			c.Sleep(time.Duration(r.Int64N(int64(time.Millisecond))))
		}
	})
	log := c.hammer(hammer{
		clients: clients, keys: []string{key}, rounds: c.Rounds(60, 25), stay: time.Millisecond, lossy: true,
		ttl: func(*rand.Rand) time.Duration { return c.ttl() },
	}, 8)
	cancel()
	<-admin
	c.checkSpans(log)
}

// capabilitiesHold: what can be seen of the declaration itself.
func capabilitiesHold(c *trial) {
	a := c.client()
	_, b := c.Open()
	c.OnClose(func(ctx context.Context) { _ = b.Close(ctx) })
	first := c.Caps
	for range 3 {
		for name, got := range map[string]driver.Capabilities{"the same backend": a.tap.Capabilities(), "another client of the store": b.Capabilities(), "the Locker": a.l.Capabilities()} {
			c.Must(got == first, "Capabilities is the same at every call", "%+v, and from %s %+v", first, name, got)
		}
		a.mustTry(c.Key("k")).mustUnlock()
	}
	c.Must(first.Name != "", "Capabilities.Name says what the backend is called", "it is empty")
	c.Must(first.Granularity > 0, "Capabilities.Granularity is above 0: nothing is free in the very instant of its ttl", "%s", first.Granularity)
	c.Must(first.SessionValidity >= 0, "Capabilities.SessionValidity is not negative", "%s", first.SessionValidity)
	known := driver.NewSet(driver.All()...)
	c.Must(first.Has&^known == 0, "Capabilities.Has holds capabilities that package driver knows", "also %b", first.Has&^known)
}

func tokenRestart(c *trial) { c.tokenAcross("a restart of the store", c.client, c.target.Restart) }

func tokenWipe(c *trial) {
	open, wipe := c.client, c.target.Wipe
	if wipe == nil { // the target's store is others' too
		open, wipe = c.near, c.inject().Wipe
	}
	c.tokenAcross("the loss of all data", open, wipe)
}

// tokenAcross makes sure that tokens go on rising after what happens to the store.
func (c *trial) tokenAcross(what string, open func() *client, happens func(testing.TB)) {
	tokens := c.rising()
	a := open()
	var keys []string
	for i := range 10 {
		key := c.Key(fmt.Sprint(i))
		keys = append(keys, key)
		for range 3 {
			tokens.grant(a.mustTry(key), "a release").mustUnlock()
		}
	}
	c.Hist.Add("   (%s)", what)
	happens(c.T)
	b := open()
	patience := locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: max(c.Granularity(), 10*time.Millisecond), Jitter: locker.NoJitter})
	for _, key := range keys {
		h, err := b.lock(c.CtxFor(c.Limit()), key, patience)
		if errors.Is(err, locker.ErrUnavailable) {
			c.Fatal("the store answers after "+what, "%v", err)
		}
		c.OK(err, "Lock after %s", what)
		tokens.grant(h, what).mustUnlock()
	}
}

// tokenAfterRefusal: a store that could not mint a token has not granted the key either, whoever asks again.
func tokenAfterRefusal(c *trial) {
	x, y := c.nearRaw(), c.nearRaw()
	for i := range 3 {
		before := c.soon(x, c.Key(fmt.Sprint(i)))
		before.mustRelease()
		again, err := y.acquire(before.req.Key, c.Owner(), c.ttl())
		c.Claim("REL-001").OK(err, "the driver's Acquire after a release")
		again.mustRelease()
		last := again.token
		inTurn := func(g *grip, what string) {
			c.Must(0 < g.token && g.token <= driver.MaxToken, what+" has a token, 0 < token ≤ 9007199254740992", "%d", g.token)
			c.Claim("TOK-001").Must(g.token > last, what+" has a token above that of the grant before", "%d after %d", g.token, last)
			last = g.token
		}
		o := c.Owner()
		accept := c.refuses()
		var granted *grip
		var refused, wrong error
		for _, by := range []driver.Owner{o, o, c.Owner()} {
			g, err := x.acquire(before.req.Key, by, c.ttl())
			switch {
			case err == nil: // some of its servers serve, for one
				granted = g
			case granted == nil && errors.Is(err, driver.ErrHeld):
				wrong = err
			default:
				refused = err
			}
		}
		accept()
		c.Claim("ERR-002").Must(wrong == nil, "the driver's Acquire of a key that nobody was granted does not say that it is held", "%v", wrong)
		if granted != nil {
			inTurn(granted, "what is granted by a store that grants hardly anything")
			_ = granted.release()
		}
		if refused == nil {
			c.Skip("the target's Refuse has no effect on an attempt")
		}
		if g, err := x.acquire(before.req.Key, o, c.ttl()); err == nil {
			inTurn(g, "a grant to one who was refused at first")
			g.mustRelease()
		}
		next := c.soon(y, before.req.Key)
		inTurn(next, "a grant after a store granted nothing")
		next.mustRelease()
	}
}

// soon takes a key of a store that may have granted nothing just before.
func (c *trial) soon(r *raw, key string) *grip {
	for end := time.Now().Add(c.recovery()); ; c.Sleep(c.Granularity()) {
		g, err := r.acquire(key, c.Owner(), c.ttl())
		if err == nil {
			return g
		}
		c.Claim("WAIT-006").Must(time.Now().Before(end), "a store that grants again is asked again", "%v", err)
	}
}

// tokensInTurns: holds that last for no time at all, of two processes that take turns.
func tokensInTurns(c *trial) {
	a, b := c.client(), c.client()
	tokens, key := c.rising(), c.Key("k")
	var mu sync.Mutex
	until := time.Now().Add(c.Limit() / 8)
	c.Together(8, func(i int) {
		cl := []*client{a, a, a, b}[i%4]
		for round := 0; round < 400 && (round < 4 || time.Now().Before(until)); round++ {
			h, err := cl.lock(c.Ctx, key, append(c.hold(), c.Polling())...)
			c.OK(err, "%s's Lock, in turn with others,", cl.name)
			func() {
				mu.Lock()
				defer mu.Unlock()
				tokens.grant(h, "one that was over at once")
			}()
			h.mustUnlock()
		}
	})
}
