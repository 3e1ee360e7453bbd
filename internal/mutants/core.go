package main

// A change makes one mutant of the core: where old stands in file, new stands instead, in
// which the word MUTATED is true when the mutant is chosen.
type change struct {
	clause, name   string
	file, old, new string
}

// core is the broken cores, each with the clause that must fail it.
var core = []change{
	{"TTL-001", "no attempt is made when the holder's time is up", "wait.go",
		`if rest, ok := driver.Remaining(err); ok && rest >= 0 {`,
		`if rest, ok := driver.Remaining(err); ok && rest >= 0 && !MUTATED {`},
	{"TTL-001", "nobody is called when the time of what was passed on is up", "line.go",
		`		if left := q.due - l.now(); !wakened && left > 0 {`,
		`		if left := q.due - l.now(); !wakened && (left > 0 || MUTATED) {
			if MUTATED { left = time.Hour }`},
	{"TTL-001", "a hold that was passed on for less time ends with the one before", "line.go",
		`		case q.attended && q.due < q.armed:`,
		`		case q.attended && q.due < q.armed && !MUTATED:`},
	{"TTL-002", "the local deadline counts from the reply", "locker.go",
		`	if !g.From.IsZero() {`,
		`	if MUTATED { sent = l.now() }
	if !g.From.IsZero() {`},
	{"TTL-003", "a ttl is rounded down", "option.go",
		`	return (d + time.Millisecond - 1) / time.Millisecond * time.Millisecond`,
		`	if MUTATED { return d / time.Millisecond * time.Millisecond }
	return (d + time.Millisecond - 1) / time.Millisecond * time.Millisecond`},

	{"EXT-003", "an Extend whose outcome is unknown is believed", "lease.go",
		`s.setDeadline(min(s.deadline, s.l.localDeadline(sent, d, s.seldom().drift)))`,
		`if MUTATED { s.setDeadline(s.l.localDeadline(sent, d, s.seldom().drift)) } else { s.setDeadline(min(s.deadline, s.l.localDeadline(sent, d, s.seldom().drift))) }`},
	{"EXT-003", "an Extend whose outcome is unknown changes nothing", "lease.go",
		`		s.own().doubtful = true // the backend may not end it at the earlier time`,
		`		if MUTATED { return s.fail(op, Unavailable, err) }
		s.own().doubtful = true // the backend may not end it at the earlier time`},
	{"EXT-003", "a hold is passed on although an Extend may yet arrive", "line.go",
		`	return s.seldom().doubtful || s.seldom().late > 0 || bool(s.extending)`,
		`	return !MUTATED && (s.seldom().doubtful || s.seldom().late > 0 || bool(s.extending))`},
	{"EXT-003", "a hold is passed on while an Extend is under way", "line.go",
		`func (s *Lease) mayBeChanged() bool {`,
		`func (s *Lease) mayBeChanged() bool {
	if MUTATED {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.seldom().doubtful || s.seldom().late > 0
	}`},
	{"EXT-004", "a session can be extended", "lease.go",
		`	if s.session {
		return s.fail(op, Unsupported,`,
		`	if s.session && !MUTATED {
		return s.fail(op, Unsupported,`},

	{"REL-001", "who is passed a hold releases it by its own name", "locker.go",
		`	if g.Owner != (driver.Owner{}) {
		s.seq = g.Owner.Seq // it`,
		`	if g.Owner != (driver.Owner{}) && !MUTATED {
		s.seq = g.Owner.Seq // it`},

	{"REL-003", "a second Unlock asks the backend again", "lease.go",
		`	if s.reason != 0 && !again {`,
		`	if s.reason != 0 && !again {
		if MUTATED { _ = s.l.backend.Release(ctx, s.holder()) }`},
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
		`if s.session || s.l.now() < s.deadline {`,
		`if !MUTATED && (s.session || s.l.now() < s.deadline) {`},
	{"REL-005", "a release that was not confirmed is not repeated", "lease.go",
		`			s.l.abandon(s.holder(), s.left())`,
		`			if !MUTATED { s.l.abandon(s.holder(), s.left()) }`},

	{"LOSS-001", "no timer ends a hold", "lease.go",
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
	{"LOSS-004", "a Context ends without the cause", "lease.go",
		`				w.cancel(err)`,
		`				if MUTATED { w.cancel(context.Canceled) } else { w.cancel(err) }`},
	{"LOSS-004", "Do passes on the caller's ctx", "do.go",
		`	return fn(held)`,
		`	if MUTATED { return fn(ctx) }
	return fn(held)`},

	{"WAIT-001", "wake-ups are not asked for", "line.go",
		`		if l.notifier != nil {
			q.stop`,
		`		if l.notifier != nil && !MUTATED {
			q.stop`},
	{"WAIT-001", "while holds are passed on nobody hears a wake-up", "line.go",
		`			wakened = true
`,
		`			wakened = !MUTATED
`},
	{"WAIT-002", "an early wake-up uses up an attempt", "wait.go",
		`		case <-wakes(q, inFront):
			try = true`,
		`		case <-wakes(q, inFront):
			try = true
			if MUTATED && left > 0 { left-- }`},
	{"WAIT-002", "one attempt too many", "wait.go",
		`	left := r.Attempts`,
		`	left := r.Attempts
	if MUTATED { left++ }`},
	{"WAIT-003", "who leaves the line calls nobody to the front", "line.go",
		`} else if q.line = q.line[1:]; len(q.line) > 0 {`,
		`} else if q.line = q.line[1:]; len(q.line) > 0 && !MUTATED {`},
	{"WAIT-003", "a wake-up that comes beside an offer is lost", "line.go",
		`		if w.missed {`,
		`		if w.missed && !MUTATED {`},
	{"WAIT-004", "a hold is passed to who came last", "line.go",
		`	w.state = offered
	return q, w`,
		`	if last := len(q.line) - 1; MUTATED && q.line[last].state == parked && !q.line[last].s.session {
		q.line[0], q.line[last] = q.line[last], q.line[0]
		w = q.line[0]
	}
	w.state = offered
	return q, w`},
	{"WAIT-004", "who came last is served first", "line.go",
		`	q.line = append(q.line, w)`,
		`	if MUTATED && len(q.line) > 1 {
		q.line = append([]*waiting{q.line[0], w}, q.line[1:]...)
		return q, w
	}
	q.line = append(q.line, w)`},
	{"WAIT-005", "Extend is tried again", "lease.go",
		`	grant, err := s.l.backend.Extend(ctx, s.holder(), d)`,
		`	grant, err := s.l.backend.Extend(ctx, s.holder(), d)
	for n := 0; MUTATED && err != nil && n < 3; n++ {
		grant, err = s.l.backend.Extend(ctx, s.holder(), d)
	}`},
	{"WAIT-005", "Unlock is patient with a refusal", "lease.go",
		`	err = s.l.release(ctx, s, !again)`,
		`	for err = s.l.release(ctx, s, !again); MUTATED && err != nil && ctx.Err() == nil && time.Since(s.l.epoch) < time.Hour; {
		time.Sleep(DefaultDelay)
		err = s.l.release(ctx, s, !again)
	}`},
	{"WAIT-006", "an outage ends the waiting", "wait.go",
		`	return c == Held || c == Unavailable`,
		`	return c == Held || c == Unavailable && !MUTATED`},

	{"CTX-001", "an attempt is made although the ctx has ended", "locker.go",
		`	if ctx.Err() != nil {
		return nil, l.fail(op, key, Canceled`,
		`	if ctx.Err() != nil && !MUTATED {
		return nil, l.fail(op, key, Canceled`},
	{"CTX-002", "a hold ends with the ctx of its Lock", "locker.go",
		`	return s, nil
}

func (l *Locker) newLease(`,
		`	if MUTATED { context.AfterFunc(ctx, func() { (*listener)(s).Lost(driver.ErrLost) }) }
	return s, nil
}

func (l *Locker) newLease(`},
	{"CTX-003", "who gives up is not told of the ctx", "locker.go",
		`	if ctx.Err() == nil || errors.Is(err, ctx.Err())`,
		`	if MUTATED || ctx.Err() == nil || errors.Is(err, ctx.Err())`},
	{"CTX-003", "the first obstacle is reported, not the last", "line.go",
		`	q.last = err`,
		`	if !MUTATED { q.last = err }`},
	{"CTX-004", "an attempt whose outcome is unknown is not taken back", "wait.go",
		`	if s.unknown {
		l.abandon(`,
		`	if s.unknown && !MUTATED {
		l.abandon(`},

	{"CTX-004", "a hold that is passed to one who has gone stays taken", "line.go",
		`		return !granted
`,
		`		return !granted || MUTATED
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
	{"CLO-002", "Close does not reach who stands in line", "wait.go",
		`		case <-l.closing.Done():
		}`,
		`		case <-map[bool]<-chan struct{}{false: l.closing.Done()}[MUTATED]:
		}`},
	{"CLO-003", "Close releases nothing", "locker.go",
		`	errs := l.releaseAll(ctx, held)`,
		`	if MUTATED { held = nil }
	errs := l.releaseAll(ctx, held)`},
	{"CLO-003", "the holds that Close ends were released, they say", "locker.go",
		`		s.end(ReasonClosed, nil)`,
		`		if MUTATED { s.end(ReasonReleased, nil) } else { s.end(ReasonClosed, nil) }`},

	{"ERR-001", "every error is an outage too", "errors.go",
		`	return s != nil && target == s`,
		`	return s != nil && (target == s || MUTATED && target == ErrUnavailable)`},
	{"ERR-001", "an error does not name its key", "locker.go",
		`	return &Error{Op: op, Key: key, Backend: l.caps.Name, Code: code, Err: err}`,
		`	if MUTATED { key = "" }
	return &Error{Op: op, Key: key, Backend: l.caps.Name, Code: code, Err: err}`},
	{"ERR-002", "what nobody knows is taken for contention", "errors.go",
		`	return Unavailable
}`,
		`	if MUTATED { return Held }
	return Unavailable
}`},
	{"ERR-003", "of two fields that disagree one is named", "config_gen.go",
		`		return driver.Invalid(in+"jitter", "%v is larger`,
		`		if MUTATED { return driver.Invalid(in+"jitter", "%v is too large", c.Jitter) }
		return driver.Invalid(in+"jitter", "%v is larger`},
	{"ERR-003", "the allowed range is left out", "config_gen.go",
		`		return driver.Invalid(in+"driftFactor", `,
		`		if MUTATED { return driver.Invalid(in+"driftFactor", "%v is not allowed", c.DriftFactor) }
		return driver.Invalid(in+"driftFactor", `},

	{"CONC-002", "Deadline reads without the mutex", "lease.go",
		`	s.mu.Lock()
	defer s.mu.Unlock()
	return s.l.epoch.Add(s.deadline), true`,
		`	if !MUTATED { s.mu.Lock(); defer s.mu.Unlock() }
	return s.l.epoch.Add(s.deadline), true`},

	{"FLT-001", "a repeated attempt comes from another owner", "locker.go",
		`	if s.unknown {
		hold = s.again()`,
		`	if s.unknown {
		if MUTATED { s.seq = l.seq.next(s.key) }
		hold = s.again()`},
	{"FLT-002", "the core gives an attempt 100 ms", "locker.go",
		`	g, err := acquire(ctx, r)`,
		`	if MUTATED {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
	}
	g, err := acquire(ctx, r)`},
}
