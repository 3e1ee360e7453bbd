package main

// A change makes one mutant of the core: where old stands in file, new stands instead, in
// which the word MUTATED is true when the mutant is chosen.
type change struct {
	clause, name   string
	file, old, new string
}

// core is the broken cores, each with the clause that must fail it.
var core = []change{
	{"TTL-001", "no attempt is made when the holder's time is up", "queue.go",
		`	if left, ok := driver.Remaining(err); ok &&`,
		`	if left, ok := driver.Remaining(err); ok && !MUTATED &&`},
	{"TTL-001", "nobody is asked for when the time of what was handed off is up", "queue.go",
		`	q.quiet = sent + g.TTL + time.Millisecond`,
		`	q.quiet = sent + g.TTL + time.Millisecond
	if MUTATED { q.quiet += time.Hour }`},
	{"TTL-001", "a hold that was handed off for less time ends with the one before", "queue.go",
		`	if missed || q.quiet < q.armed {`,
		`	if missed || q.quiet < q.armed && !MUTATED {`},
	{"TTL-002", "the local deadline counts from the reply", "attempt.go",
		`	if !g.From.IsZero() {`,
		`	if MUTATED { sent = l.now() }
	if !g.From.IsZero() {`},
	{"TTL-003", "a ttl is rounded down", "option.go",
		`	return (d + time.Millisecond - 1) / time.Millisecond * time.Millisecond`,
		`	if MUTATED { return d / time.Millisecond * time.Millisecond }
	return (d + time.Millisecond - 1) / time.Millisecond * time.Millisecond`},

	{"EXT-003", "an Extend whose outcome is unknown is believed", "lease.go",
		`s.setDeadlineLocked(min(s.deadline, s.l.localDeadline(sent, d, s.seldom().drift)))`,
		`if MUTATED { s.setDeadlineLocked(s.l.localDeadline(sent, d, s.seldom().drift)) } else { s.setDeadlineLocked(min(s.deadline, s.l.localDeadline(sent, d, s.seldom().drift))) }`},
	{"EXT-003", "an Extend whose outcome is unknown changes nothing", "lease.go",
		`		s.own().doubtful = true // the backend may not end it at the earlier time`,
		`		if MUTATED { return s.fail(op, CodeUnavailable, err) }
		s.own().doubtful = true // the backend may not end it at the earlier time`},
	{"EXT-003", "a hold is handed off although an Extend may yet arrive", "hold.go",
		`	return s.seldom().doubtful || s.seldom().late > 0 || s.extending`,
		`	return !MUTATED && (s.seldom().doubtful || s.seldom().late > 0 || s.extending)`},
	{"EXT-003", "a hold is handed off while an Extend is in flight", "hold.go",
		`func (s *Lease) mayBeChangedLocked() bool {`,
		`func (s *Lease) mayBeChangedLocked() bool {
	if MUTATED { return s.seldom().doubtful || s.seldom().late > 0 }`},
	{"EXT-004", "a session can be extended", "leave.go",
		`	if s.session {
		if err := s.Err(); err != nil {`,
		`	if s.session && !MUTATED {
		if err := s.Err(); err != nil {`},

	{"REL-001", "a waiter that was handed a hold releases it by its own name", "queue.go",
		`	w.lease.seq = w.handed.Owner.Seq`,
		`	if !MUTATED { w.lease.seq = w.handed.Owner.Seq }`},

	{"REL-003", "a second Unlock asks the backend again", "lease.go",
		`	case s.phase == over:
`,
		`	case s.phase == over:
		if MUTATED { _ = s.l.backend.Release(ctx, s.holder()) }
`},
	{"REL-004", "a release ends with the ctx of its Unlock", "lease.go",
		`	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(`,
		`	if ctx.Err() == nil || MUTATED {
		return ctx, func() {}
	}
	return context.WithTimeout(`},
	{"REL-005", "a second Unlock takes the success of the first for a loss", "lease.go",
		`if again && (s.session || s.l.now() < s.deadline) {`,
		`if !MUTATED && again && (s.session || s.l.now() < s.deadline) {`},
	{"REL-005", "a release that was not confirmed is not repeated", "lease.go",
		`	if !again {
		s.l.abandon(`,
		`	if !again && !MUTATED {
		s.l.abandon(`},

	{"REL-006", "a release goes on for as long as its holder believed", "hold.go",
		`	return max(left, s.seldom().longest)`,
		`	if MUTATED { return left }
	return max(left, s.seldom().longest)`},

	{"LOSS-001", "no timer ends a hold", "hold.go",
		`	if s.extra.doubtful || s.l.keepsTime(s) {
		if left`,
		`	if !MUTATED && (s.extra.doubtful || s.l.keepsTime(s)) {
		if left`},
	{"LOSS-002", "every loss is reported as an expiry", "errors.go",
		`	return ReasonLost
}`,
		`	if MUTATED { return ReasonExpired }
	return ReasonLost
}`},
	{"LOSS-005", "a later hold does not end the older one", "attempt.go",
		`	if older != nil {
		older.overtaken`,
		`	if older != nil && !MUTATED {
		older.overtaken`},
	{"LOSS-004", "a Context ends without the cause", "hold.go",
		`				w.cancel(err)`,
		`				if MUTATED { w.cancel(errors.New("over")) } else { w.cancel(err) }`},
	{"LOSS-004", "Do passes on the caller's ctx", "do.go",
		`	return fn(held, lease)`,
		`	if MUTATED { return fn(ctx, lease) }
	return fn(held, lease)`},

	{"WAIT-001", "wake-ups are not asked for", "queue.go",
		`		if qs.notifier != nil {
			q.stop`,
		`		if qs.notifier != nil && !MUTATED {
			q.stop`},
	{"WAIT-001", "while holds are handed off nobody hears a wake-up", "queue.go",
		`			woken = true
`,
		`			woken = !MUTATED
`},
	{"WAIT-001", "the loss of what was handed off wakes nobody", "queue.go",
		`	if qs.handoff == nil || s.session ||`,
		`	if MUTATED || qs.handoff == nil || s.session ||`},
	{"WAIT-002", "an early wake-up uses up an attempt", "queue.go",
		`	w.state, q.quiet = inFlight, 0`,
		`	if MUTATED && woken && w.retry.Attempts > 0 { w.final = true }
	w.state, q.quiet = inFlight, 0`},
	{"WAIT-002", "one attempt too many", "queue.go",
		`	left := w.retry.Attempts
`,
		`	left := w.retry.Attempts
	if MUTATED { left++ }
`},
	{"WAIT-003", "nobody is asked for when the first waiter leaves the queue", "queue.go",
		`		if w.state != settled {
			poke(q.wake)`,
		`		if w.state != settled && !MUTATED {
			poke(q.wake)`},
	{"TTL-001", "a timer that rings beside an offer is lost", "queue.go",
		`	missed := q.missed
`,
		`	missed := q.missed && !MUTATED
`},
	{"WAIT-004", "a hold is handed to the waiter that came last", "queue.go",
		`	w.state = offered
	return q, w`,
		`	if last := len(q.waiters) - 1; MUTATED && q.waiters[last].state == queueing && !q.waiters[last].lease.session {
		q.waiters[0], q.waiters[last] = q.waiters[last], q.waiters[0]
		w = q.waiters[0]
	}
	w.state = offered
	return q, w`},
	{"WAIT-004", "the waiter that came last is served first", "queue.go",
		`	q.waiters = append(q.waiters, w)
`,
		`	if MUTATED && len(q.waiters) > 1 {
		q.waiters = append([]*waiter{q.waiters[0], w}, q.waiters[1:]...)
		return q, w
	}
	q.waiters = append(q.waiters, w)
`},
	{"WAIT-004", "a hold is handed to the first who wants a lease, past the sessions", "queue.go",
		`	w := q.waiters[0]
	if w.state != queueing || w.lease.session`,
		`	w := q.waiters[0]
	if i := slices.IndexFunc(q.waiters, func(w *waiter) bool { return !w.lease.session && w.state == queueing }); MUTATED && i > 0 && w.state == queueing {
		q.waiters[0], q.waiters[i] = q.waiters[i], w
		w = q.waiters[0]
	}
	if w.state != queueing || w.lease.session`},
	{"WAIT-005", "Extend is tried again", "lease.go",
		`		grant, err = s.l.backend.Extend(ctx, s.holder(), d)`,
		`		grant, err = s.l.backend.Extend(ctx, s.holder(), d)
	for n := 0; MUTATED && err != nil && n < 3; n++ {
		grant, err = s.l.backend.Extend(ctx, s.holder(), d)
	}`},
	{"WAIT-005", "Unlock is patient with a refusal", "lease.go",
		`	err = s.l.waiting.release(ctx, s, again)`,
		`	for err = s.l.waiting.release(ctx, s, again); MUTATED && err != nil && ctx.Err() == nil && time.Since(s.l.epoch) < time.Hour; {
		time.Sleep(DefaultDelay)
		err = s.l.waiting.release(ctx, s, again)
	}`},
	{"WAIT-006", "an outage ends the waiting", "attempt.go",
		`	return c == CodeHeld || c == CodeUnavailable ||`,
		`	return c == CodeHeld || c == CodeUnavailable && !MUTATED ||`},

	{"CTX-001", "an attempt is made although the ctx has ended", "locker.go",
		`	if ctx.Err() != nil {
		return key, &Error{Key: key, Code: CodeCanceled`,
		`	if ctx.Err() != nil && !MUTATED {
		return key, &Error{Key: key, Code: CodeCanceled`},
	{"CTX-002", "a hold ends with the ctx of its Lock", "locker.go",
		`	s, waited, err := l.acquire(ctx, key, &set)
`,
		`	s, waited, err := l.acquire(ctx, key, &set)
	if MUTATED && err == nil { context.AfterFunc(ctx, func() { (*listener)(s).Lost(driver.ErrLost) }) }
`},
	{"CTX-003", "who gives up is not told of the ctx", "wait.go",
		`	if ctx.Err() == nil || errors.Is(err, ctx.Err())`,
		`	if MUTATED || ctx.Err() == nil || errors.Is(err, ctx.Err())`},
	{"CTX-003", "the first obstacle is reported, not the last", "queue.go",
		`		q.last = err
`,
		`		if !MUTATED || q.last == nil { q.last = err }
`},
	{"CTX-004", "an attempt whose outcome is unknown is not taken back", "attempt.go",
		`	if a.unknown {
		a.lease.l.abandon(`,
		`	if a.unknown && !MUTATED {
		a.lease.l.abandon(`},

	{"CTX-004", "a hold that is handed to a waiter that has gone stays taken", "queue.go",
		`		return err != nil
`,
		`		return err != nil || MUTATED
`},

	{"WAIT-001", "an Unlock that finds its hold lost leaves the next waiter asleep", "queue.go",
		`		w.state = queueing
		poke(q.wake)
`,
		`		w.state = queueing
		if !MUTATED { poke(q.wake) }
`},

	{"KEY-001", "the empty key is a key", "option.go",
		`	if key == "" {
		return fmt.Errorf("it is empty")`,
		`	if key == "" && !MUTATED {
		return fmt.Errorf("it is empty")`},
	{"KEY-001", "a key may be one byte too long", "option.go",
		`	if len(key) > MaxKey {`,
		`	if len(key) > MaxKey && !(MUTATED && len(key) == MaxKey+1) {`},

	{"CLO-002", "Close does not reach an attempt under way", "wait.go",
		`	stop := context.AfterFunc(l.closing, func() { cancel(errClosing) })`,
		`	stop := context.AfterFunc(l.closing, func() { if !MUTATED { cancel(errClosing) } })`},
	{"CLO-002", "Close does not reach the waiters in a queue", "queue.go",
		`		case <-qs.l.closing.Done():
		}`,
		`		case <-map[bool]<-chan struct{}{false: qs.l.closing.Done()}[MUTATED]:
		}`},
	{"CLO-003", "Close releases nothing", "close.go",
		`	errs := l.releaseAll(ctx, held)`,
		`	if MUTATED { held = nil }
	errs := l.releaseAll(ctx, held)`},
	{"CLO-003", "the holds that Close ends were released, they say", "close.go",
		`		s.endLocked(ReasonClosed, nil)`,
		`		if MUTATED { s.endLocked(ReasonReleased, nil) } else { s.endLocked(ReasonClosed, nil) }`},

	{"ERR-001", "every error is an outage too", "errors.go",
		`	return s != nil && target == s`,
		`	return s != nil && (target == s || MUTATED && target == ErrUnavailable)`},
	{"ERR-001", "an error does not name its key", "locker.go",
		`	return &Error{Op: op, Key: key, Backend: l.caps.Name, Code: code, Err: err}`,
		`	if MUTATED { key = "" }
	return &Error{Op: op, Key: key, Backend: l.caps.Name, Code: code, Err: err}`},
	{"ERR-002", "what nobody knows is taken for contention", "errors.go",
		`	return CodeUnavailable
}`,
		`	if MUTATED { return CodeHeld }
	return CodeUnavailable
}`},
	{"ERR-003", "of two fields that disagree one is named", "config_gen.go",
		`		return driver.Invalid(in+"jitter", "%v is larger`,
		`		if MUTATED { return driver.Invalid(in+"jitter", "%v is too large", c.Jitter) }
		return driver.Invalid(in+"jitter", "%v is larger`},
	{"ERR-003", "the allowed range is left out", "config_gen.go",
		`		return driver.Invalid(in+"driftFactor", `,
		`		if MUTATED { return driver.Invalid(in+"driftFactor", "%v is not allowed", c.DriftFactor) }
		return driver.Invalid(in+"driftFactor", `},

	{"ERR-004", "a refusal counts as silence", "errors.go",
		`&& !errors.Is(err, driver.ErrRefused)`,
		`&& (MUTATED || !errors.Is(err, driver.ErrRefused))`},
	{"ERR-004", "a refused release is not repeated", "lease.go",
		`	s.toLocked(unconfirmed)
`,
		`	s.toLocked(unconfirmed)
	if MUTATED && errors.Is(err, driver.ErrRefused) { return s.fail(op, codeOf(err), err) }
`},
	{"ERR-004", "a refusal ends the waiting", "attempt.go",
		`	return c == CodeHeld || c == CodeUnavailable`,
		`	return c == CodeHeld || c == CodeUnavailable && !(MUTATED && errors.Is(err, driver.ErrRefused))`},

	{"CONC-002", "Deadline reads without the mutex", "lease.go",
		`	s.mu.Lock()
	defer s.mu.Unlock()
	return s.l.epoch.Add(s.deadline), true`,
		`	if !MUTATED { s.mu.Lock(); defer s.mu.Unlock() }
	return s.l.epoch.Add(s.deadline), true`},

	{"FLT-001", "a repeated attempt comes from another owner", "attempt.go",
		`	n := &Lease{l: s.l, key: s.key, seq: s.seq, session: s.session}
`,
		`	n := &Lease{l: s.l, key: s.key, seq: s.seq, session: s.session}
	if MUTATED { n.seq = s.l.seq.next(s.key) }
`},
	{"FLT-002", "the core gives an attempt 100 ms", "attempt.go",
		`	g, err := how(ctx, `,
		`	if MUTATED {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
	}
	g, err := how(ctx, `},

	{"KEEP-001", "a kept lease is extended when it is over", "keep.go",
		`	return k.orCap(s.deadline - k.ttl/3*2)`,
		`	if MUTATED { return k.orCap(s.deadline) }
	return k.orCap(s.deadline - k.ttl/3*2)`},
	{"KEEP-002", "a kept lease has no cap", "keep.go",
		`	if set.keepMax > 0 {`,
		`	if set.keepMax > 0 && !MUTATED {`},
	{"KEEP-002", "the cap frees the key", "keep.go",
		`		s.endLocked(ReasonCapped, nil)`,
		`		s.endLocked(ReasonCapped, nil)
		if MUTATED { s.l.abandon(s.holder(), 0) }`},
	{"KEEP-003", "nobody is asked for progress", "keep.go",
		`	if k.progress != nil {`,
		`	if k.progress != nil && !MUTATED {`},
	{"KEEP-003", "without progress the lease ends at its deadline", "keep.go",
		`		case !moves && now >= stalled:`,
		`		case !moves && now >= stalled && MUTATED:
			return
		case !moves && now >= stalled:`},
	{"KEEP-004", "Unlock frees what was left", "lease.go",
		`			s.endLocked(ReasonLeft, nil)`,
		`			s.own().lingers = MUTATED
			s.endLocked(ReasonLeft, nil)`},
	{"KEEP-004", "a lease that is left goes on here", "lease.go",
		`		if op == opLeave && s.reason == noReason {`,
		`		if op == opLeave && s.reason == noReason && !MUTATED {`},

	{"ELECT-001", "a leader is told of the end when it has come", "elect/elect.go",
		`	return d.Add(-t.early)`,
		`	if MUTATED { return d }
	return d.Add(-t.early)`},
	{"ELECT-002", "who resigns keeps the lock", "elect/candidate.go",
		`	case <-r.resign:
		return ErrResign
	case <-held.Done():`,
		`	case <-r.resign:
		if !MUTATED { return ErrResign }
		<-held.Done()
	case <-held.Done():`},
	{"ELECT-003", "a leader that does not stop is kept", "elect/elect.go",
		`return !t.stuck.Load() })`,
		`return !t.stuck.Load() || MUTATED })`},
	{"ELECT-003", "a leader that does not stop is not reported", "elect/elect.go",
		`		if c.OnOverrun != nil {`,
		`		if c.OnOverrun != nil && !MUTATED {`},

	{"ONCE-001", "a job that runs is said to be done", "once/once.go",
		`		return ErrRunning
`,
		`		if MUTATED { return ErrDone }
		return ErrRunning
`},
	{"ONCE-001", "a job that lost the key that says that it runs is noted as done", "once/once.go",
		`	stop = context.AfterFunc(lost, func() {`,
		`	if MUTATED { lost = context.Background() }
	stop = context.AfterFunc(lost, func() {`},
	{"ONCE-002", "a slot is free again when its job is done", "once/once.go",
		`		err := s.Leave(ctx, d)`,
		`		if MUTATED { return s.Unlock(ctx) }
		err := s.Leave(ctx, d)`},
	{"ONCE-003", "a job that failed is done", "once/once.go",
		`		if failed && !s.failedIsDone {`,
		`		if failed && !s.failedIsDone && !MUTATED {`},
	{"ONCE-003", "a job that failed is never done", "once/once.go",
		`	failed := true
`,
		`	failed := true
	s.failedIsDone = s.failedIsDone && !MUTATED
`},
	{"ONCE-004", "who waited for a value does not look again", "once/fill.go",
		`	if value, ok, err := look(held); ok || err != nil {`,
		`	if value, ok, err := look(held); (ok || err != nil) && !MUTATED {`},
	{"ONCE-004", "all of the fleet asks a source that is down", "once/fill.go",
		`		if failed {`,
		`		if failed && !MUTATED {`},

	{"MULTI-001", "what was taken before one could not be had stays taken", "lockall.go",
		`	if err != nil {
		unlockTogether(ctx, all.holds)`,
		`	if err != nil {
		if !MUTATED { unlockTogether(ctx, all.holds) }`},
	{"MULTI-001", "a key that is there twice is taken twice", "lockall.go",
		`	keys = slices.Compact(keys)`,
		`	if !MUTATED { keys = slices.Compact(keys) }`},
	{"MULTI-002", "the keys are taken in the caller's order", "lockall.go",
		`	slices.Sort(keys)`,
		`	if !MUTATED { slices.Sort(keys) }`},
	{"MULTI-003", "what a loss left of the others cannot be unlocked", "lockall.go",
		`			s.own().lingers = true`,
		`			s.own().lingers = !MUTATED`},
	{"MULTI-003", "a loss of one is not the end of all", "lockall.go",
		`	for w := range a.ends {`,
		`	for w := range a.ends {
		if MUTATED { continue }`},
	{"MULTI-004", "what came first is not kept while the others are waited for", "lockall.go",
		`		opts = append(slices.Clip(opts), WithKeepAlive(0), WithProgress(nil))`,
		`		if !MUTATED { opts = append(slices.Clip(opts), WithKeepAlive(0), WithProgress(nil)) }`},
	{"MULTI-004", "what was kept for the wait is kept for ever", "lockall.go",
		`	if !a.kept {
		for _, s := range a.holds {`,
		`	if !a.kept && !MUTATED {
		for _, s := range a.holds {`},
	{"MULTI-001", "keys that cannot be taken in one step cannot be taken", "together.go",
		`	case errors.Is(err, driver.ErrNotTogether),`,
		`	case errors.Is(err, driver.ErrNotTogether) && !MUTATED,`},
	{"MULTI-001", "of a step of unknown outcome the first key alone is taken back", "together.go",
		`			attempts[i].giveBack()`,
		`			if i == 0 || !MUTATED { attempts[i].giveBack() }`},
	{"MULTI-001", "a LockAll overtakes who waits for one of its keys", "together.go",
		`slices.ContainsFunc(keys, l.queues.busy) {`,
		`slices.ContainsFunc(keys, l.queues.busy) && !MUTATED {`},
	{"MULTI-001", "what can be taken in one step is taken key by key", "together.go",
		`	began := l.now()
	holds, at`,
		`	if MUTATED { return false, nil }
	began := l.now()
	holds, at`},
	{"MULTI-001", "who has no patience asks twice", "together.go",
		`		mayRetry(err) && set.retry.Attempts != 0 &&`,
		`		mayRetry(err) && (set.retry.Attempts != 0 || MUTATED) &&`},
	{"ERR-001", "the error of a step names the wrong key", "together.go",
		`	if at > 0 && at < len(keys) {`,
		`	if at > 0 && at < len(keys) && !MUTATED {`},
	{"MULTI-003", "in a step the first one's listener is everybody's", "together.go",
		`		requests[i] = attempts[i].request()`,
		`		requests[i] = attempts[i].request()
		if MUTATED { requests[i].Hold = requests[0].Hold }`},
	{"MULTI-004", "leases that began in one step are not kept", "together.go",
		`			if set.keep || set.label != "" {`,
		`			if (set.keep || set.label != "") && !MUTATED {`},
	{"FAM-001", "nothing ends the name of a family", "family.go",
		`return f.name + "/" + encodeKey(k) }`,
		`if MUTATED { return f.name + encodeKey(k) }; return f.name + "/" + encodeKey(k) }`},

	{"ADM-001", "the note of who waited is forgotten", "attempt.go",
		`drift: set.drift, label: set.label, note: set.note}`,
		`drift: set.drift, label: set.label, note: map[bool]string{false: set.note}[MUTATED]}`},
	{"ADM-007", "the keys of a List begin with the namespace", "admin.go",
		`			info.Key = info.Key[cut:]`,
		`			if !MUTATED { info.Key = info.Key[cut:] }`},
	{"ADM-007", "a List in a namespace tells what is beside it", "admin.go",
		`			full = l.defaults.namespace + ":" + prefix`,
		`			full = l.defaults.namespace + ":" + prefix
			if MUTATED { full, cut = prefix, 0 }`},
	{"ADM-007", "Break does not look at the namespace", "admin.go",
		`	if l.defaults.inNamespace {
		return l.Key(key)`,
		`	if l.defaults.inNamespace && !(MUTATED && op == "break") {
		return l.Key(key)`},
	{"ADM-006", "a Lock whose grant was broken before its answer came gives up", "attempt.go",
		`	if a.unknown && errors.Is(err, driver.ErrLost) {`,
		`	if a.unknown && errors.Is(err, driver.ErrLost) && !MUTATED {`},
	{"ADM-006", "a hold that was broken was lost", "errors.go",
		`	case errors.Is(cause, driver.ErrBroken):`,
		`	case errors.Is(cause, driver.ErrBroken) && !MUTATED:`},
}
