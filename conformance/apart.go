package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// hostileTold: keys that a store, a pattern or a statement may mistake for each other are held at
// once, and each is told with its own owner and token. A List by such a prefix tells what has it.
func hostileTold(c *trial) {
	x, y := c.raw(), c.raw()
	under := c.Key("told") + "/"
	bits := []string{
		"a}b", "a}c", "a}", "{a", "{a}", "a{}b", "a{}c", `"`, `'`, `''`, "\x00", "\x00a", "\n", "\r\n", "%", "%%", "_", "__",
		"*", "**", "?", "[", "[a]", "]", `\`, `\\`, `\*`, "\xff", "\xfe", "\xff\xff", "\xc3\x28", ":", "::", "a", "ab",
	}
	grips := map[string]*grip{}
	owners, tokens := map[string]string{}, map[uint64]string{}
	for i, bit := range bits {
		g := []*raw{x, y}[i%2].take(under+bit, c.ttl())
		grips[g.req.Key], owners[g.req.Owner.String()], tokens[g.token] = g, g.req.Key, g.req.Key
	}
	// Two keys may have one token, each from its own counter.
	is := func(g *grip, info driver.Info, what string, claim string) {
		key := g.req.Key
		if by := owners[info.Owner]; by != "" && by != key {
			c.Fatal(fmt.Sprintf("%s of %q tells its own holder", what, key), "that of %q", by)
		}
		if by := tokens[info.Token]; info.Token != g.token && by != "" {
			c.Fatal(fmt.Sprintf("%s of %q tells its own token, %d", what, key, g.token), "that of %q, %d", by, info.Token)
		}
		c.Claim(claim).Must(info.Owner == g.req.Owner.String() && info.Token == g.token, fmt.Sprintf("%s of %q tells owner %s with token %d", what, key, g.req.Owner, g.token), "%s, %d", info.Owner, info.Token)
	}
	// What is not so of any two keys either is no matter of theirs.
	plain := []*grip{x.take(c.Key("plain"), c.ttl()), y.take(c.Key("also plain"), c.ttl())}
	for _, g := range plain {
		info, _ := y.inspected(g.req.Key)
		c.Claim("INS-001").Must(info.Owner == g.req.Owner.String() && info.Token == g.token, fmt.Sprintf("Inspect tells owner %s with token %d", g.req.Owner, g.token), "%s, %d", info.Owner, info.Token)
	}
	for _, g := range plain {
		g.mustRelease()
	}
	for _, bit := range bits {
		g := grips[under+bit]
		info, ok := x.inspected(g.req.Key)
		c.Claim("INS-001").Must(ok, "Inspect of a key that is held says that it is", "it says that %q is free", g.req.Key)
		is(g, info, "Inspect", "INS-001")
	}
	if c.Caps.Has.Has(driver.Listing) {
		claim := c.Claim("ADM-003")
		for _, bit := range bits {
			prefix := under + bit
			all := y.listedOr(claim, prefix)
			for key, g := range grips {
				info, told := all[key]
				tells := strings.HasPrefix(key, prefix)
				if tells && !told && c.leaf.kind == Session {
					_, held := x.inspected(key)
					c.Claim("SES-001").Must(held, "a session lasts until it is released", "%q is free", key)
				}
				claim.Must(told == tells, fmt.Sprintf("List of %q tells what begins with it", prefix), "told of %q: %v", key, told)
				if told {
					is(g, info, "List", "ADM-003")
				}
			}
			for key := range all {
				of := claim
				for held := range grips {
					if strings.HasPrefix(key, held) {
						of = c.Claim("KEY-003") // the backend's own name for something of that key
					}
				}
				of.Must(grips[key] != nil, fmt.Sprintf("List of %q tells nothing that is not held", prefix), "%q", key)
			}
		}
	}
	for _, g := range grips {
		g.mustRelease()
	}
}

// neighbours: keys of which one is the beginning of another, up to what separates the names in the
// store, are apart in all that the store has of them.
func neighbours(c *trial) {
	x, y := c.raw(), c.raw()
	key := c.Key("k:x")
	ends := strings.Split(": / . - _ } { }: }x }: * ? % ' 1 x :queue :token :lock :waiters", " ")
	ends = append(ends, c.separators(x)...)
	keys := []string{key[:len(key)-1], key[:len(key)-2]}
	for _, end := range append(ends, "\x00", "\xff", " ") {
		keys = append(keys, key+end)
	}
	slices.Sort(keys)
	var others []*grip
	for i, k := range slices.Compact(keys) {
		if len(k) <= locker.MaxKey {
			others = append(others, []*raw{x, y}[i%2].take(k, c.ttl()))
		}
	}

	names := c.names()
	tokens := []uint64{c.wornBy(x, y, key), c.wornBy(y, x, key)}
	c.Claim("TOK-001").Must(tokens[0] < tokens[1], "tokens rise", "%d after %d", tokens[1], tokens[0])
	for _, g := range others {
		g.untouched(y)
	}
	left := c.names()
	for _, name := range names {
		_, found := slices.BinarySearch(left, name)
		c.Must(found, "what is done with a key takes nothing out of the store that is another's", "%q is gone", name)
	}

	// And the other way round.
	g := x.take(key, c.ttl())
	names = slices.DeleteFunc(c.names(), func(name string) bool {
		_, before := slices.BinarySearch(left, name)
		return before
	})
	for _, other := range others {
		g.silent("the holder")
		other.mustRelease()
		next := y.take(other.req.Key, c.ttl())
		c.Must(next.token > other.token, fmt.Sprintf("the token of %q rises, whatever is done with other keys", other.req.Key), "%d after %d", next.token, other.token)
		next.mustRelease()
	}
	g.untouched(y)
	left = c.names()
	for _, name := range names {
		_, found := slices.BinarySearch(left, name)
		c.Must(found, "what is done with other keys takes nothing out of the store that is this one's", "%q is gone", name)
	}
	g.mustRelease()
}

// wornBy does with key what can be done with one, and returns its last token.
func (c *trial) wornBy(r, other *raw, key string) uint64 {
	g := r.take(key, c.ttl())
	other.refusedOr(c.Claim("MX-001"), key, c.Owner(), c.ttl())
	stranger := g.holder()
	stranger.Owner, stranger.Token = c.Owner(), 0
	c.Claim("REL-002").Is(other.Release(c.CtxFor(c.Limit()), stranger), driver.ErrLost, "the driver's Release by one who does not hold the key")
	if c.leaf.kind == Lease {
		c.Claim("EXT-001").OK(g.extend(far/2), "the driver's Extend")
	}
	g.again().mustRelease()
	if c.Caps.Has.Has(driver.Breaking) {
		g = r.take(key, c.ttl())
		c.Claim("ADM-005").OK(other.breaking(key, g.token), "Break of the holder's token")
		next, err := other.acquire(key, c.Owner(), c.ttl())
		c.Claim("ADM-005").OK(err, "the driver's Acquire of a key whose holder was broken")
		next.mustRelease()
	}
	g = other.take(key, c.ttl())
	g.mustRelease()
	return g.token
}

// untouched makes sure that g is held as it was granted.
func (g *grip) untouched(by *raw) {
	c := g.r.c
	g.silent(fmt.Sprintf("the holder of %q", g.req.Key))
	by.refused(g.req.Key, c.Owner(), c.ttl())
	if _, ok := driver.As[driver.Inspector](by.inner); !ok {
		return
	}
	info, ok := by.inspected(g.req.Key)
	c.Must(ok && info.Owner == g.req.Owner.String() && info.Token == g.token, fmt.Sprintf("%q is held by %s with token %d", g.req.Key, g.req.Owner, g.token), "%v, %s with token %d", ok, info.Owner, info.Token)
}

// names are those in the store that have a key of this trial in them, in order; without what is left of
// separators' probe, which may go by itself.
func (c *trial) names() (names []string) {
	for _, n := range c.stored() {
		if strings.Contains(n, c.Unique) && !strings.Contains(n, c.Key("probe")) {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// separators are what follows a key in the names that the store has of it.
func (c *trial) separators(r *raw) (all []string) {
	probe := r.take(c.Key("probe"), c.ttl())
	if c.target.Keys != nil {
		for _, k := range c.target.Keys(c.T) {
			if _, after, ok := strings.Cut(k.Name, probe.req.Key); ok && after != "" {
				all = append(all, after, after+"x")
			}
		}
	}
	probe.mustRelease()
	return all
}
