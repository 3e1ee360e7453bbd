package conformance

import (
	"context"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// onAcquire, onExtend and onRelease put fn before what the reference does, with the store's
// mutex held; e is what stands under the key, if ok.
func (m *mutant) onAcquire(fn func(r *driver.Request, e *refEntry, ok bool)) {
	acquire := m.acquire
	m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
		m.at(r.Key, func(e *refEntry, ok bool) { fn(&r, e, ok) })
		return acquire(ctx, r)
	}
}

func (m *mutant) onExtend(fn func(h *driver.Holder, ttl time.Duration, e *refEntry, ok bool)) {
	extend := m.extend
	m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
		m.at(h.Key, func(e *refEntry, ok bool) { fn(&h, ttl, e, ok) })
		return extend(ctx, h, ttl)
	}
}

func (m *mutant) onRelease(fn func(h *driver.Holder, e *refEntry, ok bool)) {
	release := m.release
	m.release = func(ctx context.Context, h driver.Holder) error {
		m.at(h.Key, func(e *refEntry, ok bool) { fn(&h, e, ok) })
		return release(ctx, h)
	}
}

// at lets fn change what stands under key.
func (m *mutant) at(key string, fn func(e *refEntry, ok bool)) {
	m.locked(func() {
		e, ok := m.live(key)
		if fn(&e, ok); ok {
			m.m[key] = e
		}
	})
}

// foreign says that r asks for a key that another owner holds as a lease.
func foreign(e *refEntry, ok bool, o driver.Owner) bool { return ok && e.Owner != o && !e.Session() }

// refusedMutants do something although they refuse to.
var refusedMutants = []brokenBackend{
	{"a refused attempt prolongs the holder's lease", "MX-001", func(m *mutant) {
		m.onAcquire(func(r *driver.Request, e *refEntry, ok bool) {
			if foreign(e, ok, r.Owner) {
				e.until = e.until.Add(time.Second)
			}
		})
	}},
	{"a refused attempt ends the holder's lease at its own ttl", "MX-001", func(m *mutant) {
		m.onAcquire(func(r *driver.Request, e *refEntry, ok bool) {
			if foreign(e, ok, r.Owner) && r.TTL > 0 && r.TTL < 5*time.Millisecond {
				e.until = m.now().Add(r.TTL)
			}
		})
	}},
	{"a refused attempt takes the holder's token", "MX-001", func(m *mutant) {
		m.onAcquire(func(r *driver.Request, e *refEntry, ok bool) {
			if ok && e.Owner != r.Owner {
				m.token++
				e.token = m.token
			}
		})
	}},
	{"a refused attempt by the same instance ends the renewal of a session", "MX-001", func(m *mutant) {
		m.onAcquire(func(r *driver.Request, e *refEntry, ok bool) {
			if ok && e.Owner != r.Owner && e.Session() {
				m.forget(func(s *keptSession) bool { return s.Key == r.Key && s.Owner.Instance == r.Owner.Instance })
			}
		})
	}},
	{"a refused attempt tells the holder that it is lost", "MX-001", func(m *mutant) {
		m.onAcquire(func(r *driver.Request, e *refEntry, ok bool) {
			if ok && e.Owner != r.Owner {
				e.Hold.Lost(driver.ErrLost)
			}
		})
	}},
	{"of two who ask at the same moment both are granted", "MX-001", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			free := false
			m.at(r.Key, func(_ *refEntry, ok bool) { free = !ok })
			time.Sleep(10 * time.Microsecond)
			if free {
				m.locked(func() { delete(m.m, r.Key) })
			}
			return acquire(ctx, r)
		}
	}},
	{"owners of one instance are one", "MX-003", func(m *mutant) {
		m.onAcquire(func(r *driver.Request, e *refEntry, ok bool) {
			if ok && e.Owner.Instance == r.Owner.Instance {
				e.Owner = r.Owner
			}
		})
	}},
	{"owners of one number are one", "MX-003", func(m *mutant) {
		m.onAcquire(func(r *driver.Request, e *refEntry, ok bool) {
			if ok && e.Owner.Seq == r.Owner.Seq {
				e.Owner = r.Owner
			}
		})
	}},

	{"a refused Extend has prolonged the lease before it looks at the owner", "EXT-002", func(m *mutant) {
		m.onExtend(func(h *driver.Holder, ttl time.Duration, e *refEntry, ok bool) {
			if foreign(e, ok, h.Owner) {
				e.until = m.now().Add(ttl)
			}
		})
	}},
	{"a refused Extend shortens the lease", "EXT-002", func(m *mutant) {
		m.onExtend(func(h *driver.Holder, ttl time.Duration, e *refEntry, ok bool) {
			if end := m.now().Add(ttl); foreign(e, ok, h.Owner) && end.Before(e.until) {
				e.until = end
			}
		})
	}},
	{"Extend by another owner of the instance is as good as the holder's", "EXT-002", func(m *mutant) {
		m.onExtend(func(h *driver.Holder, _ time.Duration, e *refEntry, ok bool) {
			if ok && e.Owner.Instance == h.Owner.Instance {
				h.Owner = e.Owner
			}
		})
	}},
	{"Extend goes by the token alone", "EXT-002", func(m *mutant) {
		m.onExtend(func(h *driver.Holder, _ time.Duration, e *refEntry, ok bool) {
			if ok && e.token == h.Token {
				h.Owner = e.Owner
			}
		})
	}},
	{"Extend looks first and acts then", "EXT-002", func(m *mutant) {
		extend := m.extend
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
			mine := false
			m.at(h.Key, func(e *refEntry, ok bool) { mine = ok && e.Owner == h.Owner })
			if mine {
				time.Sleep(300 * time.Microsecond)
				m.at(h.Key, func(e *refEntry, ok bool) { e.until = m.now().Add(ttl) })
				m.wakes.Wake(h.Key)
				return driver.Grant{Token: h.Token, TTL: ttl}, nil
			}
			return extend(ctx, h, ttl)
		}
	}},

	{"Release by another owner of the instance frees", "REL-002", func(m *mutant) {
		m.onRelease(func(h *driver.Holder, e *refEntry, ok bool) {
			if ok && e.Owner.Instance == h.Owner.Instance {
				h.Owner = e.Owner
			}
		})
	}},
	{"Release by an owner of the same number frees", "REL-002", func(m *mutant) {
		m.onRelease(func(h *driver.Holder, e *refEntry, ok bool) {
			if ok && e.Owner.Seq == h.Owner.Seq {
				h.Owner = e.Owner
			}
		})
	}},
	{"Release goes by the token alone", "REL-002", func(m *mutant) {
		m.onRelease(func(h *driver.Holder, e *refEntry, ok bool) {
			if ok && e.token == h.Token {
				h.Owner = e.Owner
			}
		})
	}},
	{"Release without a token frees whoever has the key", "REL-002", func(m *mutant) {
		m.onRelease(func(h *driver.Holder, e *refEntry, ok bool) {
			if ok && h.Token == 0 {
				h.Owner = e.Owner
			}
		})
	}},
	{"a refused Release ends the renewal of the session that it does not own", "REL-002", func(m *mutant) {
		m.broken.forgetsKey = true
	}},
	{"a refused Release shortens the lease", "REL-002", func(m *mutant) {
		m.onRelease(func(h *driver.Holder, e *refEntry, ok bool) {
			if foreign(e, ok, h.Owner) {
				e.until = e.until.Add(-time.Since(e.until.Add(-e.TTL)) / 2)
			}
		})
	}},
	{"a refused Release with a ctx that has ended is carried out", "REL-002", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			if ctx.Err() != nil {
				m.locked(func() { delete(m.m, h.Key) })
			}
			return release(ctx, h)
		}
	}},
	{"Release looks first and acts then", "REL-002", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			mine := false
			m.at(h.Key, func(e *refEntry, ok bool) { mine = ok && e.Owner == h.Owner })
			if mine {
				time.Sleep(300 * time.Microsecond)
				m.forgetHolder(h)
				m.locked(func() { delete(m.m, h.Key) })
				m.wakes.Wake(h.Key)
				return nil
			}
			return release(ctx, h)
		}
	}},
	{"a late Release of the same client frees the next hold", "REL-002", func(m *mutant) {
		mine := map[string]driver.Owner{}
		m.granted(func(r driver.Request, _ *driver.Grant) { m.locked(func() { mine[r.Key] = r.Owner }) })
		m.onRelease(func(h *driver.Holder, e *refEntry, ok bool) {
			if ok && mine[h.Key] == e.Owner {
				h.Owner = e.Owner
			}
		})
	}},
}

// repeatMutants bear the repetition of an attempt badly.
var repeatMutants = []brokenBackend{
	{"a repeat does not restart the ttl", "FLT-001", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			var until time.Time
			m.at(r.Key, func(e *refEntry, ok bool) {
				if ok && e.Owner == r.Owner {
					until = e.until
				}
			})
			g, err := acquire(ctx, r)
			if err == nil && !until.IsZero() && !r.Session() {
				m.at(r.Key, func(e *refEntry, _ bool) { e.until = until })
			}
			return g, err
		}
	}},
	{"a repeat adds its ttl to what was left", "FLT-001", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			var left time.Duration
			m.at(r.Key, func(e *refEntry, ok bool) {
				if ok && e.Owner == r.Owner {
					left = e.until.Sub(m.now())
				}
			})
			g, err := acquire(ctx, r)
			if err == nil && !r.Session() {
				m.at(r.Key, func(e *refEntry, _ bool) { e.until = e.until.Add(left) })
			}
			return g, err
		}
	}},
	{"after a repeat the first listener hears", "FLT-001", func(m *mutant) {
		first := map[driver.Owner]driver.Listener{}
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			m.locked(func() {
				if first[r.Owner] == nil {
					first[r.Owner] = r.Hold
				}
				r.Hold = first[r.Owner]
			})
			return acquire(ctx, r)
		}
	}},
	{"after a repeat the listeners of all attempts hear", "FLT-001", func(m *mutant) {
		all := map[driver.Owner]listeners{}
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			m.locked(func() {
				all[r.Owner] = append(all[r.Owner], r.Hold)
				r.Hold = all[r.Owner]
			})
			return acquire(ctx, r)
		}
	}},
	{"a session whose attempt was repeated is renewed for the first listener", "FLT-001", func(m *mutant) {
		m.broken.first = true
		m.losses(func(error) error { return nil })
	}},
	{"a session whose attempt was repeated is not renewed", "FLT-001", func(m *mutant) {
		m.onAcquire(func(r *driver.Request, e *refEntry, ok bool) {
			if ok && e.Owner == r.Owner && r.Session() {
				time.AfterFunc(time.Millisecond, func() { m.forgetHolder(driver.Holder{Key: r.Key, Owner: r.Owner}) })
			}
		})
	}},
	{"a repeat needs a second release", "FLT-001", func(m *mutant) {
		repeats := map[driver.Owner]int{}
		m.onAcquire(func(r *driver.Request, e *refEntry, ok bool) {
			if ok && e.Owner == r.Owner {
				repeats[r.Owner]++
			}
		})
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			again := false
			m.locked(func() {
				again = repeats[h.Owner] > 0
				repeats[h.Owner]--
			})
			if again {
				return nil
			}
			return release(ctx, h)
		}
	}},
	{"a repeat takes the key back from the next holder", "FLT-001", func(m *mutant) {
		known := map[driver.Owner]bool{}
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			m.locked(func() {
				if known[r.Owner] {
					if e, ok := m.live(r.Key); ok && e.Owner != r.Owner {
						delete(m.m, r.Key)
					}
				}
			})
			g, err := acquire(ctx, r)
			if err == nil {
				m.locked(func() { known[r.Owner] = true })
			}
			return g, err
		}
	}},
	{"an owner whose hold has expired gets the old token again", "TOK-001", func(m *mutant) {
		tokens := map[driver.Owner]uint64{}
		m.granted(func(r driver.Request, g *driver.Grant) {
			m.locked(func() {
				if t := tokens[r.Owner]; t != 0 {
					g.Token = t
				}
				tokens[r.Owner] = g.Token
			})
		})
	}},
}

type listeners []driver.Listener

func (all listeners) Lost(cause error) {
	for _, l := range all {
		l.Lost(cause)
	}
}

// sessionMutants keep sessions alive in a wrong way.
var sessionMutants = []brokenBackend{
	{"64 sessions are renewed", "SES-001", func(m *mutant) { m.broken.most = 64 }},
	{"a lost session ends the round of renewals", "SES-001", func(m *mutant) {
		m.broken.stops = true
		m.every = refSession * 2 / 5 // one more round is too late
	}},
	{"a lost session ends all renewals", "SES-001", func(m *mutant) { m.broken.stopsForGood = true }},
	{"a lost session takes its batch along", "SES-001", func(m *mutant) { m.broken.takesAll = true }},
	{"sessions are renewed at 95 % of their validity", "SES-001", func(m *mutant) { m.every = refSession * 95 / 100 }},
	{"SessionErr believes in nothing", "SES-001", func(m *mutant) { m.broken.extra = -refSession }},
	{"what is released is renewed", "SES-002", func(m *mutant) { m.broken.forgetsNone, m.broken.byKey, m.broken.resurrects = true, true, true }},
	{"a session is renewed after a release that failed", "SES-002", func(m *mutant) { m.broken.forgetsLast = true }},
	{"a renewal brings back what is gone", "SES-002", func(m *mutant) { m.broken.resurrects = true; m.losses(func(error) error { return nil }) }},
	{"a renewal goes by the key alone", "SES-002", func(m *mutant) { m.broken.byKey = true; m.losses(func(error) error { return nil }) }},
	{"a renewal that finds nothing tells nobody", "SES-002", func(m *mutant) { m.broken.silent = true; m.losses(func(error) error { return nil }) }},
	{"a session is released only if it has a token", "CTX-004", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			if h.Session && h.Token == 0 {
				return nil
			}
			return release(ctx, h)
		}
	}},
}
