package conformance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// A mutant is a backend with one fault in it. The suite is tested by them: each must be
// failed by the clause that it breaks.
type mutant struct {
	*reference
	acquire func(context.Context, driver.Request) (driver.Grant, error)
	extend  func(context.Context, driver.Holder, time.Duration) (driver.Grant, error)
	release func(context.Context, driver.Holder) error
	handOff func(context.Context, driver.Holder, driver.Request) (driver.Handed, error)
	all     func(context.Context, []driver.Request) ([]driver.Grant, int, error)
	close   func(context.Context) error
	notify  func(string, func()) func()
	caps    func() driver.Capabilities
	inspect func(context.Context, string) (driver.Info, bool, error)
	ping    func(context.Context) error
	list    func(context.Context, string) iter.Seq2[driver.Info, error]
	brk     func(context.Context, string, uint64) error
	races   int // what only racyMutants use
}

func (m *mutant) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	return m.acquire(ctx, r)
}
func (m *mutant) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	return m.extend(ctx, h, ttl)
}
func (m *mutant) Release(ctx context.Context, h driver.Holder) error { return m.release(ctx, h) }
func (m *mutant) HandOff(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
	return m.handOff(ctx, h, r)
}
func (m *mutant) AcquireAll(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
	return m.all(ctx, rs)
}
func (m *mutant) Close(ctx context.Context) error       { return m.close(ctx) }
func (m *mutant) Capabilities() driver.Capabilities     { return m.caps() }
func (m *mutant) Notify(key string, wake func()) func() { return m.notify(key, wake) }
func (m *mutant) Ping(ctx context.Context) error        { return m.ping(ctx) }
func (m *mutant) Inspect(ctx context.Context, key string) (driver.Info, bool, error) {
	return m.inspect(ctx, key)
}

func (m *mutant) List(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
	return m.list(ctx, prefix)
}
func (m *mutant) Break(ctx context.Context, key string, token uint64) error {
	return m.brk(ctx, key, token)
}

// locked runs fn under the store's mutex.
func (m *mutant) locked(fn func()) {
	m.refStore.mu.Lock()
	defer m.refStore.mu.Unlock()
	fn()
}

// renamed makes m use rename(key) wherever it is asked for key.
func (m *mutant) renamed(rename func(string) string) {
	b := m.reference
	m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
		r.Key = rename(r.Key)
		return b.Acquire(ctx, r)
	}
	m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
		h.Key = rename(h.Key)
		return b.Extend(ctx, h, ttl)
	}
	m.release = func(ctx context.Context, h driver.Holder) error {
		h.Key = rename(h.Key)
		return b.Release(ctx, h)
	}
	m.handOff = func(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
		h.Key, r.Key = rename(h.Key), rename(r.Key)
		return b.HandOff(ctx, h, r)
	}
	m.notify = func(key string, wake func()) func() { return b.Notify(rename(key), wake) }
}

// granted lets fn change what Acquire has granted.
func (m *mutant) granted(fn func(driver.Request, *driver.Grant)) {
	acquire := m.acquire
	m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
		g, err := acquire(ctx, r)
		if err == nil {
			fn(r, &g)
		}
		return g, err
	}
}

// afterExtend lets fn change the entry that Extend has extended.
func (m *mutant) afterExtend(fn func(e *refEntry, before time.Time, ttl time.Duration)) {
	extend := m.extend
	m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (g driver.Grant, err error) {
		var before time.Time
		m.locked(func() { before = m.m[h.Key].until })
		if g, err = extend(ctx, h, ttl); err == nil {
			m.locked(func() {
				e := m.m[h.Key]
				fn(&e, before, ttl)
				m.m[h.Key] = e
			})
		}
		return g, err
	}
}

// handedOff lets fn change the entry that HandOff has handed off, and the grant.
func (m *mutant) handedOff(fn func(e *refEntry, before refEntry, g *driver.Grant)) {
	handOff := m.handOff
	m.handOff = func(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
		var before refEntry
		m.locked(func() { before = m.m[h.Key] })
		g, err := handOff(ctx, h, r)
		if err == nil {
			m.locked(func() {
				e := m.m[h.Key]
				fn(&e, before, &g.Grant)
				m.m[h.Key] = e
			})
		}
		return g, err
	}
}

// brokenBackend is a mutant of the reference, with the clause that must fail it.
type brokenBackend struct {
	name   string
	clause string
	alter  func(m *mutant)
}

// mutants are all of them.
var mutants = slices.Concat(basicMutants, refusedMutants, repeatMutants, scaleMutants, nameMutants, orderMutants, leakMutants, sessionMutants, inspectMutants, adminMutants, togetherMutants)

var basicMutants = []brokenBackend{
	{"every 7th attempt is granted although the key is held", "MX-001", func(m *mutant) {
		var n atomic.Int64
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			g, err := acquire(ctx, r)
			if errors.Is(err, driver.ErrHeld) && n.Add(1)%7 == 0 {
				m.locked(func() {
					m.token++
					g = driver.Grant{Token: m.token, TTL: r.TTL}
				})
				return g, nil
			}
			return g, err
		}
	}},
	{"a hold that was passed on is refused to nobody", "MX-001", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			m.locked(func() {
				if e, ok := m.live(r.Key); ok && e.passes > 0 && e.Owner != r.Owner {
					delete(m.m, r.Key)
				}
			})
			return acquire(ctx, r)
		}
	}},
	{"one lock for all keys", "MX-002", func(m *mutant) { m.renamed(func(string) string { return "the lock" }) }},
	{"an attempt that is refused keeps its client's one connection for a while", "MX-002", func(m *mutant) {
		connection := make(chan struct{}, 1)
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			connection <- struct{}{}
			defer func() { <-connection }()
			g, err := acquire(ctx, r)
			if errors.Is(err, driver.ErrHeld) {
				time.Sleep(20 * time.Millisecond)
			}
			return g, err
		}
	}},
	{"re-entrant within a process", "MX-003", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			m.locked(func() {
				if e, ok := m.live(r.Key); ok && e.Owner.Instance == r.Owner.Instance {
					e.Owner = r.Owner
					m.m[r.Key] = e
				}
			})
			return acquire(ctx, r)
		}
	}},
	{"leases and sessions are kept apart", "MX-004", func(m *mutant) {
		b := m.reference
		name := func(key string, session bool) string { return fmt.Sprint(session, key) }
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			r.Key = name(r.Key, r.Session())
			return b.Acquire(ctx, r)
		}
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
			h.Key = name(h.Key, h.Session)
			return b.Extend(ctx, h, ttl)
		}
		m.release = func(ctx context.Context, h driver.Holder) error {
			h.Key = name(h.Key, h.Session)
			return b.Release(ctx, h)
		}
		m.handOff = func(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
			h.Key, r.Key = name(h.Key, h.Session), name(r.Key, r.Session())
			return b.HandOff(ctx, h, r)
		}
	}},

	{"a lease never expires", "TTL-001", func(m *mutant) {
		m.granted(func(r driver.Request, _ *driver.Grant) {
			m.locked(func() { e := m.m[r.Key]; e.until = time.Time{}; m.m[r.Key] = e })
		})
	}},
	{"a lease expires late", "TTL-001", func(m *mutant) {
		m.granted(func(r driver.Request, _ *driver.Grant) {
			m.locked(func() {
				if e := m.m[r.Key]; r.TTL > 0 {
					e.until = e.until.Add(40 * time.Millisecond)
					m.m[r.Key] = e
				}
			})
		})
	}},
	{"a lease that was passed on lasts as long as the one before would have", "TTL-001", func(m *mutant) {
		m.handedOff(func(e *refEntry, before refEntry, _ *driver.Grant) {
			if before.until.After(e.until) {
				e.until = before.until
			}
		})
	}},
	{"a lease is passed on with a life that the store has not given it", "TTL-002", func(m *mutant) {
		m.handedOff(func(e *refEntry, before refEntry, _ *driver.Grant) {
			if before.until.Before(e.until) {
				e.until = before.until
			}
		})
	}},
	{"a lease expires early", "TTL-002", func(m *mutant) {
		m.granted(func(r driver.Request, _ *driver.Grant) {
			m.locked(func() {
				if e := m.m[r.Key]; r.TTL > 0 {
					e.until = e.until.Add(-r.TTL / 4)
					m.m[r.Key] = e
				}
			})
		})
	}},
	{"a lease of 1 ms lasts a second", "TTL-003", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			if r.TTL > 0 && r.TTL < 10*time.Millisecond {
				r.TTL = time.Second
			}
			return acquire(ctx, r)
		}
	}},
	{"a lease dies with its client", "TTL-004", func(m *mutant) {
		closing := m.close
		m.close = func(ctx context.Context) error {
			m.locked(func() { clear(m.m) })
			return closing(ctx)
		}
	}},

	{"Extend adds", "EXT-001", func(m *mutant) {
		m.afterExtend(func(e *refEntry, before time.Time, ttl time.Duration) { e.until = before.Add(ttl) })
	}},
	{"Extend never shortens", "EXT-001", func(m *mutant) {
		m.afterExtend(func(e *refEntry, before time.Time, _ time.Duration) {
			if before.After(e.until) {
				e.until = before
			}
		})
	}},
	{"Extend of what was passed on changes nothing", "EXT-001", func(m *mutant) {
		m.afterExtend(func(e *refEntry, before time.Time, _ time.Duration) {
			if e.passes > 0 {
				e.until = before
			}
		})
	}},
	{"Extend resurrects", "EXT-002", func(m *mutant) {
		extend := m.extend
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
			m.locked(func() {
				if e := m.m[h.Key]; e.Owner == h.Owner { // whether its time is up or not
					e.until = m.now().Add(ttl)
					m.m[h.Key] = e
				}
			})
			return extend(ctx, h, ttl)
		}
	}},
	{"Extend looks at the key only", "EXT-002", func(m *mutant) {
		extend := m.extend
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
			m.locked(func() {
				if e, ok := m.live(h.Key); ok {
					h.Owner = e.Owner
				}
			})
			return extend(ctx, h, ttl)
		}
	}},

	{"Release takes effect later", "REL-001", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			time.AfterFunc(5*time.Millisecond, func() { _ = release(context.Background(), h) })
			return nil
		}
	}},
	{"Release of what was passed on has no effect", "REL-001", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			passed := false
			m.locked(func() { e, ok := m.live(h.Key); passed = ok && e.Owner == h.Owner && e.passes > 0 })
			if passed {
				return nil
			}
			return release(ctx, h)
		}
	}},
	{"HandOff takes the key from the next holder", "REL-002", func(m *mutant) {
		handOff := m.handOff
		m.handOff = func(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
			m.locked(func() {
				if e, ok := m.live(h.Key); ok {
					h.Owner = e.Owner
				}
			})
			return handOff(ctx, h, r)
		}
	}},
	{"HandOff brings back what is over", "REL-002", func(m *mutant) {
		handOff := m.handOff
		m.handOff = func(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
			m.locked(func() {
				if _, ok := m.live(h.Key); !ok {
					m.m[h.Key] = refEntry{Request: driver.Request{Key: h.Key, Owner: h.Owner, Hold: r.Hold}, until: m.now().Add(r.TTL)}
				}
			})
			return handOff(ctx, h, r)
		}
	}},
	{"Release ignores the owner", "REL-002", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			m.locked(func() {
				if e, ok := m.live(h.Key); ok {
					h.Owner = e.Owner
				}
			})
			return release(ctx, h)
		}
	}},
	{"Release of what is not held succeeds", "REL-002", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			if err := release(ctx, h); !errors.Is(err, driver.ErrLost) {
				return err
			}
			return nil
		}
	}},

	{"a token is used again after a release", "TOK-001", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			err := release(ctx, h)
			if err == nil {
				m.locked(func() { m.token-- })
			}
			return err
		}
	}},
	{"a token is used again after an expiry", "TOK-001", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			m.locked(func() {
				if e, ok := m.m[r.Key]; ok {
					if _, ok := m.live(r.Key); !ok {
						m.token = e.token - 1
					}
				}
			})
			return acquire(ctx, r)
		}
	}},
	{"a hold that is passed on keeps its token", "TOK-001", func(m *mutant) {
		m.handedOff(func(e *refEntry, before refEntry, g *driver.Grant) { e.token, g.Token = before.token, before.token })
	}},
	{"a hold that is passed on gets a lower token", "TOK-001", func(m *mutant) {
		m.handedOff(func(e *refEntry, before refEntry, g *driver.Grant) {
			e.token = max(before.token-1, 1)
			g.Token = e.token
		})
	}},
	{"Extend of what was passed on returns another token", "TOK-002", func(m *mutant) {
		extend := m.extend
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (g driver.Grant, err error) {
			g, err = extend(ctx, h, ttl)
			m.locked(func() { g.Token -= uint64(min(m.m[h.Key].passes, 1)) })
			return g, err
		}
	}},
	{"a repeated attempt has another token", "TOK-002", func(m *mutant) {
		m.granted(func(_ driver.Request, g *driver.Grant) {
			m.locked(func() { m.token++; g.Token = m.token })
		})
	}},
	{"Extend returns another token", "TOK-002", func(m *mutant) {
		extend := m.extend
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
			g, err := extend(ctx, h, ttl)
			g.Token++
			return g, err
		}
	}},
	{"tokens begin at 0", "TOK-003", func(m *mutant) { m.granted(func(_ driver.Request, g *driver.Grant) { g.Token-- }) }},
	{"tokens are above 2^53", "TOK-003", func(m *mutant) { m.granted(func(_ driver.Request, g *driver.Grant) { g.Token += driver.MaxToken }) }},
	{"the token is read after the grant", "TOK-004", func(m *mutant) {
		m.granted(func(_ driver.Request, g *driver.Grant) {
			time.Sleep(time.Millisecond)
			m.locked(func() { g.Token = m.token })
		})
	}},
	{"Capabilities change", "TOK-005", func(m *mutant) {
		caps := m.caps
		var n atomic.Int64
		m.caps = func() driver.Capabilities {
			c := caps()
			c.Granularity += time.Duration(n.Add(1))
			return c
		}
	}},
	{"tokens begin again when the data are lost", "TOK-005", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			m.locked(func() {
				if len(m.m) == 0 && m.wiped {
					m.token, m.wiped = 0, false
				}
			})
			return acquire(ctx, r)
		}
	}},

	{"a deletion is reported as an expiry", "LOSS-002", func(m *mutant) { m.losses(func(error) error { return driver.ErrExpired }) }},
	{"a deletion is not reported", "LOSS-003", func(m *mutant) { m.losses(func(error) error { return nil }) }},

	{"the loss of what was passed on is reported to the one before", "LOSS-003", func(m *mutant) {
		m.handedOff(func(e *refEntry, before refEntry, _ *driver.Grant) { e.Hold = before.Hold })
	}},

	{"a lease is reported lost before its time", "LOSS-001", func(m *mutant) {
		m.granted(func(r driver.Request, _ *driver.Grant) {
			if r.TTL > 0 {
				time.AfterFunc(r.TTL/2, func() { r.Hold.Lost(driver.ErrExpired) })
			}
		})
	}},

	{"nobody is woken", "WAIT-001", func(m *mutant) { m.notify = func(string, func()) func() { return func() {} } }},
	{"an attempt that is repeated finds the key held", "WAIT-006", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			mine := false
			m.locked(func() {
				e, ok := m.live(r.Key)
				mine = ok && e.Owner == r.Owner
			})
			if mine {
				return driver.Grant{}, driver.ErrHeld
			}
			return acquire(ctx, r)
		}
	}},

	{"a hold is handed off for ever", "WAIT-007", func(m *mutant) {
		m.handedOff(func(e *refEntry, _ refEntry, _ *driver.Grant) { e.passes = 1 })
	}},
	{"at the end of a turn the key stays taken", "WAIT-007", func(m *mutant) {
		handOff := m.handOff
		m.handOff = func(ctx context.Context, h driver.Holder, r driver.Request) (driver.Handed, error) {
			over := false
			m.locked(func() { e, ok := m.live(h.Key); over = ok && e.Owner == h.Owner && e.passes == refTurn })
			if over {
				return driver.Handed{}, driver.ErrYielded
			}
			return handOff(ctx, h, r)
		}
	}},

	{"a session is renewed for a minute", "CTX-002", func(m *mutant) {
		m.granted(func(r driver.Request, _ *driver.Grant) {
			if r.Session() {
				time.AfterFunc(time.Minute, func() { m.forgetHolder(driver.Holder{Key: r.Key, Owner: r.Owner}) })
			}
		})
	}},
	{"Release needs the token", "CTX-004", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			if h.Token == 0 {
				return driver.ErrLost
			}
			return release(ctx, h)
		}
	}},

	{"a key ends at its first colon", "KEY-002", func(m *mutant) { m.renamed(func(k string) string { k, _, _ = strings.Cut(k, ":"); return k }) }},
	{"a key ends at NUL", "KEY-002", func(m *mutant) { m.renamed(func(k string) string { k, _, _ = strings.Cut(k, "\x00"); return k }) }},
	{"a key is trimmed", "KEY-002", func(m *mutant) { m.renamed(strings.TrimSpace) }},
	{"a key is made valid UTF-8", "KEY-002", func(m *mutant) { m.renamed(func(k string) string { return strings.ToValidUTF8(k, "\ufffd") }) }},
	{"a key is folded", "KEY-002", func(m *mutant) { m.renamed(strings.ToLower) }},
	{"a key is cut to 255 bytes", "KEY-002", func(m *mutant) { m.renamed(func(k string) string { return k[:min(len(k), 255)] }) }},
	{"control characters are dropped from a key", "KEY-002", func(m *mutant) {
		m.renamed(func(k string) string {
			return strings.Map(func(r rune) rune {
				if unicode.IsControl(r) {
					return -1
				}
				return r
			}, k)
		})
	}},
	{"a backend's own name is a key with a suffix", "KEY-003", func(m *mutant) {
		m.granted(func(r driver.Request, g *driver.Grant) {
			m.locked(func() {
				if _, ok := m.live(r.Key + ":meta"); !ok {
					m.m[r.Key+":meta"] = refEntry{token: g.Token}
				}
			})
		})
	}},

	{"a closed backend goes on", "CLO-001", func(m *mutant) {
		m.close = func(context.Context) error { m.stopKeeping(); return nil }
	}},
	{"Close leaves a goroutine", "CLO-004", func(m *mutant) {
		quit := make(chan struct{})
		go func() {
			select {
			case <-quit:
			case <-time.After(time.Hour): // a bubble must end
			}
		}()
	}},
	{"Close leaves a key", "CLO-004", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			err := release(ctx, h)
			m.locked(func() { m.m["released "+h.Key] = refEntry{token: 1} })
			return err
		}
	}},

	{"Release is refused while others want the key", "REL-003", func(m *mutant) {
		var n atomic.Int64
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			if err := release(ctx, h); err != nil || n.Add(1)%2 == 0 {
				return err
			}
			return errors.New("busy")
		}
	}},
	{"Release waits for its ctx", "REL-004", func(m *mutant) {
		m.release = func(ctx context.Context, _ driver.Holder) error {
			<-ctx.Done()
			return ctx.Err()
		}
	}},
	{"a repeated Release is an outage", "REL-005", func(m *mutant) {
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			err := release(ctx, h)
			if errors.Is(err, driver.ErrLost) {
				err = errors.New("no such hold")
			}
			return err
		}
	}},
	{"Release at Close is left to the ttl", "CLO-003", func(m *mutant) {
		m.release = func(context.Context, driver.Holder) error { return driver.ErrClosed }
	}},
	{"a lease that is extended far is given up", "EXT-003", func(m *mutant) {
		extend := m.extend
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
			if ttl > time.Minute {
				return driver.Grant{}, driver.ErrLost
			}
			return extend(ctx, h, ttl)
		}
	}},
	{"an error of its own matches two sentinels", "ERR-002", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			g, err := acquire(ctx, r)
			if errors.Is(err, driver.ErrHeld) {
				err = fmt.Errorf("%w: %w", err, driver.ErrUnavailable)
			}
			return g, err
		}
	}},
	{"some attempts are granted although the key is held", "CONC-001", func(m *mutant) {
		var n atomic.Int64
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			g, err := acquire(ctx, r)
			if errors.Is(err, driver.ErrHeld) && n.Add(1)%3 == 0 {
				m.locked(func() {
					m.token++
					g = driver.Grant{Token: m.token, TTL: r.TTL}
				})
				return g, nil
			}
			return g, err
		}
	}},
	{"a release that was confirmed has no effect now and then", "CONC-001", func(m *mutant) {
		var n atomic.Int64
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			if n.Add(1)%5 == 0 {
				return nil
			}
			return release(ctx, h)
		}
	}},
	{"nobody is ever granted a key", "CONC-001", func(m *mutant) {
		m.acquire = func(context.Context, driver.Request) (driver.Grant, error) {
			return driver.Grant{}, driver.ErrUnsupported
		}
	}},
	{"contention is reported as an outage", "ERR-002", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			g, err := acquire(ctx, r)
			if errors.Is(err, driver.ErrHeld) {
				err = errors.New("the key is held")
			}
			return g, err
		}
	}},
	{"its own time-out is reported as contention", "ERR-002", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			if ctx.Err() != nil {
				return driver.Grant{}, driver.ErrHeld
			}
			return acquire(ctx, r)
		}
	}},
}

// losses lets fn change what is reported of a loss, to nil for nothing.
func (m *mutant) losses(fn func(error) error) {
	acquire := m.acquire
	m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
		r.Hold = lossFilter{r.Hold, fn}
		return acquire(ctx, r)
	}
}

type lossFilter struct {
	driver.Listener
	fn func(error) error
}

func (f lossFilter) Lost(cause error) {
	if cause = f.fn(cause); cause != nil {
		f.Listener.Lost(cause)
	}
}

func mutate(alter func(*mutant)) func(*reference) driver.Backend {
	return func(b *reference) driver.Backend {
		m := &mutant{
			reference: b, acquire: b.Acquire, extend: b.Extend, release: b.Release, handOff: b.HandOff, all: b.AcquireAll, close: b.Close,
			notify: b.Notify, caps: b.Capabilities, inspect: b.Inspect, ping: b.Ping, list: b.List, brk: b.Break,
		}
		if alter != nil {
			alter(m)
		}
		return m
	}
}

// The harness of the mutants breaks nothing by itself.
func TestNoMutant(t *testing.T) {
	var clauses []string
	for _, m := range mutants {
		if !slices.Contains(clauses, m.clause) {
			clauses = append(clauses, m.clause)
		}
	}
	if failed := failing(t, refTarget(mutate(nil)), clauses...); len(failed) > 0 {
		t.Fatal(strings.Join(failed, "\n"))
	}
}

// failing runs clauses against a backend and returns what fails.
func failing(t *testing.T, newTarget func(*testing.T) *Target, clauses ...string) (failed []string) {
	s, err := newSuite(newTarget, []Option{Synctest()})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Cases() {
		if !slices.Contains(clauses, c.ID) {
			continue
		}
		for _, l := range c.leaves() {
			for _, f := range s.execute(t, l).failures {
				failed = append(failed, l.path()+"\n"+f)
			}
		}
	}
	return failed
}
