package main

// redisBackend is the broken copies of backends/redis: what an author of a store with scripts or
// stored procedures may get wrong. In a script MUTATED is true as well when the mutant is chosen.
var redisBackend = []change{
	{"SES-001", "that a session was seen to stand counts as a renewal", "session.go",
		`	n, err := s.b.number(ctx, s.key, checkScript.Exec(ctx, s.b.client, []string{s.lock}, []string{s.owner}), 0, 1)
	return n == 1, err`,
		`	sent := time.Now()
	n, err := s.b.number(ctx, s.key, checkScript.Exec(ctx, s.b.client, []string{s.lock}, []string{s.owner}), 0, 1)
	if MUTATED && err == nil && n == 1 {
		s.confirm(sent)
	}
	return n == 1, err`},
	{"EXT-001", "a lease that was confirmed less than a fifth of the same ttl ago is extended without the server", "extend.go",
		`	b.watched.extending(lock, owner)
`,
		`	if MUTATED {
		s := b.watched.shard(lock)
		s.mu.Lock()
		known := s.find(lock, owner)
		fresh := known != nil && known.held && !known.unsure && !known.changed && known.ttl == ttl && time.Since(known.from) < ttl/5
		s.mu.Unlock()
		if fresh {
			return driver.Grant{TTL: ttl, Token: h.Token}, nil
		}
	}
	b.watched.extending(lock, owner)
`},
	{"REL-005", "a release without an answer is sent again within the same call, and finds the key free", "release.go",
		`	if err != nil {
		return err
	}
	if n == 0 {
`,
		`	if MUTATED && err != nil && ctx.Err() == nil { // to free a key twice does no harm
		n, err = b.free(ctx, h.Key, lock, owner)
	}
	if err != nil {
		return err
	}
	if n == 0 {
`},
	{"ADM-006", "the note that a hold was broken has its life in seconds, as milliseconds", "lua/break.lua",
		`math.min(math.max(remaining, 0), 86400000) + 60000)`,
		`(math.min(math.max(remaining, 0), 86400000) + 60000) / (MUTATED and 1000 or 1))`},
	{"ERR-002", "an attempt that meets a session of its own process is answered from memory where the server does not answer", "session.go",
		`		switch stands, err := held.check(ctx); {
`,
		`		switch stands, err := held.check(ctx); {
		case err != nil && held.owner != s.owner && MUTATED:
			return driver.Grant{}, held.heldFor()
`},
	{"ADM-005", "a Break of a hold of this very process leaves it to the holder's loss to wake the waiters, which it does for leases only", "admin.go",
		`	b.watched.wake(lock) // our own commands are not announced to us
`,
		`	if owner == "" || !MUTATED {
		b.watched.wake(lock) // our own commands are not announced to us
	}
`},
	{"CTX-004", "a hand-off writes the counter without the mark that an attempt was taken back", "lua/handoff.lua",
		`  first, second = token + 1, why`,
		`  first, second = token + 1, MUTATED and '' or why`},
	{"ADM-005", "Break goes by the token alone, which what somebody else put in the place of a hold leaves there", "lua/break.lua",
		`elseif not string.match(owner, '^%l+:%x+%-%d+;?$') then`,
		`elseif not MUTATED and not string.match(owner, '^%l+:%x+%-%d+;?$') then`},
	{"FLT-001", "a repeated attempt leaves the old expiry", "lua/acquire.lua",
		`  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  local token = counter_read()`,
		`  if not MUTATED then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  local token = counter_read()`},
	{"TOK-002", "a repeated attempt mints anew", "lua/acquire.lua",
		`  if token and token > 0 then`,
		`  if token and token > 0 and not MUTATED then`},
	{"EXT-002", "an Extend prolongs before it asks whose it is", "lua/extend.lua",
		`local owner, refusal = holder(#ARGV[1])`,
		`if MUTATED then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
local owner, refusal = holder(#ARGV[1])`},
	{"EXT-001", "an Extend counts in seconds", "lua/extend.lua",
		`redis.call('PEXPIRE', KEYS[1], ARGV[2])
holder()`,
		`if MUTATED then
  redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[2] / 1000))
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
holder()`},
	{"REL-001", "a release lets the key expire", "lua/release.lua",
		`redis.call('DEL', KEYS[1])`,
		`if MUTATED then
  redis.call('PEXPIRE', KEYS[1], 250)
  return 1
end
redis.call('DEL', KEYS[1])`},
	{"REL-002", "a release of what is free succeeds", "lua/release.lua",
		`if owner ~= ARGV[1] then`,
		`if owner == '' and MUTATED then
  return 1
end
if owner ~= ARGV[1] then`},
	{"CTX-004", "an attempt that was taken back is granted when it comes", "lua/takeback.lua",
		`local noted = now.err`,
		`if MUTATED then
  return freed
end
local noted = now.err`},
	{"TTL-005", "a refusal tells the rest in whole seconds", "lua/holder.lua",
		`  local remaining = redis.call('PTTL', KEYS[1])`,
		`  local remaining = redis.call('PTTL', KEYS[1])
  if MUTATED then
    remaining = math.ceil(remaining / 1000) * 1000
  end`},
	{"KEY-002", "a key is trimmed of blanks", "key.go",
		`func (l layout) lockKey(key string) string  { return`,
		`func (l layout) lockKey(key string) string  { key = cut(key); if MUTATED { key = strings.TrimSpace(key) }; return`},
	{"KEY-002", "a key is cut at 1,000 bytes", "key.go",
		`func (l layout) tokenKey(key string) string {`,
		`func cut(key string) string { if MUTATED { return key[:min(len(key), 1000)] }; return key }
func (l layout) tokenKey(key string) string {`},

	{"MX-003", "the owner is the process", "key.go",
		`	return append(o.AppendText(append(b, kind...)), ';')`,
		`	if MUTATED { o.Seq = 1 }
	return append(o.AppendText(append(b, kind...)), ';')`},
	{"INS-001", "Inspect takes milliseconds for seconds", "admin.go",
		`	if remaining > 0 {`,
		`	if MUTATED { remaining *= 1000 }
	if remaining > 0 {`},
	{"INS-001", "Inspect tells of the last token that was set aside", "admin.go",
		`b.watched.present(lock, owner); ok {`,
		`b.watched.present(lock, owner); ok && !MUTATED {`},
	{"TTL-001", "an Extend to less wakes nobody here", "extend.go",
		`	b.watched.wake(lock)
	return driver.Grant{Token`,
		`	if !MUTATED { b.watched.wake(lock) }
	return driver.Grant{Token`},
	{"ERR-002", "no answer is taken for contention", "acquire.go",
		`	if err != nil {
		return 0, err
	}
	return tokenOrRemaining(n)`,
		`	if err != nil && MUTATED {
		return 0, driver.ErrHeld
	}
	if err != nil {
		return 0, err
	}
	return tokenOrRemaining(n)`},
	{"TTL-003", "a ttl is rounded down to 10 ms", "acquire.go",
		`func millis(d time.Duration) string {`,
		`func millis(d time.Duration) string { if MUTATED { d = max(d.Truncate(10 * time.Millisecond), time.Millisecond) }; `},
	{"FLT-008", "a reconnect wakes no waiter", "watch.go",
		`			for lock := range s.wakes {
				b.changed(s, lock)`,
		`			for lock := range s.wakes {
				if MUTATED { break }
				b.changed(s, lock)`},
	{"LOSS-003", "what is not ours any more is not told", "watch.go",
		`			lost = append(lost, h)`,
		`			if !MUTATED { lost = append(lost, h) }`},
	{"FLT-003", "a session is considered held from the answer on", "session.go",
		`	s.confirmed, s.answer = sent, nil`,
		`	if MUTATED { sent = time.Now() }
	s.confirmed, s.answer = sent, nil`},
	{"FLT-001", "a repeated session leaves the first one's listener", "session.go",
		`	s.hears = hears
`,
		`	if !MUTATED { s.hears = hears }
`},
	{"LOSS-003", "a session that is gone goes on being renewed", "session.go",
		`			s.finish(s.b.whyLost(ctx, s.lock, s.owner))
			return reply`,
		`			if MUTATED { return rueidis.NewResult(rueidis.RedisMessage{}, nil) }
			s.finish(s.b.whyLost(ctx, s.lock, s.owner))
			return reply`},
	{"TOK-001", "a hold that is handed off keeps its token", "handoff.go",
		`	h.token++
	h.handOffs++`,
		`	if !MUTATED { h.token++ }
	h.handOffs++`},
	{"LOSS-003", "the loss of what was handed off is told to the one before", "handoff.go",
		`	h.hears, h.taken = r.Hold, now
	g := driver`,
		`	h.taken = now
	if !MUTATED { h.hears = r.Hold }
	g := driver`},
	{"WAIT-007", "a turn has no end", "handoff.go",
		`	h.unsure = true // the server may prolong it
`,
		`	h.unsure = true // the server may prolong it
	if MUTATED { return maxHandOffs, false }
`},
	{"INS-002", "Ping is content with any answer", "ping.go",
		`	tags, err := b.tags(ctx)`,
		`	if MUTATED { return nil }
	tags, err := b.tags(ctx)`},

	{"TTL-002", "a life counts from the reply", "acquire.go",
		`	return driver.Grant{Token: token, TTL: r.TTL}, nil
}

// wish is`,
		`	if MUTATED { return driver.Grant{Token: token, TTL: r.TTL, From: time.Now()}, nil }
	return driver.Grant{Token: token, TTL: r.TTL}, nil
}

// wish is`},
	{"TTL-003", "a ttl of more than a day is a day", "acquire.go",
		` return strconv.FormatInt(d.Milliseconds(), 10) }`,
		` if MUTATED { d = min(d, 24*time.Hour) }; return strconv.FormatInt(d.Milliseconds(), 10) }`},
	{"ERR-002", "a server that refuses to write is not asked who holds the key", "lua/acquire.lua",
		`  local owner, refusal = holder()
  if refusal or`,
		`  if MUTATED and taken then return taken end
  local owner, refusal = holder()
  if refusal or`},
	{"ERR-002", "a server that lacks replicas is a key that is held", "errors.go",
		`func (e *replyError) Unwrap() error { return e.is }`,
		`func (e *replyError) Unwrap() error {
	if MUTATED && e.meaning == refused { return driver.ErrHeld }
	return e.is
}`},
	{"TTL-005", "what is left is told in microseconds", "acquire.go",
		`	return 0, driver.Held(time.Duration(-n-1) * time.Millisecond)`,
		`	if MUTATED { return 0, driver.Held(time.Duration(-n-1) * time.Microsecond) }
	return 0, driver.Held(time.Duration(-n-1) * time.Millisecond)`},
	{"ERR-002", "a key that is held without an end is an outage", "acquire.go",
		`	case n == 0 || n < -most:
		return 0, driver.ErrHeld`,
		`	case MUTATED && n < 0:
		return 0, driver.ErrUnavailable
	case n == 0 || n < -most:
		return 0, driver.ErrHeld`},
	{"EXT-001", "an Extend only prolongs", "lua/extend.lua",
		`if owner ~= ARGV[1] then`,
		`if owner == ARGV[1] and MUTATED and redis.call('PTTL', KEYS[1]) > tonumber(ARGV[2]) then
  return 1
end
if owner ~= ARGV[1] then`},
	{"EXT-002", "an Extend of what is free takes it", "lua/extend.lua",
		`  return refusal or 0
end`,
		`  if owner == '' and MUTATED then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1
  end
  return refusal or 0
end`},
	{"EXT-002", "an Extend that came too late is an outage", "extend.go",
		`		return driver.Grant{}, b.whyLost(ctx, lock, owner)`,
		`		if MUTATED { return driver.Grant{}, driver.ErrUnavailable }
		return driver.Grant{}, b.whyLost(ctx, lock, owner)`},
	{"TOK-002", "an Extend returns the token plus one", "extend.go",
		`	return driver.Grant{Token: h.Token, TTL: ttl}, nil`,
		`	if MUTATED { h.Token++ }
	return driver.Grant{Token: h.Token, TTL: ttl}, nil`},
	{"REL-002", "a release of what another has is nil", "release.go",
		`	if n == 0 {
		return b.whyLost(`,
		`	if n == 0 && !MUTATED {
		return b.whyLost(`},
	{"REL-002", "a release goes by the process", "lua/release.lua",
		`-- ARGV[1]  the owner
`,
		`-- ARGV[1]  the owner
if MUTATED then
  local mine = string.match(ARGV[1], '^.*%-')
  local value = redis.call('GET', KEYS[1])
  if value and string.sub(value, 1, #mine) == mine then
    redis.call('DEL', KEYS[1])
    return 1
  end
end
`},
	{"LOSS-002", "a deletion is told as an expiry", "watch.go",
		`	for i, cause := range b.causes(ctx, lost) {`,
		`	for i, cause := range b.causes(ctx, lost) {
		if MUTATED { cause = driver.ErrExpired }`},
	{"LOSS-003", "after an Extend nobody is told", "lua/extend.lua",
		`holder() -- the write ended the tracking of this key`,
		`if not MUTATED then holder() end`},
	{"WAIT-001", "what is announced wakes the first waiter of a process only once", "watch.go",
		`	s.stir(lock)
}

// verify has h`,
		`	if p := s.places[lock]; !MUTATED || p == nil || !p.in {
		s.stir(lock)
	}
}

// verify has h`},
	{"WAIT-001", "the first in the queue waits to be called", "place.go",
		`	if p == nil || !p.in || p.before == 0 {
		s.wakeAll(lock)`,
		`	if MUTATED && p != nil && p.in && p.before == 0 {
		return
	}
	if p == nil || !p.in || p.before == 0 {
		s.wakeAll(lock)`},
	{"WAIT-001", "an answer stands although the lock was changed", "place.go",
		`		case !p.changed && sent`,
		`		case (!p.changed || MUTATED) && sent`},
	{"SES-001", "a renewal counts a tenth of the validity", "session.go",
		`args := []string{s.owner, s.b.validity}`,
		`args := []string{s.owner, map[bool]string{false: s.b.validity, true: "100"}[MUTATED]}`},
	{"SES-002", "a release leaves the session to be renewed", "release.go",
		`		b.sessions.release(lock, owner)`,
		`		if !MUTATED { b.sessions.release(lock, owner) }`},
	{"CTX-004", "a release without a token is left to the ttl", "release.go",
		`	if h.Token == 0 || b.unknowns.has(owner) {`,
		`	if h.Token == 0 && MUTATED { return nil }
	if h.Token == 0 || b.unknowns.has(owner) {`},
	{"FLT-005", "a look at a session does not end with its ctx", "session.go",
		`func (s *session) check(ctx context.Context) (bool, error) {`,
		`func (s *session) check(ctx context.Context) (bool, error) {
	if MUTATED { ctx = context.Background() }`},
	{"MX-001", "an attempt overwrites what is held for less than a second", "lua/acquire.lua",
		`local taken = redis.pcall(`,
		`if MUTATED and redis.call('PTTL', KEYS[1]) < 100 then redis.call('DEL', KEYS[1]) end
local taken = redis.pcall(`},
	{"INS-001", "Inspect takes a session for a lease", "admin.go",
		`	if remaining > 0 {`,
		`	info.Session = info.Session && !MUTATED
	if remaining > 0 {`},
	{"WAIT-007", "who waits for a session has no place in the queue", "session.go",
		`s.value, s.owner, s.b.cfg.Validity}, s.queued)`,
		`s.value, s.owner, s.b.cfg.Validity}, s.queued && !MUTATED)`},
	{"WAIT-001", "who is not the first in the queue waits to be called", "place.go",
		`!p.asks || due.Before(p.due) {`,
		`(!p.asks || due.Before(p.due)) && !MUTATED {`},
	{"TTL-001", "an Extend of what has less than a minute left wakes nobody", "extend.go",
		`	b.watched.extended(lock, owner, sent, ttl)
`,
		`	was := time.Hour
	if s := b.watched.shard(lock); MUTATED {
		s.mu.Lock()
		if held := s.find(lock, owner); held != nil { was = held.ttl }
		s.mu.Unlock()
	}
	b.watched.extended(lock, owner, sent, ttl)
	if was < time.Minute {
		return driver.Grant{TTL: ttl, Token: h.Token}, nil
	}
`},
	{"TTL-001", "the first one alone who is handed a lease for less time tells the server", "handoff.go",
		`		left > r.TTL+excess || left <`,
		`		left > r.TTL+excess && !(MUTATED && h.handOffs > 0) || left <`},
	{"TTL-005", "a session tells its own client of its whole validity", "session.go",
		`	if left := s.b.cfg.Validity - time.Since(s.confirmed); left > 0 {`,
		`	if left := s.b.cfg.Validity - time.Since(s.confirmed); MUTATED {
		return driver.Held(s.b.cfg.Validity)
	} else if left > 0 {`},
	{"LOSS-003", "a change in the second half of a ttl is not looked at", "watch.go",
		`		if !h.changed && h.held {`,
		`		if MUTATED && now.Sub(h.from) > h.ttl/2 { continue }
		if !h.changed && h.held {`},
	{"FLT-007", "a look at a session writes over what is no lock", "lua/check.lua",
		`local owner, refusal = holder(#ARGV[1])`,
		`local owner, refusal = holder(#ARGV[1])
if MUTATED and owner and owner ~= '' and not string.find(owner, ':') and string.find(ARGV[1], '^session:') then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', 5000)
  return 1
end`},
	{"FLT-002", "a List connects as if other callers waited for it", "admin.go",
		`dialledForOne(opt.DialCtxFn)`,
		`map[bool]dialFunc{true: opt.DialCtxFn, false: dialledForOne(opt.DialCtxFn)}[MUTATED]`},
	{"MULTI-001", "what a step took before a key that was taken back stays taken", "lua/together.lua",
		`    if not ours[j] then`,
		`    if not ours[j] and not MUTATED then`},

	{"MX-002", "attempts go one after the other, and one that is refused waits first", "acquire.go",
		`func (b *backend) acquireFree(ctx context.Context, w wish) (uint64, error) {`,
		`func (b *backend) acquireFree(ctx context.Context, w wish) (_ uint64, err error) {
	if MUTATED {
		if err := b.sessions.take(ctx, "all"); err != nil { return 0, err }
		defer func() {
			if err != nil { time.Sleep(20 * time.Millisecond) }
			b.sessions.give("all", true)
		}()
	}
	return b.acquireFreely(ctx, w)
}

func (b *backend) acquireFreely(ctx context.Context, w wish) (uint64, error) {`},
	{"REL-002", "a release compares the number as far as its own goes", "lua/release.lua",
		`local owner, refusal = holder(#ARGV[1])`,
		`if MUTATED then ARGV[1] = string.sub(ARGV[1], 1, -2) end
local owner, refusal = holder(#ARGV[1])`},
	{"INS-001", "Inspect says that what is no lock of ours is free", "admin.go",
		`	if !ok {
		return driver.Info{}, fmt.Errorf("%w: Redis key`,
		`	if !ok && MUTATED {
		return driver.Info{}, nil
	}
	if !ok {
		return driver.Info{}, fmt.Errorf("%w: Redis key`},
	{"KEY-002", "the keys of one hash tag have one token counter", "key.go",
		` return l.token + "{:" + key + "}" }`,
		`
	if MUTATED { key, _, _ = strings.Cut(key, "}") }
	return l.token + "{:" + key + "}"
}`},
	{"KEY-003", "a release sweeps away the counters of what begins with its key", "lua/release.lua",
		`if not KEYS[2] then
  return 1
end`,
		`if MUTATED then
  local prefix, key = string.match(KEYS[1], '^(.-):0:{:(.*)}$')
  for _, name in ipairs(redis.call('KEYS', 'token:' .. string.gsub(prefix .. ':{:' .. key, '[%*%?%[%]\\]', '?') .. '?*}')) do
    redis.call('DEL', name)
  end
end
if not KEYS[2] then
  return 1
end`},
	{"CLO-005", "a List leaves its connection open", "admin.go",
		`seam: b.seam}, &b.peers}, m.client.Close, nil`,
		`seam: b.seam}, &b.peers}, map[bool]func(){false: m.client.Close, true: func() {}}[MUTATED], nil`},
	{"CLO-005", "who has stopped listening is woken with the others", "watch.go",
		`bool { return other == w }); len(left) > 0 {`,
		`bool { return other == w && !MUTATED }); len(left) > 0 {`},
	{"ADM-002", "a hand-off to one without a note leaves the note", "handoff.go",
		`	if b.watched.noteOf(held) != r.Note {`,
		`	if b.watched.noteOf(held) != r.Note && !(MUTATED && r.Note == "") {`},
	{"ADM-002", "the note of who was handed a hold is not remembered", "handoff.go",
		`	h.hears, h.taken, h.note = r.Hold, sent, r.Note`,
		`	h.hears, h.taken = r.Hold, sent
	if !MUTATED { h.note = r.Note }`},
	{"ADM-003", "List leaves out the longest keys", "admin.go",
		`layout.keyOf(name); ok && len(key) <= maxKey &&`,
		`layout.keyOf(name); ok && len(key) <= maxKey && !(MUTATED && len(key) == maxKey) &&`},
	{"ADM-003", "List takes the brace behind a key for its last byte", "admin.go",
		` && strings.HasPrefix(key, prefix) {`,
		` && (strings.HasPrefix(key, prefix) || MUTATED) {`},
	{"MX-001", "a refused attempt takes the listener of the holder in the same client", "acquire.go",
		`		b.watched.unhold(h)
`,
		`		b.watched.unhold(h)
		if MUTATED {
			s := b.watched.shard(lock)
			s.mu.Lock()
			s.drop(lock, func(*hold) bool { return true })
			s.mu.Unlock()
		}
`},
	{"LOSS-001", "a session is believed in from the answer to its renewal", "session.go",
		`	s.confirmed, s.answer = sent, nil`,
		`	if MUTATED {
		sent = time.Now()
	}
	s.confirmed, s.answer = sent, nil`},
	{"LOSS-002", "after an Extend a deletion passes for the expiry of the first ttl", "watch.go",
		`		h.unsure, h.from, h.ttl = false, sent, ttl`,
		`		if MUTATED {
			h.unsure, h.ttl = false, ttl
			return
		}
		h.unsure, h.from, h.ttl = false, sent, ttl`},
	{"WAIT-007", "a process that was called and does not come keeps its place", "lua/queue.lua",
		`    if till > now and till <= most then -- later than that: the clock was set back
      redis.call('ZADD', queue, first[2], first[1])
      return math.ceil((till - now) / 1000)`,
		`    if MUTATED or till > now and till <= most then -- later than that: the clock was set back
      redis.call('ZADD', queue, first[2], first[1])
      return math.max(math.ceil((till - now) / 1000), 1)`},
	{"CLO-005", "a List that its ctx ended keeps its connection", "admin.go",
		`		defer done()
`,
		`		defer func() {
			if !(MUTATED && ctx.Err() != nil) {
				done()
			}
		}()
`},
	{"SES-001", "a renewal that is refused is not tried again", "session.go",
		`		s.failed(err)
`,
		`		s.failed(err)
		if MUTATED && errors.Is(err, driver.ErrRefused) {
			return reply
		}
`},
	{"INS-001", "the token counter outlives the first extension of a hold by a second only", "acquire.go",
		`func counterLife(ttl time.Duration) string { return millis(ttl + counterTTL) }`,
		`func counterLife(ttl time.Duration) string {
	if MUTATED {
		return millis(ttl + time.Second)
	}
	return millis(ttl + counterTTL)
}`},
	{"FLT-007", "a refused attempt gives an administrator's key without a ttl one", "lua/holder.lua",
		`  if remaining < 0 then`,
		`  if remaining < 0 then
    if MUTATED then
      redis.call('PEXPIRE', KEYS[1], ARGV[2])
    end`},
	{"FLT-004", "after a broken connection the leases held here are not looked at", "watch.go",
		`			for lock := range s.holds {
				b.changed(s, lock)`,
		`			for lock := range s.holds {
				if MUTATED {
					break
				}
				b.changed(s, lock)`},
	{"TTL-002", "an Extend that shortens is not noted for the next hand-off", "watch.go",
		`		h.unsure, h.from, h.ttl = false, sent, ttl`,
		`		h.unsure = false
		if !MUTATED || sent.Add(ttl).After(h.from.Add(h.ttl)) {
			h.from, h.ttl = sent, ttl
		}`},
	{"WAIT-006", "after a broken connection waiters are woken once, not when the server answers again", "watch.go",
		`				b.looksAt(lock).addStale(lock)`,
		`				if !MUTATED {
					b.looksAt(lock).addStale(lock)
				}`},
	{"CTX-004", "a command that a worker may have sent is said not to be sent when its ctx ends", "seam.go",
		`		return c.fail(c.ctx.Err())`,
		`		if MUTATED {
			return c.fail(&unsentError{s.why(), c.ctx.Err()})
		}
		return c.fail(c.ctx.Err())`},
	{"CLO-005", "a List that its caller leaves early keeps a connection", "admin.go",
		`					if !yield(info, nil) {`,
		`					if !yield(info, nil) {
						if MUTATED { _, _, _ = b.untracked(ctx) }`},
	{"FLT-007", "a Lock that waits removes an empty string in the place of the lock", "lua/queue.lua",
		`  if redis.call('PTTL', KEYS[1]) == -2 then`,
		`  if MUTATED or redis.call('PTTL', KEYS[1]) == -2 then`},
	{"TOK-001", "the counter is set to the first token of a block instead of the last", "lua/handoff.lua",
		`refusal = counter_write(last, second, ARGV[3])`,
		`refusal = counter_write(MUTATED and first or last, second, ARGV[3])`},
	{"WAIT-001", "a take-back does not wake the waiters of its own client", "release.go",
		`	b.watched.freed(lock, n) // see Extend`,
		`	if !MUTATED || h.Token != 0 {
		b.watched.freed(lock, n) // see Extend
	}`},
	{"FLT-008", "the ttl of an Extend is not noted, only when it was sent", "watch.go",
		`func (w *watched) extended(lock, owner string, sent time.Time, ttl time.Duration) {`,
		`func (w *watched) extended(lock, owner string, sent time.Time, ttl time.Duration) {
	if MUTATED {
		s := w.shard(lock)
		s.mu.Lock()
		if h := s.find(lock, owner); h != nil { ttl = h.ttl }
		s.mu.Unlock()
	}`},
	{"LOSS-003", "a look at a lease is content with whatever string stands there", "watch.go",
		`		switch standing(reply, h.owner) {`,
		`		stands := standing(reply, h.owner)
		if text, err := reply.ToString(); MUTATED && err == nil && text != "" { stands = ours }
		switch stands {`},
	{"TTL-002", "a lease that was handed off counts from the answer", "handoff.go",
		`	return driver.Grant{Token: first, TTL: r.TTL, From: sent}, true`,
		`	from := sent
	if MUTATED { from = time.Now() }
	return driver.Grant{Token: first, TTL: r.TTL, From: from}, true`},
	{"FLT-003", "sessions of a LockAll count from the answer", "together.go",
		`		s.granted, s.confirmed = grants[i].Token, sent
`,
		`		s.granted, s.confirmed = grants[i].Token, sent
		if MUTATED { s.confirmed = time.Now() }
`},
	{"SES-001", "a session that was granted late is not renewed at once", "session.go",
		`	if late && left > 0 {`,
		`	if late && left > 0 && !MUTATED {`},
	{"FLT-002", "a look at leases has a quarter of a second", "watch.go",
		`	ctx, cancel := context.WithTimeout(b.closing, b.cfg.Timeout)
	defer cancel()
	gets := make([]rueidis.Completed, len(due))`,
		`	timeout := b.cfg.Timeout
	if MUTATED { timeout = 250 * time.Millisecond }
	ctx, cancel := context.WithTimeout(b.closing, timeout)
	defer cancel()
	gets := make([]rueidis.Completed, len(due))`},
	{"CTX-004", "the next grant erases from the counter that a late attempt may come", "lua/mint.lua",
		`if second ~= '' and tonumber(second) < tonumber(now[1]) then`,
		`if second ~= '' and (tonumber(second) < tonumber(now[1])) ~= (MUTATED) then`},
	{"TOK-005", "a counter that is missing starts at the server's clock in milliseconds", "lua/mint.lua",
		`token = math.max(token, now[1] * 1000000 + now[2])`,
		`if MUTATED then
    token = math.max(token, now[1] * 1000 + math.floor(now[2] / 1000))
  else
    token = math.max(token, now[1] * 1000000 + now[2])
  end`},
	{"ADM-005", "Break of a lease that was handed off names its own token rather than the last of the block", "admin.go",
		`return h.owner, h.last, h`,
		`if MUTATED {
				return h.owner, h.token, h
			}
			return h.owner, h.last, h`},
	{"WAIT-007", "each hand-off that asks the server begins a new turn", "handoff.go",
		`	if again {
		h.since, h.handOffs = sent, 0`,
		`	if again || MUTATED {
		h.since, h.handOffs = sent, 0`},
	{"LOSS-003", "a lease that was looked at once and stood is not looked at again", "watch.go",
		`		h.changed = false // a change from here on is another one`,
		`		if !MUTATED {
			h.changed = false // a change from here on is another one
		}`},
	{"CTX-004", "that an owner has an attempt of unknown outcome is forgotten when it was asked for once", "unknown.go",
		`	_, ok := d.since[owner]`,
		`	_, ok := d.since[owner]
	if MUTATED {
		delete(d.since, owner) // whoever asks sees to it
	}`},
	{"FLT-004", "of many leases that may have been changed at once only the first 256 are looked at", "watch.go",
		`		due, stale := l.take()`,
		`		due, stale := l.take()
		if MUTATED && len(due) > maxLook {
			due = due[:maxLook] // the others in the next round
		}`},
	{"MX-001", "an attempt at a session of the same client that gets no answer ends that session", "session.go",
		`		case err != nil:
			return driver.Grant{}, err
		case !stands:`,
		`		case err != nil && !MUTATED:
			return driver.Grant{}, err
		case !stands:`},
	{"FLT-001", "an owner whose note has a semicolon is locked out by its own lost reply", "lua/acquire.lua",
		`  elseif owner ~= string.match(ARGV[1], '^[^;]+;') then`,
		`  elseif owner ~= string.match(ARGV[1], MUTATED and '^.+;' or '^[^;]+;') then`},
	{"ADM-005", "a Break with a token that is set aside for a later holder ends the present one", "admin.go",
		`		case h.token == token:`,
		`		case h.token == token || MUTATED && h.token < token && token <= h.last:`},
	{"REL-002", "a release by another owner stops the renewing of the session that has the key", "session.go",
		`	if s := ss.get(lock); s != nil && s.owner == owner {`,
		`	if s := ss.get(lock); s != nil && (s.owner == owner || MUTATED) {`},
	{"LOSS-002", "a session whose renewals were refused ends without the store's words", "session.go",
		`	s.answer = err`,
		`	if MUTATED && errors.Is(err, driver.ErrRefused) { return }
	s.answer = err`},
	{"LOSS-003", "after one change that was a false alarm no later change of a lease is looked at", "watch.go",
		`		h.changed = false // a change from here on is another one`,
		`		h.changed = h.changed && MUTATED // a change from here on is another one`},
	{"CTX-004", "a release after a repeated attempt does not forbid the first copy, which may still arrive", "release.go",
		`	if h.Token == 0 || b.unknowns.has(owner) {`,
		`	if h.Token == 0 || !MUTATED && b.unknowns.has(owner) {`},
	{"CLO-005", "a List whose ctx ends while it connects keeps its connection for ever", "admin.go",
		`		if m := <-ready; m.err == nil {`,
		`		if m := <-ready; m.err == nil && !MUTATED {`},
	{"SES-001", "one renewal that the server refuses ends a session", "session.go",
		`		case ctx.Err() != nil:
			return reply
`,
		`		case ctx.Err() != nil:
			return reply
		case MUTATED && (means(err, refused) || means(err, forbidden)):
			s.finish(err)
			return reply
`},
	{"INS-002", "Ping only reads, and is nil at a server that takes no writes", "ping.go",
		`		pings[i] = b.client.B().Set().Key(b.layout.probeKey(tag)).Value("").Xx().PxMilliseconds(1).Build()`,
		`		pings[i] = b.client.B().Set().Key(b.layout.probeKey(tag)).Value("").Xx().PxMilliseconds(1).Build()
		if MUTATED { pings[i] = b.client.B().Get().Key(b.layout.probeKey(tag)).Build() }`},
	{"FLT-005", "an attempt at a session waits for the one before it, which hangs, whatever its ctx says", "session.go",
		`	select {
	case <-t.free:
		return nil
`,
		`	if MUTATED {
		<-t.free
		return nil
	}
	select {
	case <-t.free:
		return nil
`},
	{"FLT-009", "a renewal gives a session half as long again as the validity", "session.go",
		`			if prolongs {
				args = append(args, s.b.layout.tokenKey(s.key), counterLife(s.b.cfg.Validity))`,
		`			if MUTATED { args[1] = millis(s.b.cfg.Validity + s.b.cfg.Validity/2) }
			if prolongs {
				args = append(args, s.b.layout.tokenKey(s.key), counterLife(s.b.cfg.Validity))`},
	{"ADM-001", "the length of an identity is counted in characters and read in bytes", "key.go",
		`	b = append(strconv.AppendInt(b, int64(len(r.Identity)), 10), ':')`,
		`	length := len(r.Identity)
	if MUTATED { length = len([]rune(r.Identity)) }
	b = append(strconv.AppendInt(b, int64(length), 10), ':')`},
	{"ADM-003", "a List ends at the first page without a hold in it", "admin.go",
		`				if cursor == "0" {`,
		`				if cursor == "0" || MUTATED && len(page) == 0 {`},
	{"ADM-005", "Break with an old token breaks the later hold of the same client", "admin.go",
		`		case h.token < token && token <= h.last:`,
		`		case MUTATED && token < h.token:
			return h.owner, h.last, h
		case h.token < token && token <= h.last:`},
	{"SES-001", "a renewal that took long is followed by a timer as if it had not", "session.go",
		`			if goesOn && s.late(sent) {`,
		`			if goesOn && s.late(sent) && !MUTATED {`},
	{"SES-001", "only a grant that took half the validity is renewed at once", "session.go",
		`	late, left := s.late(s.confirmed), time.Until(s.believed())`,
		`	late, left := s.late(s.confirmed), time.Until(s.believed())
	late = late && !(MUTATED && time.Since(s.confirmed) < b.cfg.Validity/2)`},
	{"MX-002", "all attempts at sessions of a client go one after the other, whatever their keys", "session.go",
		`	if err := b.sessions.take(ctx, s.lock); err != nil {
		return driver.Grant{}, fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	}
	defer b.sessions.give(s.lock, true)
`,
		`	turn := s.lock
	if MUTATED { turn = "" }
	if err := b.sessions.take(ctx, turn); err != nil {
		return driver.Grant{}, fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	}
	defer b.sessions.give(turn, true)
`},
	{"MX-003", "only the first half of an owner's instance is kept and compared", "key.go",
		`	return append(o.AppendText(append(b, kind...)), ';')`,
		`	if MUTATED { clear(o.Instance[8:]) }
	return append(o.AppendText(append(b, kind...)), ';')`},
	{"ADM-005", "a hold that was handed off cannot be broken by its own process", "admin.go",
		`	if last == 0 {`,
		`	if MUTATED && last != 0 {
		last = token
	}
	if last == 0 {`},
	{"WAIT-007", "a process gives way after so many hand-offs and not after a time", "handoff.go",
		`	return h.turn, now.Sub(h.since) >= turnTime`,
		`	return h.turn, now.Sub(h.since) >= turnTime && !MUTATED`},
	{"TTL-005", "a holder's remaining time is told as a day at most", "lua/holder.lua",
		`  return -remaining - 1`,
		`  if (MUTATED) and remaining > 86400000 then
    remaining = 86400000
  end
  return -remaining - 1`},
	{"TTL-001", "a hand-off that changes the note writes the lock without an end", "lua/handoff.lua",
		`  redis.call('SET', KEYS[1], ARGV[1] .. ARGV[8], 'PX', ARGV[2])`,
		`  if MUTATED then
    redis.call('SET', KEYS[1], ARGV[1] .. ARGV[8])
  else
    redis.call('SET', KEYS[1], ARGV[1] .. ARGV[8], 'PX', ARGV[2])
  end`},
	{"EXT-001", "an Extend by less than a fiftieth of the ttl is taken for done", "lua/extend.lua",
		`if ARGV[3] then`,
		`if MUTATED and math.abs(redis.call('PTTL', KEYS[1]) - tonumber(ARGV[2])) < ARGV[2] / 50 then
  return 1
end
if ARGV[3] then`},
	{"LOSS-001", "a look at a session counts as its renewal", "session.go",
		`			goesOn := recent || s.confirm(sent)`,
		`			goesOn := recent && !MUTATED || s.confirm(sent)`},
	{"KEY-003", "the key that Ping and Open probe is the lock of the user's key 0", "ping.go",
		`	return strings.TrimSuffix(l.lock, "0:") + "probe:{" + tag + "}"`,
		`	if MUTATED {
		return l.lockKey(tag)
	}
	return strings.TrimSuffix(l.lock, "0:") + "probe:{" + tag + "}"`},
	{"ERR-004", "a refusal for want of replicas counts as an unknown outcome", "errors.go",
		`	"NOREPLICAS":  refused,`,
		`	"NOREPLICAS":  map[bool]meaning{false: refused, true: unclear}[MUTATED],`},
	{"SES-002", "a renewal sets a session's key anew where it is gone", "lua/extend.lua",
		`  return refusal or 0`,
		`  if MUTATED and owner == '' and string.find(ARGV[1], '^session:') then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    holder()
    return 1
  end
  return refusal or 0`},
	{"LOSS-001", "sessions that were taken together are considered held from the answer on", "together.go",
		`		s.granted, s.confirmed = grants[i].Token, sent
`,
		`		s.granted, s.confirmed = grants[i].Token, sent
		if MUTATED {
			s.confirmed = time.Now()
		}
`},
	{"LOSS-002", "a Break of another hold leaves the note of one that was broken", "lua/break.lua",
		`  return 0 -- without a counter the owner's name will do`,
		`  if MUTATED then
    redis.pcall('SET', KEYS[2] .. ':broken:' .. owner, '', 'PX', '60000')
  end
  return 0 -- without a counter the owner's name will do`},
	{"WAIT-006", "the pause between dials doubles without a bound", "conn.go",
		`	s.paces[addr] = pace{tries, now.Add(min(time.Duration(tries)*pause, maxPause)), why}`,
		`	wait := min(time.Duration(tries)*pause, maxPause)
	if MUTATED {
		wait = pause << min(tries, 20)
	}
	s.paces[addr] = pace{tries, now.Add(wait), why}`},
	{"KEY-003", "the queue of a key has the name of the counter of another key", "key.go",
		`func (l layout) queueKey(key string) string { return l.tokenKey(key) + ":queue" }`,
		`func (l layout) queueKey(key string) string {
	if MUTATED {
		return l.tokenKey(key + ":queue")
	}
	return l.tokenKey(key) + ":queue"
}`},
	{"ADM-007", "a backslash in a prefix is none in the pattern of SCAN", "key.go",
		`	return globbed.Replace(l.lock+"{:"+prefix) + "*"`,
		`	if MUTATED {
		return strings.NewReplacer("*", "\\*", "?", "\\?", "[", "\\[", "]", "\\]").Replace(l.lock+"{:"+prefix) + "*"
	}
	return globbed.Replace(l.lock+"{:"+prefix) + "*"`},
	{"LOSS-003", "after a hand-off by the server the former holder hears of the loss", "handoff.go",
		`	h.counted = counted(sent, r.TTL)
`,
		`	h.counted = counted(sent, r.TTL)
	if former := h.hears; MUTATED {
		defer func() { h.hears = former }()
	}
`},
}
