package conformance

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// life makes every lease last for what of says of its ttl, at the store.
func (m *mutant) lives(of func(time.Duration) time.Duration) {
	m.granted(func(r driver.Request, _ *driver.Grant) {
		if r.TTL > 0 {
			m.at(r.Key, func(e *refEntry, _ bool) { e.until = m.now().Add(of(r.TTL)) })
		}
	})
	m.afterExtend(func(e *refEntry, _ time.Time, ttl time.Duration) { e.until = m.now().Add(of(ttl)) })
}

// tells makes a refusal tell what of says of the remaining time.
func (m *mutant) tells(of func(left, ttl time.Duration) time.Duration) {
	acquire := m.acquire
	m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
		g, err := acquire(ctx, r)
		if left, ok := driver.Remaining(err); ok {
			m.at(r.Key, func(e *refEntry, _ bool) { err = driver.Held(of(left, e.TTL)) })
		}
		return g, err
	}
}

// silent lets nobody be woken while silence is above 0.
func (m *mutant) silent() {
	notify := m.notify
	m.notify = func(key string, wake func()) func() {
		return notify(key, func() {
			if m.refStore.silence.Load() == 0 {
				wake()
			}
		})
	}
}

// scaleMutants are wrong about time.
var scaleMutants = []brokenBackend{
	{"a ttl is an int32 of milliseconds", "TTL-003", func(m *mutant) {
		m.lives(func(d time.Duration) time.Duration { return time.Duration(int32(d.Milliseconds())) * time.Millisecond })
	}},
	{"a ttl is a uint32 of milliseconds", "TTL-003", func(m *mutant) {
		m.lives(func(d time.Duration) time.Duration { return time.Duration(uint32(d.Milliseconds())) * time.Millisecond })
	}},
	{"a ttl is an int32 of microseconds", "TTL-003", func(m *mutant) {
		m.lives(func(d time.Duration) time.Duration { return time.Duration(int32(d.Microseconds())) * time.Microsecond })
	}},
	{"a ttl is at most a day", "TTL-003", func(m *mutant) {
		m.lives(func(d time.Duration) time.Duration { return min(d, 24*time.Hour) })
	}},
	{"a ttl of more than 30 days is an instant, as memcached has it", "TTL-003", func(m *mutant) {
		m.lives(func(d time.Duration) time.Duration {
			if d > 30*24*time.Hour {
				return 0
			}
			return d
		})
	}},
	{"a ttl is cut to whole seconds", "TTL-002", func(m *mutant) {
		m.lives(func(d time.Duration) time.Duration { return d.Truncate(time.Second) })
	}},
	{"a ttl is rounded up to whole seconds", "TTL-001", func(m *mutant) {
		m.lives(func(d time.Duration) time.Duration { return (d + time.Second - 1).Truncate(time.Second) })
	}},
	{"a lease is 2 % too long", "TTL-001", func(m *mutant) {
		m.lives(func(d time.Duration) time.Duration { return d + d/10 })
	}},
	{"an entry stands for a tenth longer than its lease when it is extended", "EXT-001", func(m *mutant) {
		m.afterExtend(func(e *refEntry, _ time.Time, ttl time.Duration) { e.until = e.until.Add(ttl / 10) })
	}},
	{"of many leases that end together some end late", "TTL-001", func(m *mutant) {
		extended := map[time.Time]int{}
		m.afterExtend(func(e *refEntry, _ time.Time, _ time.Duration) {
			if extended[e.until]++; extended[e.until] > 64 {
				e.until = e.until.Add(time.Second)
			}
		})
	}},
	{"who shortens a lease wakes nobody", "TTL-001", func(m *mutant) {
		m.silent()
		extend := m.extend
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
			m.refStore.silence.Add(1)
			defer m.refStore.silence.Add(-1)
			return extend(ctx, h, ttl)
		}
	}},

	{"what is left is the whole ttl", "TTL-005", func(m *mutant) { m.tells(func(_, ttl time.Duration) time.Duration { return ttl }) }},
	{"what is left is told in another unit", "TTL-005", func(m *mutant) { m.tells(func(left, _ time.Duration) time.Duration { return left * 1000 }) }},
	{"what is left is too little by a thousand", "TTL-005", func(m *mutant) { m.tells(func(left, _ time.Duration) time.Duration { return left / 1000 }) }},
	{"what is left is rounded up to seconds", "TTL-005", func(m *mutant) {
		m.tells(func(left, _ time.Duration) time.Duration { return (left + time.Second - 1).Truncate(time.Second) })
	}},
	{"what is left is what has passed", "TTL-005", func(m *mutant) { m.tells(func(left, ttl time.Duration) time.Duration { return ttl - left }) }},
	{"what is left does not know of an Extend", "TTL-005", func(m *mutant) {
		first := map[string]time.Time{}
		m.granted(func(r driver.Request, _ *driver.Grant) {
			m.at(r.Key, func(e *refEntry, _ bool) { first[r.Key] = e.until })
		})
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			g, err := acquire(ctx, r)
			if _, ok := driver.Remaining(err); ok {
				m.locked(func() { err = driver.Held(first[r.Key].Sub(m.now())) })
			}
			return g, err
		}
	}},
}

// nameMutants merge keys.
var nameMutants = func() (all []brokenBackend) {
	for _, w := range weak {
		all = append(all, brokenBackend{"a key is named by " + w.name, "KEY-002", func(m *mutant) {
			m.renamed(func(k string) string { return fmt.Sprint(w.of(k)) })
		}})
	}
	renames := map[string]func(string) string{
		"a key is cut to 64 bytes":          func(k string) string { return k[:min(len(k), 64)] },
		"a key is cut to 128 bytes":         func(k string) string { return k[:min(len(k), 128)] },
		"a key is cut to 1000 bytes":        func(k string) string { return k[:min(len(k), 1000)] },
		"the end of a key is trimmed":       func(k string) string { return strings.TrimRight(k, " \t\r\n\x00") },
		"a key is in upper case":            strings.ToUpper,
		"a key's slashes are one":           func(k string) string { return strings.ReplaceAll(k, "//", "/") },
		"a key is composed":                 func(k string) string { return strings.ReplaceAll(k, "e\u0301", "é") },
		"braces are dropped from a key":     strings.NewReplacer("{", "", "}", "").Replace,
		"quotes are dropped from a key":     strings.NewReplacer("'", "", `"`, "").Replace,
		"a key is percent-decoded":          strings.NewReplacer("%3A", ":", "%00", "\x00").Replace,
		"a key's backslashes are an escape": func(k string) string { return strings.ReplaceAll(k, `\*`, "*") },
		"what cannot be printed is a question mark": func(k string) string {
			return strings.Map(func(r rune) rune {
				if !unicode.IsPrint(r) {
					return '?'
				}
				return r
			}, k)
		},
		"a key is its CRC and its length": func(k string) string { return fmt.Sprint(len(k), crc32.ChecksumIEEE([]byte(k))) },
	}
	for _, name := range slices.Sorted(maps.Keys(renames)) { // one order, for the catalogue
		all = append(all, brokenBackend{name, "KEY-002", func(m *mutant) { m.renamed(renames[name]) }})
	}
	return all
}()

// orderMutants lose their way when things come in another order, or in numbers.
var orderMutants = []brokenBackend{
	{"after an Extend a deletion is not reported", "LOSS-003", func(m *mutant) {
		m.afterExtend(func(e *refEntry, _ time.Time, _ time.Duration) { e.Hold = newRecorder() })
	}},
	{"a second deletion of a key is not reported", "LOSS-003", func(m *mutant) {
		lost := map[string]bool{}
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			again := false
			m.locked(func() { again = lost[r.Key] })
			if again {
				r.Hold = newRecorder()
			} else {
				r.Hold = lossFilter{r.Hold, func(err error) error {
					time.AfterFunc(0, func() { m.locked(func() { lost[r.Key] = true }) })
					return err
				}}
			}
			return acquire(ctx, r)
		}
	}},
	{"a loss is told to the next holder too", "LOSS-003", func(m *mutant) {
		lost := map[string]time.Time{}
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			late := false
			m.locked(func() { late = m.now().Sub(lost[r.Key]) < time.Millisecond })
			hold := r.Hold
			r.Hold = lossFilter{hold, func(err error) error {
				time.AfterFunc(0, func() { m.locked(func() { lost[r.Key] = m.now() }) })
				return err
			}}
			g, err := acquire(ctx, r)
			if err == nil && late {
				hold.Lost(driver.ErrLost)
			}
			return g, err
		}
	}},
	{"a deletion in the second half of a lease is not reported", "LOSS-003", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			began := time.Now()
			r.Hold = lossFilter{r.Hold, func(err error) error {
				if !errors.Is(err, driver.ErrExpired) && r.TTL > 0 && time.Since(began) > r.TTL/2 {
					return nil
				}
				return err
			}}
			return acquire(ctx, r)
		}
	}},
	{"of many deletions 32 are reported", "LOSS-003", func(m *mutant) {
		var told atomic.Int64
		m.losses(func(err error) error {
			if told.Add(1) > 32 {
				return nil
			}
			return err
		})
	}},
	{"64 keys are watched at once", "WAIT-001", func(m *mutant) {
		notify := m.notify
		var n atomic.Int64
		m.notify = func(key string, wake func()) func() {
			if n.Add(1) > 64 {
				n.Add(-1)
				return func() {}
			}
			stop := notify(key, wake)
			return func() { n.Add(-1); stop() }
		}
	}},
	{"one waiter of all is woken", "WAIT-001", func(m *mutant) {
		notify := m.notify
		var latest atomic.Int64
		m.notify = func(key string, wake func()) func() {
			me := latest.Add(1)
			return notify(key, func() {
				if latest.Load() == me {
					wake()
				}
			})
		}
	}},
	{"every 50th wake-up is lost", "WAIT-001", func(m *mutant) {
		notify := m.notify
		m.notify = func(key string, wake func()) func() {
			return notify(key, func() {
				if m.refStore.wakened.Add(1)%50 != 0 {
					wake()
				}
			})
		}
	}},
	{"each process counts its own tokens", "TOK-001", func(m *mutant) {
		var own atomic.Uint64
		given := map[driver.Owner]uint64{}
		m.granted(func(r driver.Request, g *driver.Grant) {
			m.locked(func() {
				if given[r.Owner] == 0 {
					given[r.Owner] = own.Add(1)
				}
				g.Token = given[r.Owner]
			})
		})
	}},
	{"a token is a time in milliseconds", "TOK-001", func(m *mutant) {
		given := map[driver.Owner]uint64{}
		m.granted(func(r driver.Request, g *driver.Grant) {
			m.locked(func() {
				if given[r.Owner] == 0 {
					given[r.Owner] = uint64(m.now().UnixMilli())
				}
				g.Token = given[r.Owner]
			})
		})
	}},
	{"Close releases the first 64 holds", "CLO-003", func(m *mutant) {
		release := m.release
		var n atomic.Int64
		m.release = func(ctx context.Context, h driver.Holder) error {
			if n.Add(1) > 64 && len(h.Key) > 0 {
				return nil
			}
			return release(ctx, h)
		}
	}},
}

// leakMutants keep what is over.
var leakMutants = []brokenBackend{
	{"a word is kept of every key", "CLO-005", func(m *mutant) {
		seen := map[string][4]uint64{}
		m.onAcquire(func(r *driver.Request, _ *refEntry, _ bool) { seen[r.Key] = [4]uint64{1} })
	}},
	{"who has stopped listening is woken with the others", "CLO-005", func(m *mutant) {
		notify := m.notify
		m.notify = func(key string, wake func()) func() {
			notify(key, wake)
			return func() {}
		}
	}},
	{"what a watch needed is kept", "CLO-005", func(m *mutant) {
		var seen []*[1 << 12]uint64
		notify := m.notify
		m.notify = func(key string, wake func()) func() {
			stop := notify(key, wake)
			return func() {
				stop()
				m.locked(func() { seen = append(seen, new([1 << 12]uint64)) })
			}
		}
	}},
	{"the listeners of refused attempts are kept", "CLO-005", func(m *mutant) {
		var all []*[32]uint64
		m.onAcquire(func(r *driver.Request, e *refEntry, ok bool) {
			if ok && e.Owner != r.Owner {
				all = append(all, new([32]uint64))
			}
		})
	}},
}

// inspectMutants say what is not so.
var inspectMutants = []brokenBackend{
	{"Inspect tells the store's last token", "INS-001", func(m *mutant) {
		m.inspected(func(i *driver.Info, _ *bool) { i.Token = m.token })
	}},
	{"Inspect tells no token", "INS-001", func(m *mutant) { m.inspected(func(i *driver.Info, _ *bool) { i.Token = 0 }) }},
	{"Inspect tells another owner", "INS-001", func(m *mutant) {
		m.inspected(func(i *driver.Info, _ *bool) { i.Owner = strings.Repeat("0", len(i.Owner)) })
	}},
	{"Inspect tells what is left in another unit", "INS-001", func(m *mutant) { m.inspected(func(i *driver.Info, _ *bool) { i.Remaining *= 1000 }) }},
	{"Inspect tells nothing of what is left", "INS-001", func(m *mutant) { m.inspected(func(i *driver.Info, _ *bool) { i.Remaining = 0 }) }},
	{"Inspect takes a session for a lease", "INS-001", func(m *mutant) { m.inspected(func(i *driver.Info, _ *bool) { i.Session = false }) }},
	{"Inspect sees no sessions", "INS-001", func(m *mutant) { m.inspected(func(i *driver.Info, ok *bool) { *ok = *ok && !i.Session }) }},
	{"Inspect says that every key is held", "INS-001", func(m *mutant) { m.inspected(func(_ *driver.Info, ok *bool) { *ok = true }) }},
	{"Inspect sees a holder whose time is up", "INS-001", func(m *mutant) {
		m.inspect = func(ctx context.Context, key string) (i driver.Info, ok bool, err error) {
			if err := m.ready(ctx); err != nil {
				return i, false, err
			}
			m.locked(func() {
				e, there := m.m[key]
				i, ok = driver.Info{Owner: e.Owner.String(), Token: e.token, Session: e.Session(), Remaining: max(0, e.until.Sub(m.now()))}, there
			})
			return i, ok, nil
		}
	}},
	{"Inspect calls free what it cannot look at", "INS-001", func(m *mutant) {
		inspect := m.inspect
		m.inspect = func(ctx context.Context, key string) (driver.Info, bool, error) {
			i, ok, _ := inspect(ctx, key)
			return i, ok, nil
		}
	}},
	{"Ping is always nil", "INS-002", func(m *mutant) { m.ping = func(context.Context) error { return nil } }},
	{"Ping does not look at its ctx", "INS-002", func(m *mutant) {
		m.ping = func(context.Context) error { return m.ready(context.Background()) }
	}},
	{"Ping is nil after Close", "INS-002", func(m *mutant) { m.ping = func(ctx context.Context) error { return ctx.Err() } }},
	{"Ping fails while a key is held", "INS-002", func(m *mutant) {
		ping := m.ping
		var n atomic.Int64
		m.ping = func(ctx context.Context) error {
			if n.Add(1)%3 == 0 {
				return errors.New("busy")
			}
			return ping(ctx)
		}
	}},
}

// inspected lets fn change what Inspect says.
func (m *mutant) inspected(fn func(*driver.Info, *bool)) {
	inspect := m.inspect
	m.inspect = func(ctx context.Context, key string) (driver.Info, bool, error) {
		i, ok, err := inspect(ctx, key)
		if err == nil {
			m.locked(func() { fn(&i, &ok) })
		}
		return i, ok, err
	}
}
