package conformance

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var keyCases = []Case{
	{ID: "KEY-001", fn: keyLimits, Clause: "empty is ErrInvalidKey; so is one over 1 KiB"},
	{ID: "KEY-002", Kinds: both, fn: hostileKeys, Parts: []Part{
		{Name: "hashes", fn: collidingHashes},
		{Name: "told", Needs: []Need{needsInspector}, fn: hostileTold},
	}, Clause: "any other bytes work and never collide: `:`, `{}`, `}{`, NUL, spaces, non-UTF-8, glob characters"},
	{ID: "KEY-003", Kinds: both, fn: innerNames, Parts: []Part{{Name: "neighbours", fn: neighbours}}, Clause: "internal suffixes live outside the users' key space"},
}

func keyLimits(c *trial) {
	a := c.client()
	unique := c.Key("")
	pad := func(n int) string { return unique + strings.Repeat("x", n-len(unique)) }

	calls := a.tap.Count()
	for _, key := range []string{"", pad(locker.MaxKey + 1), pad(64 << 10)} {
		name := fmt.Sprintf("a key of %d bytes", len(key))
		refused := func(call string, err error) {
			c.Is(err, locker.ErrInvalidKey, "%s of %s", call, name)
			var e *locker.Error
			c.Must(errors.As(err, &e) && e.Code == locker.CodeInvalidKey, "it is a *locker.Error with the code InvalidKey", "%v", err)
		}
		_, err := a.try(key)
		refused("TryLock", err)
		_, err = a.lock(c.Ctx, key)
		refused("Lock", err)
		_, err = a.l.TryLockNS(c.Ctx, key)
		refused("TryLockNS", err)
		_, err = a.l.LockNS(c.Ctx, key)
		refused("LockNS", err)
		_, err = a.l.Key(key)
		refused("Key", err)
	}
	// With its namespace it is one over.
	long := pad(locker.MaxKey - len(locker.DefaultNamespace))
	_, err := a.l.TryLockNS(c.Ctx, long)
	c.Is(err, locker.ErrInvalidKey, "TryLockNS of a key that is too long with its namespace")
	for _, ns := range []string{"", "a:b", strings.Repeat("n", locker.MaxNamespace+1)} {
		_, err := a.l.TryLockNS(c.Ctx, unique, locker.WithNamespace(ns))
		c.Is(err, locker.ErrInvalidKey, "TryLockNS with the namespace %.10q", ns)
		_, err = a.l.Key(unique, ns)
		c.Is(err, locker.ErrInvalidKey, "Key with the namespace %.10q", ns)
	}
	c.Must(a.tap.Count() == calls, "an invalid key is refused before any I/O", "the backend was called %d times", a.tap.Count()-calls)

	// The longest works, and all of it counts.
	x, y := pad(locker.MaxKey), pad(locker.MaxKey-1)+"y"
	hx := a.mustTry(x)
	hy := a.mustTry(y)
	a.mustHeld(x)
	a.mustHeld(y)
	hx.mustUnlock()
	hy.mustLive(a)
	hy.mustUnlock()
	h, err := a.l.TryLockNS(c.Ctx, long[:len(long)-1])
	c.OK(err, "TryLockNS of the longest key")
	want := locker.DefaultNamespace + ":" + long[:len(long)-1]
	c.Must(h.Key() == want, "LockNS puts the namespace and a colon before the key", "%.40q…", h.Key())
	a.mustHeld(want)
	c.OK(h.Unlock(c.Ctx), "Unlock")
}

// hostile are keys that some way of encoding keys makes equal, drops or chokes on. Those of
// unique carry a name of their own before or after it.
func hostile(unique string) []string {
	bits := []string{
		":", "::", "{}", "}{", "{", "}", "{}}", "{{}}", "}x", "{x}", "{}x", "\x00", "\x00\x00", "a\x00b", " ", "  ", "\t", "\n", "\r\n",
		"\xff", "\xfe", "\xc3\x28", "\ufffd", "\xed\xa0\x80", // not UTF-8, what it is replaced by, half of a surrogate pair
		"é", "e\u0301", "ﬀ", "ff", "İ", "i", "I", // equal after normalization or folding
		"*", "?", "[a-z]", "[^a]", `\`, `\\`, `\*`, "a", "A",
		"/", "//", ".", "..", "../..", "%", "%3A", "%00", "+", "'", `"`, "`", "''", ";", "--", "$", "${x}", "#", "&", "=", "|", ",", "@",
		"0", "-1", "1e3", "nil", "null", "true", "lock", ":token", ":fence", "\u2028", "😀", "\x7f", "\x1b[31m",
	}
	var keys []string
	for _, b := range bits {
		keys = append(keys, unique+b, b+unique, unique+b+unique)
	}
	// All of a long key counts.
	for _, n := range []int{64, 128, 200, 250, 255, 256, 512, 1000} {
		for _, end := range []string{"x", "y", "yx"} {
			keys = append(keys, unique+strings.Repeat("-", n-len(unique))+end)
		}
	}
	keys = append(keys, unique,
		unique+":a:b", unique+":a", unique+"a:b", "{"+unique+"}", "}"+unique+"{",
		"{"+unique+"}:"+unique, unique+":{"+unique+"}", locker.DefaultNamespace+":"+unique,
		unique+strings.Repeat("\x00", locker.MaxKey-len(unique)), unique+strings.Repeat("\xff", locker.MaxKey-len(unique)),
		strings.Repeat("{", locker.MaxKey-len(unique))+unique, strings.Repeat(":", locker.MaxKey-len(unique))+unique)
	slices.Sort(keys)
	return slices.Compact(keys)
}

func hostileKeys(c *trial) {
	a, b := c.client(), c.client()
	keys := hostile(c.Unique)

	// All of them are held at the same time: no two are the same key.
	holds := map[string]*hold{}
	for _, key := range keys {
		h, err := a.try(key, c.hold()...)
		c.OK(err, "TryLock of %q, while %d other keys are held,", key, len(holds))
		c.Must(h.Key() == key, "the Lease has the key that was asked for", "%q became %q", key, h.Key())
		holds[key] = h
	}
	for _, key := range keys {
		b.mustHeld(key, c.hold()...)
	}
	// Each is released alone.
	for i, key := range keys {
		holds[key].mustUnlock()
		if i+1 < len(keys) {
			holds[keys[i+1]].mustLive()
			b.mustHeld(keys[i+1], c.hold()...)
		}
		_, err := b.try(key, c.hold()...)
		c.Claim("REL-001").OK(err, "TryLock of what was released") // kept to the end: it must not be mixed up with what is still held
	}
	for _, h := range holds {
		c.Is(h.unlock(), locker.ErrReleased, "a second Unlock")
	}

	// The bare ones too. Others may use them at this moment: wait for each other, in order.
	bare := []string{":", "{", "{}", "}", "}x", "}{", "\x00", " ", "*", "?", "[a]", `\`, "\xff", "\xfe", "\r\n", "%", "/", "."}
	slices.Sort(bare)
	var all []*hold
	for _, key := range bare {
		h, err := b.lock(c.CtxFor(c.Limit()), key, append(c.shortHold(), c.Polling())...)
		c.OK(err, "Lock of %q", key)
		all = append(all, h)
		a.mustHeld(key, c.hold()...)
	}
	for _, h := range all {
		h.mustLive()
		h.mustUnlock()
	}
}

// shortHold is hold for keys that are not the case's own: they are free again soon even if
// the test is killed.
func (c *trial) shortHold() []locker.Option {
	if c.leaf.kind == Lease {
		return []locker.Option{locker.WithTTL(c.Limit())}
	}
	return nil
}

func innerNames(c *trial) {
	a, b := c.client(), c.client()
	key := c.Key("k")
	h := a.mustTry(key, c.hold()...)
	p := b.goLock(key, append(c.hold(), harness.Patient())...) // there is a queue, perhaps
	c.Settle()
	names := c.stored()
	if c.target.Keys == nil {
		c.Note("the target has no Keys: internal names are guessed")
	}
	const most = 200
	tried := map[string]*hold{}
	for _, name := range candidates(key, names) {
		if len(tried) == most {
			break
		}
		// A user may choose any of these as a key of his own.
		got, err := b.try(name, c.hold()...)
		c.OK(err, "TryLock of the key %q, which is inside the store something of the key %q,", name, key)
		tried[name] = got
	}

	p.stop(nil)
	c.Await(p.done, c.Limit(), "who gives up returns")

	// Whatever is done with them does nothing to the key, and the other way round.
	tokens := c.rising()
	tokens.grant(h, "its first grant")
	for name, got := range tried {
		h.mustLive(b)
		if got.Session() {
			got.mustUnlock()
		} else {
			c.OK(got.extend(far/2), "Extend of %q", name)
			got.mustUnlock()
		}
		h.mustLive(b)
		got = b.mustTry(name, c.hold()...)
		tried[name] = got
	}
	for range 3 {
		h.mustUnlock()
		h = tokens.grant(a.mustTry(key, c.hold()...), "a release")
	}
	for _, got := range tried {
		got.mustLive(a)
		got.mustUnlock()
	}

	// What the store keeps for all keys together. Others may use these names at this moment: wait for each other, in order.
	var all []*hold
	for _, name := range common(key, names) {
		got, err := a.lock(c.CtxFor(c.Limit()), name, append(c.shortHold(), c.Polling())...)
		c.OK(err, "Lock of the key %q, which may be a name of the store's own,", name)
		all = append(all, got)
		b.mustHeld(name, c.hold()...)
		h.mustLive(b)
	}
	// One who begins looks at the store, and Ping does: perhaps by writing.
	z := c.raw()
	if p, ok := driver.As[driver.Pinger](z.inner); ok {
		c.Claim("INS-002").OK(p.Ping(c.CtxFor(c.Limit())), "Ping of a store that serves")
	}
	for _, got := range all {
		got.mustLive(b)
		got.mustUnlock()
		h.mustUnlock()
		h = tokens.grant(b.mustTry(key, c.hold()...), "a release")
	}
	h.mustLive(a)
	h.mustUnlock()
}

// stored are the names of all that the store has, as far as they can be seen.
func (c *trial) stored() (all []string) {
	if c.target.Keys != nil {
		for _, k := range c.target.Keys(c.T) {
			all = append(all, k.Name)
		}
	}
	return all
}

// common are the names that a store may keep for all keys together: those that it has which are of no case, and what
// such names often are. What comes before key in one that has it may be all that key is to the store, as a hash of it.
func common(key string, names []string) []string {
	all := strings.Fields("0 1 check counter data gate health key latest lock locks meta new next ping probe queue seq sequence sessions temp test tmp token tokens version waiters . ..")
	const most = 60
	add := func(n string) {
		if n != "" && len(n) <= locker.MaxKey && len(all) < most && !strings.Contains(n, "conformance/") {
			all = append(all, n)
		}
	}
	for _, n := range names {
		if before, _, ok := strings.Cut(n, key); ok {
			before = strings.Trim(before, " :/")
			add(before)
			add(strings.TrimSuffix(before, path.Ext(before)))
		}
	}
	for _, n := range names {
		add(n)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// candidates are the keys that a user could choose to get at what a store keeps for key:
// the names in the store themselves, what follows the key in them, and the usual suspects.
func candidates(key string, names []string) []string {
	var all []string
	for _, n := range names {
		i := strings.Index(n, key)
		if i < 0 {
			continue // nothing of this key, or it cannot be told
		}
		before, after := n[:i], n[i+len(key):]
		all = append(all, n, key+after, before+key)
		// A prefix ends somewhere before the key: every name that is left when some of it is cut off.
		for j := 1; j < len(before); j++ {
			all = append(all, before[j:]+key+after)
		}
	}
	for _, suffix := range []string{"token", "tokens", "fence", "counter", "seq", "lock", "lease", "session", "owner", "wait", "waiters", "queue", "ttl", "t", "f", "c", "0", "1"} {
		for _, sep := range []string{":", ".", "_", "-", "/"} {
			all = append(all, key+sep+suffix)
		}
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(n string) bool { return n == key || n == "" || len(n) > locker.MaxKey })
}
