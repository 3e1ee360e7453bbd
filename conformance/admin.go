package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var adminCases = []Case{
	{ID: "ADM-001", Kinds: both, Needs: []Need{needCapability(driver.Notes), needsInspector}, fn: notesTravel, Parts: []Part{{Name: "waiter", fn: waiterNotes}, {Name: "in-turn", fn: notesInTurn}},
		Clause: "the identity and the note of a hold are what Inspect tells from its grant to its end, whatever bytes they are; and so is since when it is held"},
	{ID: "ADM-002", Kinds: []Kind{Lease}, Needs: []Need{needCapability(driver.Notes), needsInspector, needsPasser}, fn: notesOfPassed,
		Parts:  []Part{{Name: "in-turn", fn: notesHandedOff}},
		Clause: "after a hand-off within a process Inspect tells the note of the new holder, in every process"},
	{ID: "ADM-003", Needs: []Need{needCapability(driver.Listing)}, fn: lists, Parts: []Part{
		{Name: "longest", fn: listsLongest},
		{Name: "overwritten", Needs: []Need{needsOverwrite}, fn: listsForeign},
	},
		Clause: "List tells each hold under the prefix that lasts as long as the List does, as Inspect would, and nothing else"},
	{ID: "ADM-004", Needs: []Need{needCapability(driver.Listing)}, fn: listEnds,
		Clause: "List ends with the loop that asks, with its ctx and with Close, and keeps nobody from the store meanwhile"},
	{ID: "ADM-005", Kinds: both, Needs: []Need{needCapability(driver.Breaking)}, fn: breaks, Parts: append(passed(passedBreak), Part{Name: "waiter", fn: breakWakes}, Part{Name: "overwritten", Needs: []Need{needsOverwrite}, fn: breaksForeign}),
		Clause: "Break frees the key at once if the very hold with the token has it; otherwise it is ErrLost and changes nothing"},
	{ID: "ADM-006", Kinds: both, Needs: []Need{needCapability(driver.Breaking)}, fn: brokenHears, Parts: []Part{passed(passedBroken)[0], {Name: "unheard", fn: brokenUnheard}, {Name: "cut-off", Needs: []Need{needsLine}, fn: brokenCutOff}},
		Clause: "the holder hears that its hold was broken, in every process, as promptly as of any loss; the hold does not come back, and a Lock that was broken before the answer came goes on"},
	{ID: "ADM-007", Needs: []Need{needCapability(driver.Listing), needCapability(driver.Breaking), needsInspector}, fn: adminInNamespace,
		Clause: "in a namespace List, Inspect and Break see what is held there and nothing else, by its keys without the namespace"},
}

// hostileText has all that may hurt a terminal, a wire or a parser.
const hostileText = "\x00\xff;:{}\x1b[2J\r\n%s '\"\\ é\u202e"

// takeSaying is take of one who says of himself who he is and what for.
func (r *raw) takeSaying(key string, ttl time.Duration, identity, note string) *grip {
	g, err := r.ask(driver.Request{Key: key, Owner: r.c.Owner(), TTL: ttl, Identity: identity, Note: note})
	r.c.OK(err, "the driver's Acquire of %s, which is free,", r.c.Short(key))
	return g
}

// says makes sure that by sees what g said of itself.
func (g *grip) says(by *raw, when string) {
	c := g.r.c
	info, ok := by.inspected(g.req.Key)
	c.Must(ok, "Inspect of a key that is held says that it is, "+when, "it says that it is free")
	g.isSaid(info, when)
}

func (g *grip) isSaid(info driver.Info, when string) {
	c := g.r.c
	c.Must(info.Key == g.req.Key, "Inspect tells the key, "+when, "%q", info.Key)
	c.Must(info.Identity == g.req.Identity, fmt.Sprintf("Inspect tells the holder's identity, %.40q, %s", g.req.Identity, when), "%.80q", info.Identity)
	c.Must(info.Note == g.req.Note, fmt.Sprintf("Inspect tells the holder's note, %.40q, %s", g.req.Note, when), "%.80q", info.Note)
	if !info.Since.IsZero() {
		early, late := g.before.Sub(info.Since), info.Since.Sub(g.after)
		c.Must(early <= c.Prompt() && late <= c.Prompt(), "Inspect tells since when the key is held, or nothing, "+when, "%s before the grant", early)
	}
	c.Must(info.Waiters >= -1, "Waiters is a number, or -1 where it is not known", "%d", info.Waiters)
}

func notesTravel(c *trial) {
	x, y := c.raw(), c.raw()
	for i, said := range [][2]string{
		{"host:1 program", "a note"}, {hostileText, hostileText}, {"", ""}, {"9:x;", ""}, {"", "1;:note"},
		{strings.Repeat("\xfe", locker.MaxIdentity), strings.Repeat("\x01", locker.MaxNote)},
	} {
		key := c.Key(fmt.Sprint(i))
		g := x.takeSaying(key, c.ttl(), said[0], said[1])
		seen := func(when string) {
			for _, by := range []*raw{x, y} {
				g.says(by, when)
			}
		}
		seen("after the grant")
		if i == 0 {
			c.Sleep(2 * c.Prompt()) // what tells the present moment is not since when
			seen("some time after the grant")
		}
		_, err := y.ask(driver.Request{Key: key, Owner: c.Owner(), TTL: c.ttl(), Identity: "another", Note: "refused"})
		c.Is(err, driver.ErrHeld, "the driver's Acquire of a key that is held")
		seen("after another's attempt was refused")
		if c.leaf.kind == Lease {
			c.OK(g.extend(far*2), "the driver's Extend")
			seen("after Extend")
		}
		again := g.again()
		again.before = g.before // the repeat found the hold that there was
		g = again
		seen("after its attempt was repeated")
		g.mustRelease()
		g = y.takeSaying(key, c.ttl(), "the next", "")
		seen("with the next holder, who has no note")
		g.mustRelease()
	}
	g := x.takeSaying(c.Key("expires"), c.Unit(), "the first", "runs out")
	c.Sleep(time.Until(g.after.Add(c.Unit() + c.Granularity())))
	next := y.takeSoon(g.req.Key, c.ttl())
	next.says(x, "with the next holder after an expiry, who says nothing")
	next.mustRelease()
}

// waiterNotes: what one who waited says of itself is what it asked with.
func waiterNotes(c *trial) {
	a := c.clientWith(locker.Config{Identity: "client a"})
	const hostile = "client b;:{}\xff é\u202e" // a configuration takes no control character
	b := c.clientWith(locker.Config{Identity: hostile})
	key := c.Key("k")
	seen := func(h *hold, who, note string) {
		in, _ := driver.As[driver.Inspector](h.cl.tap.Inner)
		info, ok, err := in.Inspect(c.CtxFor(c.Limit()), key)
		c.OK(err, "Inspect")
		c.Must(ok && info.Token == h.Token() && info.Identity == who && info.Note == note,
			fmt.Sprintf("Inspect tells who holds the key after a wait, %q with the note %q", who, note), "%v, %+.100q, %+.100q", ok, info.Identity, info.Note)
	}
	h := a.mustTry(key, append(c.hold(), locker.WithNote("the first"))...)
	seen(h, "client a", "the first")
	one := b.goLock(key, append(c.hold(), c.Polling(), locker.WithNote("the second"))...)
	c.Settle()
	h.mustUnlock()
	h = one.granted(c.Limit(), "the release")
	seen(h, hostile, "the second")
	two := b.goLock(key, append(c.hold(), c.Polling())...) // of the same client, without a note
	c.Settle()
	h.mustUnlock()
	h = two.granted(c.Limit(), "the release")
	seen(h, hostile, "")
	h.mustUnlock()
}

// notesInTurn: of those who hold a key one after the other each has its own note, or none, whether it
// comes from another process or from the same one.
func notesInTurn(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	for i, note := range slices.Concat(notes, notes) {
		h := []*client{a, b}[i/2%2].mustTry(key, c.saying(note)...)
		h.hasNote(note, a, b)
		h.mustUnlock()
	}
}

// notesHandedOff is the same of those to whom a hold is handed off.
func notesHandedOff(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	h := a.mustTry(key, c.saying(notes[0])...)
	for _, note := range notes[1:] {
		p := a.goLock(key, append(c.saying(note), c.Polling())...)
		c.Settle()
		h.mustUnlock()
		h = p.granted(c.Limit(), "the release")
		h.hasNote(note, a, b)
	}
	h.mustUnlock()
}

// notes follow each other in all ways: another one, none, the same, and one after none.
var notes = []string{"one", "two", "", "one", "one", "", "two"}

func (c *trial) saying(note string) []locker.Option {
	if note == "" {
		return c.hold()
	}
	return append(c.hold(), locker.WithNote(note))
}

func (h *hold) hasNote(note string, clients ...*client) {
	c := h.cl.c
	for _, by := range clients {
		in, _ := driver.As[driver.Inspector](by.tap.Inner)
		info, ok, err := in.Inspect(c.CtxFor(c.Limit()), h.Key())
		c.OK(err, "Inspect")
		c.Must(ok && info.Note == note, fmt.Sprintf("%s's Inspect tells the present holder's note, %q", by.name, note), "%v, %q", ok, info.Note)
	}
}

func notesOfPassed(c *trial) {
	a, b := c.client(), c.client()
	if _, waits := driver.As[driver.Waiter](c.target.Backend); waits && !c.CoreLoop {
		c.Skip("the backend waits by itself: nobody stands in the core's queue, from which it could be served")
	}
	for round := range 20 {
		key := c.Key(fmt.Sprint(round))
		h := a.mustTry(key, locker.WithTTL(far), locker.WithNote("first"))
		var line []*pending
		notes := []string{"a", "a", "b", "", "", "c", "c"}
		for _, note := range notes {
			line = append(line, a.goLock(key, locker.WithTTL(far), c.Polling(), locker.WithNote(note)))
			c.Settle()
		}
		before := a.tap.HandOffs()
		for i, p := range line {
			h.mustUnlock()
			h = p.granted(c.Limit(), "the release")
			for _, by := range []*client{a, b} {
				in, _ := driver.As[driver.Inspector](by.tap.Inner)
				info, ok, err := in.Inspect(c.CtxFor(c.Limit()), key)
				c.OK(err, "Inspect")
				c.Must(ok && info.Note == notes[i], fmt.Sprintf("%s's Inspect tells the note of the present holder, %q", by.name, notes[i]), "%v, %q", ok, info.Note)
			}
		}
		h.mustUnlock()
		if a.tap.HandOffs() > before {
			return
		}
	}
	c.Skip("in 20 tries no hold was handed off")
}

// listed is what r's List tells, by key.
func (r *raw) listed(prefix string) map[string]driver.Info {
	return r.listedOr(r.c.Claim(r.c.ID), prefix)
}

// listedOr is listed where another clause is broken if a List fails.
func (r *raw) listedOr(claim harness.Claim, prefix string) map[string]driver.Info {
	l, ok := driver.As[driver.Lister](r.inner)
	r.c.Must(ok, "a backend that declares Listing is a driver.Lister", "it is none")
	all := map[string]driver.Info{}
	n := 0
	for info, err := range l.List(r.c.CtxFor(r.c.Limit()), prefix) {
		claim.OK(err, "List of %s", r.c.Short(prefix))
		claim.Must(strings.HasPrefix(info.Key, prefix), "List tells keys that begin with the prefix", "%.80q", info.Key)
		all[info.Key] = info
		n++
	}
	r.c.Hist.Add("   list %s → %d of %d keys", r.c.Short(prefix), n, len(all))
	return all
}

func lists(c *trial) {
	x, y := c.raw(), c.raw()
	const many = 560 // more than a page of Redis's
	under := c.Key("under") + "/"
	var grips []*grip
	keep := func(r *raw, key string, ttl time.Duration, note string) {
		grips = append(grips, r.takeSaying(key, ttl, "who", note))
	}
	for i := range many {
		r, ttl := x, far
		if i%2 == 1 {
			r = y
		}
		if i%50 == 0 {
			ttl = 0
		}
		keep(r, under+fmt.Sprint(i), ttl, fmt.Sprint("note ", i))
	}
	for _, name := range []string{"*", "?", "[0-9]", `\`, "}{", "{}", "\x00", "\xff", " ", ":queue", "}"} {
		keep(x, under+name, far, hostileText)
	}
	// What is not to be told: another prefix, what is over, what was refused.
	outside := []*grip{x.take(c.Key("beside"), far), x.take(strings.TrimSuffix(under, "/"), far)}
	for i := range 20 {
		x.take(under+fmt.Sprint("released ", i), far).mustRelease()
		y.refused(grips[i].req.Key, c.Owner(), far)
	}
	over := x.take(under+"expired", c.Unit())
	c.Sleep(time.Until(over.after.Add(c.Unit() + c.Granularity())))

	check := func(by *raw, prefix string) {
		all := by.listed(prefix)
		for _, g := range grips {
			if !strings.HasPrefix(g.req.Key, prefix) {
				continue
			}
			info, ok := all[g.req.Key]
			delete(all, g.req.Key)
			c.Must(ok, "List tells every key that is held under the prefix", "nothing of %q", g.req.Key)
			c.Must(info.Owner == g.req.Owner.String() && info.Token == g.token && info.Session == (g.req.TTL == 0),
				fmt.Sprintf("List tells the hold of %q, owner %s with token %d", g.req.Key, g.req.Owner, g.token), "%+v", info)
			if c.Caps.Has.Has(driver.Notes) {
				g.isSaid(info, "in a List")
			}
		}
		for _, g := range outside {
			if strings.HasPrefix(g.req.Key, prefix) {
				delete(all, g.req.Key)
			}
		}
		for key := range all {
			c.Must(!strings.HasPrefix(key, under), "List tells nothing that is not held", "%q", key)
		}
	}
	for _, by := range []*raw{x, y} {
		check(by, under)
		check(by, "")
	}
	for _, prefix := range []string{"1", "1}", "*", "?", "[", `\`, "}", "{", "\x00", "\xff", "*x", "nothing"} {
		check(y, under+prefix)
	}
	for _, g := range append(grips, outside...) {
		g.mustRelease()
	}
	check(y, c.Key("nothing"))
	grips = nil
	check(y, under)
}

// listsLongest: the longest keys are told whole, and two that differ in their last byte are two.
func listsLongest(c *trial) {
	x, y := c.raw(), c.raw()
	under := c.Key("long") + "/"
	stem := under + strings.Repeat("x", locker.MaxKey-1-len(under))
	grips := []*grip{x.take(stem+"1", far), y.take(stem+"2", far), x.take(stem, far)}
	for _, by := range []*raw{x, y} {
		for prefix, n := range map[string]int{under: 3, stem: 3, stem + "1": 1, stem + "2": 1} {
			all := by.listed(prefix)
			c.Must(len(all) == n, fmt.Sprintf("List of a prefix of %d bytes tells the %d keys of up to %d bytes that have it", len(prefix), n, locker.MaxKey), "%d", len(all))
			for _, g := range grips {
				info, told := all[g.req.Key]
				c.Must(told == strings.HasPrefix(g.req.Key, prefix), fmt.Sprintf("List tells a key of %d bytes whole", len(g.req.Key)), "told: %v", told)
				c.Must(!told || info.Owner == g.req.Owner.String() && info.Token == g.token, "List tells the hold of a long key as its own", "%s, token %d instead of %s, token %d", info.Owner, info.Token, g.req.Owner, g.token)
			}
		}
		if _, ok := driver.As[driver.Inspector](by.inner); ok {
			for _, g := range grips {
				info, held := by.inspected(g.req.Key)
				c.Must(held && info.Key == g.req.Key && info.Owner == g.req.Owner.String(), fmt.Sprintf("Inspect tells a key of %d bytes whole", len(g.req.Key)), "%v, %d bytes, %s instead of %s", held, len(info.Key), info.Owner, g.req.Owner)
			}
		}
	}
	for _, g := range grips {
		g.mustRelease()
	}
}

// listsForeign: what somebody else put in the place of a hold is none, and no reason to end.
func listsForeign(c *trial) {
	x, y := c.nearRaw(), c.nearRaw()
	under := c.Key("k") + "/"
	var grips []*grip
	for i := range 6 {
		grips = append(grips, x.take(under+fmt.Sprint(i), far))
	}
	for _, g := range grips[:3] {
		c.overwrite(g.req.Key)
	}
	for _, by := range []*raw{x, y} {
		all := by.listed(under)
		for i, g := range grips {
			_, told := all[g.req.Key]
			c.Must(told == (i >= 3), "List tells the holds under the prefix, and nothing of what others put in the store", "told of %q: %v", g.req.Key, told)
		}
	}
	for i, g := range grips {
		if i < 3 {
			c.inject().Delete(c.T, g.req.Key)
		} else {
			g.mustRelease()
		}
	}
}

func listEnds(c *trial) {
	x, y := c.raw(), c.raw()
	under := c.Key("k") + "/"
	const many = 200
	var grips []*grip
	for i := range many {
		grips = append(grips, x.take(under+fmt.Sprint(i), far))
	}
	list := func(ctx context.Context, by *raw, body func(i int) bool) (n int, last error) {
		l, ok := driver.As[driver.Lister](by.inner)
		c.Must(ok, "a backend that declares Listing is a driver.Lister", "it is none")
		for _, err := range l.List(ctx, under) {
			c.Must(last == nil, "an error is the last thing that a List tells", "more came after %v", last)
			if last = err; err == nil {
				n++
			}
			if !body(n) {
				break
			}
		}
		c.Hist.Add("   list %s → %d keys, %v", c.Short(under), n, last)
		return n, last
	}
	n, err := list(c.CtxFor(c.Limit()), x, func(i int) bool { return i < 10 })
	c.Must(n == 10 && err == nil, "List ends with the loop that asks", "%d keys, %v", n, err)

	// The loop may do with the store what it likes.
	n, err = list(c.CtxFor(c.Limit()), x, func(i int) bool {
		if i%40 == 1 {
			y.take(c.Key(fmt.Sprint("during ", i)), far).mustRelease()
			y.refused(grips[i].req.Key, c.Owner(), far)
			list(c.CtxFor(c.Limit()), y, func(i int) bool { return i < 3 })
		}
		return true
	})
	c.Must(n >= many && err == nil, fmt.Sprintf("List tells all %d keys, whatever else goes on", many), "%d, %v", n, err)

	n, err = list(ended(), x, func(int) bool { return true })
	c.Must(n == 0 && errors.Is(err, context.Canceled), "List with a ctx that has ended gives its error", "%d keys, %v", n, err)
	ctx, cancel := context.WithCancel(c.CtxFor(c.Limit()))
	n, err = list(ctx, x, func(int) bool { cancel(); return true })
	c.Must(errors.Is(err, context.Canceled), "List whose ctx ends gives its error", "%d keys, %v", n, err)

	n, err = list(c.CtxFor(c.Limit()), y, func(i int) bool {
		if i == 1 {
			c.OK(y.Close(c.CtxFor(c.Limit())), "the driver's Close during a List")
		}
		return true
	})
	c.Must(errors.Is(err, driver.ErrClosed) || err == nil && n >= many, "List of a backend that is closed gives ErrClosed, unless it had told all", "%d keys, %v", n, err)
	for _, g := range grips {
		g.mustRelease()
	}
}

// breaking breaks the hold of key with token.
func (r *raw) breaking(key string, token uint64) error {
	b, ok := driver.As[driver.Breaker](r.inner)
	r.c.Must(ok, "a backend that declares Breaking is a driver.Breaker", "it is none")
	err := b.Break(r.c.CtxFor(r.c.Limit()), key, token)
	r.c.Hist.Add("   break %s token %d → %v", r.c.Short(key), token, err)
	return err
}

func breaks(c *trial) {
	x, y := c.raw(), c.raw()
	for i, by := range []*raw{x, y} {
		key, beside := c.Key(fmt.Sprint(i)), x.take(c.Key(fmt.Sprint("beside ", i)), c.ttl())
		wrong := func(token uint64, what string) {
			c.Is(by.breaking(key, token), driver.ErrLost, "Break of %s", what)
		}
		wrong(1, "a key that nobody ever held")
		g := x.take(key, c.ttl())
		for _, token := range []uint64{g.token - 1, g.token + 1, 1, driver.MaxToken, beside.token} {
			if token != 0 && token != g.token {
				wrong(token, "another token than the holder's")
			}
		}
		y.refused(key, c.Owner(), far)
		g.silent("a holder whose token was not the one to break")
		if c.leaf.kind == Lease {
			c.OK(g.extend(2*far), "Extend, when another token was to be broken,")
		}
		c.OK(by.breaking(key, g.token), "Break of the holder's token")
		next := y.take(key, c.ttl())
		c.Must(next.token > g.token, "a later grant has a greater token", "%d after %d", next.token, g.token)
		wrong(g.token, "a token that was broken, when the next one holds the key")
		c.Claim("REL-002").Is(g.release(), driver.ErrLost, "Release of a hold that was broken")
		if c.leaf.kind == Lease {
			c.Claim("EXT-002").Is(g.extend(far), driver.ErrLost, "Extend of a hold that was broken")
		}
		x.refused(key, c.Owner(), far)
		next.silent("the next holder")
		next.mustRelease()
		wrong(next.token, "a token that was released")
		beside.silent("the holder of another key")
		beside.mustRelease()
	}
	over := x.take(c.Key("expired"), c.Unit())
	c.Sleep(time.Until(over.after.Add(c.Unit() + c.Granularity())))
	c.Is(y.breaking(over.req.Key, over.token), driver.ErrLost, "Break of a token whose time is up")

	b, _ := driver.As[driver.Breaker](y.inner)
	g := x.take(c.Key("ctx"), c.ttl())
	c.Must(b.Break(ended(), g.req.Key, g.token) != nil, "Break with a ctx that has ended gives an error", "nil")
	g.silent("a holder whom nobody broke")
	c.OK(y.Close(c.CtxFor(c.Limit())), "the driver's Close")
	c.Is(b.Break(c.CtxFor(c.Limit()), g.req.Key, g.token), driver.ErrClosed, "Break after Close")
	g.mustRelease()
}

// breakWakes: who waits has the key at once.
func breakWakes(c *trial) {
	a, b := c.client(), c.client()
	waiting, late := c.Polling(), c.HandOver()
	if c.Caps.Has.Has(driver.PromptLoss) {
		waiting, late = harness.Patient(), c.Prompt()
	}
	// Whoever of the two holds, waits and breaks; and then what was granted by that.
	for i := range 8 {
		of := func(bit int) *client { return []*client{a, b}[i>>bit&1] }
		waiter, by := of(1), of(2)
		breaker, _ := driver.As[driver.Breaker](by.tap.Inner)
		h := of(0).mustTry(c.Key(fmt.Sprint(i)), c.hold()...)
		for range 2 {
			p := waiter.goLock(h.Key(), append(c.hold(), waiting)...)
			c.Settle()
			began := time.Now()
			c.OK(breaker.Break(c.CtxFor(c.Limit()), h.Key(), h.Token()), "%s's Break of a hold of %s", by.name, h.cl.name)
			got := p.granted(c.Limit(), "the break")
			c.Must(got.at.Sub(began) <= late, fmt.Sprintf("who waits has the key no more than %s after a break", late), "%s waited, %s broke a hold of %s: %s after", waiter.name, by.name, h.cl.name, got.at.Sub(began))
			waiter, h = h.cl, got
		}
		h.mustUnlock()
	}
}

// breaksForeign: what an administrator put in the place of a hold is not the hold, whatever token the store still knows.
func breaksForeign(c *trial) {
	x, y := c.nearRaw(), c.nearRaw()
	for i := range 4 { // the target may put one thing after another there
		g := x.take(c.Key(fmt.Sprint(i)), far)
		c.overwrite(g.req.Key)
		for _, by := range []*raw{y, x} {
			c.Is(by.breaking(g.req.Key, g.token), driver.ErrLost, "Break of a hold that was overwritten")
		}
		next, err := y.acquire(g.req.Key, c.Owner(), far)
		c.Must(err != nil, "what an administrator put in the place of a hold stays there after a Break", "somebody else was granted %s, token %d", c.Short(g.req.Key), next.token)
		c.inject().Delete(c.T, g.req.Key)
		y.takeSoon(g.req.Key, far).mustRelease()
	}
}

func brokenHears(c *trial) {
	a, b := c.client(), c.client()
	for i, by := range []*client{a, b} {
		breaker, _ := driver.As[driver.Breaker](by.tap.Inner)
		brk := func(h *hold) {
			c.OK(breaker.Break(c.CtxFor(c.Limit()), h.Key(), h.Token()), "%s's Break of a hold of %s", by.name, h.cl.name)
			c.Hist.Add("   (%s breaks %s token %d)", by.name, c.Short(h.Key()), h.Token())
		}
		prompt := c.Caps.Has.Has(driver.PromptLoss) || by == a
		h := a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...)
		beside := a.mustTry(c.Key(fmt.Sprint("beside ", i)), c.hold()...)
		c.Sleep(c.Granularity()) // not only of a hold that is new
		end := c.Moment(h.Done())
		c.Settle()
		broke := time.Now()
		brk(h)
		switch {
		case prompt:
			c.Await(end.Seen, c.Limit(), "Done closes after a break")
			late := end.At.Sub(broke)
			c.Claim("LOSS-003").Must(late <= c.Prompt(), fmt.Sprintf("Done closes no more than %s after a break", c.Prompt()), "%s after", late)
		case c.leaf.kind == Session:
			c.Await(end.Seen, c.Caps.SessionValidity+c.Limit(), "Done closes at a session's next renewal after a break")
		default:
			c.Is(h.extend(far), locker.ErrLost, "Extend of a lease that was broken")
		}
		c.reason(h.Err(), locker.ReasonBroken, "a hold that was broken")
		c.Is(h.Err(), locker.ErrLost, "the Err of a hold that was broken")
		c.Is(h.unlock(), locker.ErrLost, "Unlock of a hold that was broken")
		next := b.mustTry(h.Key(), c.hold()...)
		next.mustLive(a)
		next.mustUnlock()
		beside.mustLive(b)
		beside.mustUnlock()

		if c.leaf.kind == Lease && by == b {
			x, y := c.raw(), c.raw()
			g := x.take(c.Key("extends"), far)
			c.OK(breaker.Break(c.CtxFor(c.Limit()), g.req.Key, g.token), "Break")
			g.isBroken(g.extend(far), "Extend")
			g = y.take(c.Key("releases"), far)
			c.OK(breaker.Break(c.CtxFor(c.Limit()), g.req.Key, g.token), "Break")
			g.isBroken(g.release(), "Release")
		}
	}
}

// brokenUnheard: the answer to an attempt is lost, and what it was granted is broken before it is
// repeated. Whether the store grants the same owner something new or nothing any more, its Lock gets the key,
// which is free, and so does who waits behind it.
func brokenUnheard(c *trial) {
	a, b := c.client(), c.client()
	for i, by := range []*client{a, b} {
		for _, answer := range []string{"the store's own", "ErrBroken"} {
			key := c.Key(fmt.Sprint(i, answer))
			breaker, _ := driver.As[driver.Breaker](by.tap.Inner)
			var broken uint64
			a.tap.Next(harness.OpAcquire, func(ctx context.Context, call func(context.Context) (driver.Grant, error)) (driver.Grant, error) {
				return harness.Lose(ctx, func(ctx context.Context) (driver.Grant, error) {
					g, err := call(ctx)
					c.OK(err, "the driver's Acquire of %s, which is free,", c.Short(key))
					c.OK(breaker.Break(c.CtxFor(c.Limit()), key, g.Token), "Break")
					c.Hist.Add("   (%s breaks %s token %d before the answer comes)", by.name, c.Short(key), g.Token)
					broken = g.Token
					return g, err
				})
			})
			if answer == "ErrBroken" {
				repeat := harness.OpAcquire
				if a.waits() {
					repeat = harness.OpWait
				}
				a.tap.Next(repeat, harness.Answer(driver.ErrBroken))
			}
			p := a.goLock(key, append(c.hold(), c.Polling())...)
			got := p.granted(c.recovery(), "its hold was broken before the answer came, and the key is free")
			behind := a.goLock(key, append(c.hold(), c.Polling())...)
			c.Must(got.Token() > broken, "the next hold has a greater token", "%d after %d", got.Token(), broken)
			got.mustLive(b)
			got.mustUnlock()
			next := behind.granted(c.HandOver(), "the release by one whose first grant was broken")
			next.mustLive(b)
			next.mustUnlock()
			b.mustTry(key, c.hold()...).mustUnlock()
		}
	}
	// A driver's answer to the repetition is a grant or a loss, and no outage: those are waited through.
	x, y := c.raw(), c.raw()
	g := x.take(c.Key("repeated"), c.ttl())
	c.OK(y.breaking(g.req.Key, g.token), "Break")
	again, err := x.ask(g.req)
	if err == nil {
		c.Must(again.token > g.token, "what the owner of a broken hold is granted next has a greater token", "%d after %d", again.token, g.token)
		again.mustRelease()
	} else {
		c.Is(err, driver.ErrLost, "a repetition of the attempt by the owner of a broken hold, if it is not granted")
	}
	y.take(g.req.Key, c.ttl()).mustRelease()
}

// brokenCutOff: one who cannot be told when his hold is broken hears of it later, and that it was broken.
func brokenCutOff(c *trial) {
	a, line := c.distant()
	b := c.near()
	c.can(line.BlackHole != nil && line.Cut != nil, "BlackHole and Cut")
	quiet := 2 * c.Unit()
	if c.leaf.kind == Session && c.Caps.SessionValidity > 0 {
		quiet = min(quiet, c.Caps.SessionValidity/4)
	}
	breaker, _ := driver.As[driver.Breaker](b.tap.Inner)
	sleeps := c.pulse()
	for i := range 3 {
		h := a.mustTry(c.Key(fmt.Sprint(i)), c.hold()...)
		end := c.Moment(h.Done())
		c.Settle()
		line.BlackHole(true, true)
		c.Hist.Add("   (a black hole swallows all of %s)", a.name)
		c.OK(breaker.Break(c.CtxFor(c.Limit()), h.Key(), h.Token()), "Break of a hold whose client is cut off")
		c.Sleep(quiet)
		line.Heal()
		line.Cut() // or it would be noticed when a timeout is over
		healed := time.Now()
		c.Hist.Add("   (and is over)")
		if c.leaf.kind == Lease && !c.Caps.Has.Has(driver.PromptLoss) {
			for err := h.extend(far); !errors.Is(err, locker.ErrLost); err = h.extend(far) {
				c.Must(err != nil && time.Since(healed) < c.recovery()+sleeps.longest(), "Extend of a lease that was broken is ErrLost when the store can be asked again", "%v", err)
				c.Sleep(c.Granularity())
			}
		}
		c.Await(end.Seen, max(c.recovery(), c.Caps.SessionValidity+c.Prompt())+sleeps.longest(), "Done closes when the store can be asked again")
		if c.leaf.kind == Session && c.Caps.SessionValidity > 0 && end.At.Sub(h.at) > c.Caps.SessionValidity*2/3 && endReason(h.Err()) != locker.ReasonBroken {
			c.Note("the machine was too slow for round %d: the session's time was up before the store could be asked", i)
			continue
		}
		c.reason(h.Err(), locker.ReasonBroken, "a hold that was broken while its client was cut off")
		c.Is(h.unlock(), locker.ErrLost, "Unlock of a hold that was broken")
		b.mustTry(h.Key(), c.hold()...).mustUnlock()
	}
}

// isBroken makes sure that the holder of g, which was broken, has been told so: by its listener, or
// by the call that gave err.
func (g *grip) isBroken(err error, op string) {
	c := g.r.c
	c.Is(err, driver.ErrLost, "the driver's %s of a hold that was broken", op)
	if !errors.Is(err, driver.ErrBroken) {
		c.Is(g.hears(c.Prompt(), "the holder of what was broken"), driver.ErrBroken, "what the holder hears, if not from its %s,", op)
	}
}

// passedBroken: one whose hold was handed to it is the one that is broken, and not the one before.
func passedBroken(c *trial) {
	a, b := c.client(), c.client()
	h := c.chain(a, c.Key("k"), far)
	in, _ := driver.As[driver.Inspector](b.tap.Inner)
	info, ok, err := in.Inspect(c.CtxFor(c.Limit()), h.Key())
	c.OK(err, "Inspect")
	c.Must(ok, "Inspect of a key that is held says that it is", "it says that it is free")
	own, _ := driver.As[driver.Breaker](a.tap.Inner)
	c.Is(own.Break(c.CtxFor(c.Limit()), h.Key(), h.Token()-1), driver.ErrLost, "Break of one who has handed the key off")
	c.Claim("ADM-005").Is(own.Break(c.CtxFor(c.Limit()), h.Key(), h.Token()+1), driver.ErrLost, "Break with a token that nobody has yet")
	h.mustLive(b)
	breaker, _ := driver.As[driver.Breaker](b.tap.Inner)
	c.Claim("ADM-005").OK(breaker.Break(c.CtxFor(c.Limit()), h.Key(), info.Token), "Break, from another client, with the token that Inspect tells there,")
	if c.Caps.Has.Has(driver.PromptLoss) {
		c.Await(h.Done(), c.Limit(), "Done closes after a break")
	} else {
		c.Is(h.extend(far), locker.ErrLost, "Extend of a lease that was broken")
	}
	c.reason(h.Err(), locker.ReasonBroken, "a hold that was broken")
	b.mustTry(h.Key(), locker.WithTTL(far)).mustUnlock()

	h = c.chain(a, c.Key("own"), far)
	c.Claim("ADM-005").OK(own.Break(c.CtxFor(c.Limit()), h.Key(), h.Token()), "Break, from the holder's own client,")
	c.Await(h.Done(), c.Limit(), "Done closes after a break")
	c.reason(h.Err(), locker.ReasonBroken, "a hold that was broken")
	b.mustTry(h.Key(), locker.WithTTL(far)).mustUnlock()
}

// passedBreak: what was handed off is broken by its token, from the client through which it was as from another.
func passedBreak(c *trial) {
	a, b := c.client(), c.client()
	for _, by := range []*client{a, b} {
		h := c.chain(a, c.Key("by "+by.name), far)
		breaker, _ := driver.As[driver.Breaker](by.tap.Inner)
		in, _ := driver.As[driver.Inspector](by.tap.Inner)
		info, _, err := in.Inspect(c.CtxFor(c.Limit()), h.Key()) // tokens that a process has set aside are its own affair
		c.OK(err, "Inspect of what was handed off")
		for _, other := range []uint64{info.Token - 1, h.Token() + 1} {
			c.Is(breaker.Break(c.CtxFor(c.Limit()), h.Key(), other), driver.ErrLost, "Break with another token than the holder's")
		}
		h.mustLive(b)
		c.OK(breaker.Break(c.CtxFor(c.Limit()), h.Key(), info.Token), "Break, by %s, of what was handed off, with the token that Inspect tells there", by.name)
		b.mustTry(h.Key(), locker.WithTTL(far)).mustUnlock()
	}
}

func adminInNamespace(c *trial) {
	l := c.rawClient()
	// A pattern, where somebody takes it for one.
	ns := `n\s*-` + strings.ReplaceAll(c.Key(""), ":", "-")
	ns = ns[:min(len(ns), locker.MaxNamespace)]
	in, beside := l.Namespace(ns), l.Namespace(ns[:len(ns)-1])
	ctx := c.CtxFor(c.Limit())
	take := func(l *locker.Locker, key string) *locker.Lease {
		s, err := l.TryLock(ctx, key, locker.WithTTL(far))
		c.OK(err, "TryLock of %s, which is free,", c.Short(key))
		return s
	}
	one, two := take(in, "a"), take(in, "ab")
	others := []*locker.Lease{take(beside, "a"), take(l, ns+"ab"), take(l, ns)}
	keys := func(l *locker.Locker, prefix string) (all []string) {
		for info, err := range l.List(ctx, prefix) {
			c.OK(err, "List of %s", c.Short(prefix))
			if !slices.Contains(all, info.Key) {
				all = append(all, info.Key)
			}
		}
		slices.Sort(all)
		return all
	}
	for prefix, want := range map[string][]string{"": {"a", "ab"}, "ab": {"ab"}, ns: nil} {
		got := keys(in, prefix)
		c.Must(slices.Equal(got, want), fmt.Sprintf("List of %q in the namespace tells %q", prefix, want), "%q", got)
	}
	got := keys(l, ns+":")
	c.Must(slices.Equal(got, []string{ns + ":a", ns + ":ab"}), "List without a namespace tells whole keys", "%q", got)

	for info, err := range in.List(ctx, "") {
		c.OK(err, "List in a namespace")
		seen, ok, err := in.Inspect(ctx, info.Key)
		c.OK(err, "Inspect of what List told")
		c.Must(ok && seen.Key == info.Key && seen.Token == info.Token, "Inspect of what List told is the same hold", "%v, %+v and %+v", ok, seen, info)
	}
	c.Is(beside.Break(ctx, "ab", two.Token()), locker.ErrLost, "Break in another namespace")
	c.OK(two.Err(), "the hold of a key that is another one in that namespace goes on: Err")
	c.OK(in.Break(ctx, "ab", two.Token()), "Break in the namespace")
	c.reason(two.Err(), locker.ReasonBroken, "a hold that was broken")
	for _, s := range append(others, one) {
		c.OK(s.Err(), "what nobody broke goes on: Err")
		c.OK(s.Unlock(ctx), "Unlock")
	}
}
