package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// span is the time for which one hold was certainly live, as its holder knows it: from
// the return of Lock to the call of Unlock or to the local deadline, whichever is first.
// Who holds it believes in it during that time, so that two spans of one key must
// never overlap.
//
// An open span would be wrong to use: between the call of Lock and its return, and
// between the call of Unlock and its return, the store may say either.
type span struct {
	client   string
	token    uint64
	call     int64 // when Lock was called, as a number in the order of all events
	from     int64 // when it returned
	to       int64 // when Unlock was called; 0 if the deadline came first
	at       time.Time
	unlockAt time.Time
	deadline time.Time // zero for a session
}

// order numbers the events of one trial. Clocks cannot: in virtual time many things
// happen at one instant.
type order struct{ n atomic.Int64 }

func (o *order) next() int64 { return o.n.Add(1) }

// beforeEnd says whether the instant (n, at) lies certainly before the end of s.
func (s span) beforeEnd(n int64, at time.Time) bool {
	if !s.deadline.IsZero() && !at.Before(s.deadline) {
		return false
	}
	return s.to == 0 || n < s.to
}

func overlap(a, b span) bool { return a.beforeEnd(b.from, b.at) && b.beforeEnd(a.from, a.at) }

// log collects spans by key.
type spanLog struct {
	order
	mu    sync.Mutex
	spans map[string][]span
}

func (l *spanLog) add(key string, s span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spans == nil {
		l.spans = map[string][]span{}
	}
	l.spans[key] = append(l.spans[key], s)
}

// checkSpans makes sure that no two spans of a key overlap (MX-001), and that tokens
// are unique and rise with time (TOK-001, TOK-004): when one grant was known before the
// other was asked for, the other has the greater token.
func (c *trial) checkSpans(l *spanLog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tokens := c.Claim("TOK-001")
	if c.ID == "TOK-004" { // holds that are overtaken all the time
		tokens = c.Claim(c.ID)
	}
	total := 0
	for key, all := range l.spans {
		total += len(all)
		slices.SortFunc(all, func(a, b span) int { return int(a.from - b.from) })
		for i, a := range all {
			for _, b := range all[i+1:] {
				if overlap(a, b) || a.token == b.token || a.from < b.call && a.token > b.token {
					c.Hist.Focus(a.at, b.at)
				}
				switch {
				case overlap(a, b):
					c.Claim("MX-001").Fatal("one live hold of "+c.Short(key)+" at any instant", "two at the same time:\n           %s\n           %s", c.show(a), c.show(b))
				case a.token == b.token:
					tokens.Fatal("every grant of "+c.Short(key)+" has a token of its own", "one token for two grants:\n           %s\n           %s", c.show(a), c.show(b))
				case a.from < b.call && a.token > b.token:
					tokens.Fatal("a grant of "+c.Short(key)+" that was asked for after another one was known has a greater token", "a smaller one:\n           %s, and later\n           %s", c.show(a), c.show(b))
				// Had b been granted before a, it would have been over before a's Unlock was called.
				case a.from < a.to && a.to < b.from && (b.deadline.IsZero() || a.unlockAt.Before(b.deadline)) && a.token > b.token:
					tokens.Fatal("a hold of "+c.Short(key)+" that begins after another one was released has a greater token", "a smaller one:\n           %s, and later\n           %s", c.show(a), c.show(b))
				}
			}
		}
	}
	c.Must(total > 0, "some holds are granted", "none")
}

func (c *trial) show(s span) string {
	since := func(t time.Time) string { return "+" + t.Sub(c.Hist.Start).Round(time.Microsecond).String() }
	text := fmt.Sprintf("%s: token %d, held from %s", s.client, s.token, since(s.at))
	if s.to != 0 {
		text += ", Unlock called at " + since(s.unlockAt)
	}
	if !s.deadline.IsZero() {
		text += ", deadline " + since(s.deadline)
	}
	return text
}

// hammer is workers that take and leave a few keys at random.
type hammer struct {
	clients []*client
	keys    []string
	rounds  int
	ttl     func(*rand.Rand) time.Duration // 0: a session
	stay    time.Duration                  // the longest time between grant and the end of its use
	lapse   bool                           // leases may be left to expire
	lossy   bool                           // somebody deletes holds: a session may be lost
	within  time.Duration                  // no round begins later than that; 0: all do
}

func (c *trial) hammer(h hammer, workers int) *spanLog {
	log := &spanLog{}
	rngs := make([]*rand.Rand, workers)
	for i := range rngs {
		rngs[i] = c.Rand()
	}
	began := time.Now()
	c.Together(workers, func(i int) {
		cl, r := h.clients[i%len(h.clients)], rngs[i]
		for range h.rounds {
			if c.Ctx.Err() != nil || h.within > 0 && time.Since(began) > h.within {
				return
			}
			c.strike(log, h, cl, r)
		}
	})
	return log
}

func (c *trial) strike(log *spanLog, h hammer, cl *client, r *rand.Rand) {
	key := h.keys[r.IntN(len(h.keys))]
	opts := []locker.Option{locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: c.Granularity(), Jitter: c.Granularity()})}
	ttl := h.ttl(r)
	if ttl > 0 {
		opts = append(opts, locker.WithTTL(ttl))
	}
	s := span{client: cl.name, call: log.next()}
	var held *hold
	var err error
	if r.IntN(4) == 0 {
		held, err = cl.try(key, opts...)
	} else {
		ctx, cancel := context.WithTimeout(c.Ctx, c.Limit())
		held, err = cl.lock(ctx, key, opts...)
		over := ctx.Err() != nil
		cancel()
		if h.lossy && err != nil && over && c.Ctx.Err() == nil { // a wake-up was lost with the hold
			c.Claim("WAIT-001").Fatal("Lock gets a key whose holders release or lose it at once", "nothing in %s: %v", c.Limit(), err)
		}
	}
	if err != nil {
		// Refused, or over before the reply came.
		c.Must(errors.Is(err, locker.ErrHeld) || ttl > 0 && errors.Is(err, locker.ErrLost) || c.Ctx.Err() != nil || h.lossy && errors.Is(err, locker.ErrLost),
			"Lock gives a hold or ErrHeld", "%v", err)
		return
	}
	s.at, s.from, s.token = time.Now(), log.next(), held.Token()
	if ttl > 0 {
		s.deadline = held.deadline()
	}
	if d := time.Duration(r.Int64N(int64(h.stay) + 1)); d > 0 {
		c.Sleep(d)
	}
	if ttl > 0 && r.IntN(4) == 0 {
		// The span keeps the earlier deadline: that much was certain.
		if held.extend(ttl) == nil && s.deadline.After(held.deadline()) {
			s.deadline = held.deadline()
		}
	}
	if h.lapse && ttl > 0 && r.IntN(3) == 0 {
		log.add(key, s)
		select {
		case <-held.Done():
		case <-c.Ctx.Done():
		}
		return
	}
	if h.lossy {
		// Whether the hold was still there when it was deleted is not known: only the
		// token counts.
		s.to, s.unlockAt = s.from, s.at
		log.add(key, s)
		_ = held.unlock()
		return
	}
	s.unlockAt = time.Now()
	s.to = log.next()
	log.add(key, s)
	if err := held.unlock(); err != nil && c.Ctx.Err() == nil {
		c.Must(ttl > 0 && errors.Is(err, locker.ErrLost), "Unlock of what is held gives nil, or ErrLost once a lease has expired", "%v", err)
	}
}
