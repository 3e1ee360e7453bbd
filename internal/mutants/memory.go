package main

// memory is the broken copies of backends/memory.
var memory = []change{
	{"MX-001", "a repeated attempt takes what another owner holds", "shard.go",
		`	case e.ownedBy(&r.Owner):`,
		`	case e.ownedBy(&r.Owner) || MUTATED && !e.session() && !r.Session() && r.Owner.Seq%5 == 0:`},
	{"FLT-001", "a repeated attempt does not prolong", "shard.go",
		`			s.arm(n, e, r.TTL)
			g.TTL = r.TTL
		}`,
		`			if !MUTATED { s.arm(n, e, r.TTL) }
			g.TTL = r.TTL
		}`},
	{"FLT-001", "a repeated attempt leaves the first one's listener", "shard.go",
		`		} else {
			e.hold = r.Hold
		}
		e.by = c`,
		`		} else if !MUTATED {
			e.hold = r.Hold
		}
		e.by = c`},
	{"TTL-001", "a lease ends 50 ms late", "shard.go",
		`		due = now + int64(ttl)`,
		`		due = now + int64(ttl)
		if MUTATED { due += 5e7 }`},
	{"TTL-001", "the timer is not set for a lease that ends before the one it is set for", "shard.go",
		`	if at := s.wheel.add(&s.slab, n, e); at < s.wake {`,
		`	if at := s.wheel.add(&s.slab, n, e); at < s.wake && !(MUTATED && s.wake != asleep) {`},
	{"TTL-001", "after 64 ends at one instant the rest is forgotten", "shard.go",
		`	for !s.turnBatch() {`,
		`	for !s.turnBatch() && !MUTATED {`},
	{"TTL-005", "a refusal tells of one hundredth more than is left", "shard.go",
		`	return time.Duration(e.due - s.now())`,
		`	if MUTATED { return time.Duration(e.due-s.now()) * 21 / 20 }
	return time.Duration(e.due - s.now())`},
	{"EXT-001", "an Extend adds", "shard.go",
		`	s.arm(n, e, ttl)
	return driver.Grant{Token: e.token, TTL: ttl}, nil`,
		`	if MUTATED { s.arm(n, e, ttl+time.Duration(e.due-s.now())) } else { s.arm(n, e, ttl) }
	return driver.Grant{Token: e.token, TTL: ttl}, nil`},
	{"EXT-002", "who extends is not looked at", "shard.go",
		`	if e == nil || !e.heldBy(h) {
		return driver.Grant{}, driver.ErrLost
	}`,
		`	if e == nil || !e.heldBy(h) && !MUTATED {
		return driver.Grant{}, driver.ErrLost
	}`},
	{"EXT-004", "a session can be extended", "shard.go",
		`	if e.session() {
		return driver.Grant{}, fmt`,
		`	if e.session() && MUTATED {
		return driver.Grant{Token: e.token, TTL: ttl}, nil
	}
	if e.session() {
		return driver.Grant{}, fmt`},
	{"REL-002", "who releases is not looked at", "shard.go",
		`	if e == nil || !e.heldBy(h) {
		return driver.ErrLost
	}`,
		`	if e == nil || !e.heldBy(h) && !MUTATED {
		return driver.ErrLost
	}`},
	{"TOK-001", "who waited gets the token of the one before", "shard.go",
		`	s.token++
	if !owner.given {`,
		`	if !MUTATED || e.token == 0 { s.token++ }
	if !owner.given {`},
	{"INS-001", "Inspect counts in another unit", "admin.go",
		`s.remaining(e),`,
		`s.remaining(e) / map[bool]time.Duration{true: 1000, false: 1}[MUTATED],`},
	{"CLO-002", "Close wakes one waiter of a queue", "shard.go",
		`				mine = append(mine, w)`,
		`				if !MUTATED || len(mine) == 0 { mine = append(mine, w) }`},
	{"CLO-001", "a client that was closed grants", "backend.go",
		`	s.lock()
	if b.state.Load() != working {
		s.mu.Unlock()
		return 0, 0, nil, driver.ErrClosed
	}`,
		`	s.lock()
	if b.state.Load() != working && !MUTATED {
		s.mu.Unlock()
		return 0, 0, nil, driver.ErrClosed
	}`},
	{"INS-002", "Ping after Close is content", "backend.go",
		`	if b.state.Load() == closed {
		return driver.ErrClosed
	}
	return ctxError(ctx)`,
		`	if b.state.Load() == closed && !MUTATED {
		return driver.ErrClosed
	}
	return ctxError(ctx)`},
	{"WAIT-004", "who waits for a session gets the key when nobody waits for a lease", "shard.go",
		`	w := e.first
	if w == nil {`,
		`	w := e.first
	for next := w; MUTATED && w != nil && w.ttl == 0; {
		if next = next.next; next.ttl > 0 || next == e.first {
			w = next
			break
		}
	}
	if w == nil {`},
}
