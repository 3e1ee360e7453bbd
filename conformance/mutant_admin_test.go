package conformance

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// adminMutants mislead who looks, or break what they should not.
var adminMutants = []brokenBackend{
	{"the note is kept for the key, not for the hold", "ADM-001", func(m *mutant) {
		notes := map[string]string{}
		m.granted(func(r driver.Request, _ *driver.Grant) {
			m.locked(func() {
				if r.Note != "" {
					notes[r.Key] = r.Note
				}
			})
		})
		m.inspected(func(i *driver.Info, _ *bool) { i.Note = notes[i.Key] })
	}},
	{"a refused attempt leaves its note", "ADM-001", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			m.locked(func() {
				if e, ok := m.live(r.Key); ok {
					e.Identity, e.Note = r.Identity, r.Note
					m.m[r.Key] = e
				}
			})
			return acquire(ctx, r)
		}
	}},
	{"Extend loses the note", "ADM-001", func(m *mutant) {
		extend := m.extend
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
			m.locked(func() {
				if e, ok := m.live(h.Key); ok {
					e.Note = ""
					m.m[h.Key] = e
				}
			})
			return extend(ctx, h, ttl)
		}
	}},
	{"a note ends at a zero byte", "ADM-001", func(m *mutant) {
		m.inspected(func(i *driver.Info, _ *bool) { i.Note, _, _ = strings.Cut(i.Note, "\x00") })
	}},
	{"an identity is made valid UTF-8", "ADM-001", func(m *mutant) {
		m.inspected(func(i *driver.Info, _ *bool) { i.Identity = strings.ToValidUTF8(i.Identity, "?") })
	}},
	{"a long note is cut", "ADM-001", func(m *mutant) {
		m.inspected(func(i *driver.Info, _ *bool) { i.Note = i.Note[:min(len(i.Note), 255)] })
	}},
	{"the identity is the store's last client's", "ADM-001", func(m *mutant) {
		last := ""
		m.granted(func(r driver.Request, _ *driver.Grant) { m.locked(func() { last = r.Identity }) })
		m.inspected(func(i *driver.Info, _ *bool) { i.Identity = last })
	}},
	{"Inspect says since now", "ADM-001", func(m *mutant) {
		m.inspected(func(i *driver.Info, _ *bool) { i.Since = m.now() })
	}},
	{"Inspect tells no key", "ADM-001", func(m *mutant) { m.inspected(func(i *driver.Info, _ *bool) { i.Key = "" }) }},

	{"a hold that is handed off keeps the note", "ADM-002", func(m *mutant) {
		m.handedOff(func(e *refEntry, before refEntry, _ *driver.Grant) { e.Note = before.Note })
	}},
	{"a hold that is handed off loses the note", "ADM-002", func(m *mutant) {
		m.handedOff(func(e *refEntry, _ refEntry, _ *driver.Grant) { e.Note = "" })
	}},

	{"List leaves out every 100th", "ADM-003", func(m *mutant) {
		m.lists(func(n int, _ *driver.Info) bool { return n%100 != 99 })
	}},
	{"List cuts long keys", "ADM-003", func(m *mutant) {
		m.lists(func(_ int, i *driver.Info) bool { i.Key = i.Key[:min(len(i.Key), 1000)]; return true })
	}},
	{"List ends after a page", "ADM-003", func(m *mutant) {
		m.lists(func(n int, _ *driver.Info) bool { return n < 512 })
	}},
	{"List sees no sessions", "ADM-003", func(m *mutant) {
		m.lists(func(_ int, i *driver.Info) bool { return !i.Session })
	}},
	{"List tells no tokens", "ADM-003", func(m *mutant) {
		m.lists(func(_ int, i *driver.Info) bool { i.Token = 0; return true })
	}},
	{"List tells no notes", "ADM-003", func(m *mutant) {
		m.lists(func(_ int, i *driver.Info) bool { i.Note = ""; return true })
	}},
	{"List takes the prefix for a pattern", "ADM-003", func(m *mutant) {
		list := m.list
		m.list = func(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
			if before, after, found := strings.Cut(prefix, "*"); found {
				return func(yield func(driver.Info, error) bool) {
					for i, err := range list(ctx, before) {
						if (err != nil || strings.Contains(i.Key, after)) && !yield(i, err) {
							return
						}
					}
				}
			}
			return list(ctx, prefix)
		}
	}},
	{"List tells what is over", "ADM-003", func(m *mutant) {
		m.list = func(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
			return func(yield func(driver.Info, error) bool) {
				var all []driver.Info
				m.locked(func() {
					for key, e := range m.m {
						if strings.HasPrefix(key, prefix) {
							all = append(all, driver.Info{Key: key, Owner: e.Owner.String(), Identity: e.Identity, Note: e.Note, Token: e.token, Session: e.Session()})
						}
					}
				})
				for _, i := range all {
					if !yield(i, nil) {
						return
					}
				}
			}
		}
	}},
	{"List tells all keys of the store", "ADM-003", func(m *mutant) {
		list := m.list
		m.list = func(ctx context.Context, _ string) iter.Seq2[driver.Info, error] { return list(ctx, "") }
	}},

	{"List does not end with its loop", "ADM-004", func(m *mutant) {
		list := m.list
		m.list = func(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
			return func(yield func(driver.Info, error) bool) {
				for i, err := range list(ctx, prefix) {
					yield(i, err)
				}
			}
		}
	}},
	{"List holds the store's mutex", "ADM-004", func(m *mutant) {
		m.list = func(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
			return func(yield func(driver.Info, error) bool) {
				m.refStore.mu.Lock()
				defer m.refStore.mu.Unlock()
				for _, key := range slices.Collect(maps.Keys(m.m)) {
					if i, ok := m.info(key); ok && strings.HasPrefix(key, prefix) && !yield(i, nil) {
						return
					}
				}
			}
		}
	}},
	{"List does not look at its ctx", "ADM-004", func(m *mutant) {
		list := m.list
		m.list = func(_ context.Context, prefix string) iter.Seq2[driver.Info, error] {
			return list(context.Background(), prefix)
		}
	}},
	{"List of a closed backend is empty", "ADM-004", func(m *mutant) {
		m.lists(func(int, *driver.Info) bool { return true })
	}},
	{"List goes on after an error", "ADM-004", func(m *mutant) {
		list := m.list
		m.list = func(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
			return func(yield func(driver.Info, error) bool) {
				for i, err := range list(ctx, prefix) {
					if !yield(i, err) || err != nil && !yield(driver.Info{}, nil) {
						return
					}
				}
			}
		}
	}},

	{"Break does not look at the token", "ADM-005", func(m *mutant) {
		m.breaks(func(e refEntry, _ uint64) uint64 { return e.token })
	}},
	{"Break breaks whoever came after the token", "ADM-005", func(m *mutant) {
		m.breaks(func(e refEntry, token uint64) uint64 {
			if token < e.token {
				return e.token
			}
			return token
		})
	}},
	{"Break of what is not held succeeds", "ADM-005", func(m *mutant) {
		brk := m.brk
		m.brk = func(ctx context.Context, key string, token uint64) error {
			var held bool
			m.locked(func() { _, held = m.live(key) })
			if err := brk(ctx, key, token); held || m.ready(ctx) != nil {
				return err
			}
			return nil
		}
	}},
	{"Break takes effect later", "ADM-005", func(m *mutant) {
		brk := m.brk
		m.brk = func(ctx context.Context, key string, token uint64) error {
			var held bool
			m.locked(func() { e, ok := m.live(key); held = ok && e.token == token })
			if !held || m.ready(ctx) != nil {
				return brk(ctx, key, token)
			}
			time.AfterFunc(5*time.Millisecond, func() { _ = brk(context.Background(), key, token) })
			return nil
		}
	}},
	{"Break sees no sessions", "ADM-005", func(m *mutant) {
		m.breaks(func(e refEntry, token uint64) uint64 {
			if e.Session() {
				return 0
			}
			return token
		})
	}},
	{"Break wakes nobody", "ADM-005", func(m *mutant) {
		m.brk = func(ctx context.Context, key string, token uint64) error {
			if err := m.ready(ctx); err != nil {
				return err
			}
			err := error(driver.ErrLost)
			m.locked(func() {
				if e, ok := m.live(key); ok && e.token == token {
					delete(m.m, key)
					e.Hold.Lost(driver.ErrBroken)
					err = nil
				}
			})
			return err
		}
	}},

	{"the holder of what is broken hears nothing", "ADM-006", func(m *mutant) {
		m.losses(func(cause error) error {
			if errors.Is(cause, driver.ErrBroken) {
				return nil
			}
			return cause
		})
	}},
	{"the holder of what is broken hears that it was deleted", "ADM-006", func(m *mutant) {
		m.losses(func(cause error) error {
			if errors.Is(cause, driver.ErrBroken) {
				return driver.ErrLost
			}
			return cause
		})
	}},
	{"nobody announces a break, and Extend says that the hold was deleted", "ADM-006", func(m *mutant) {
		m.announcesNoBreak()
		extend := m.extend
		m.extend = func(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
			g, err := extend(ctx, h, ttl)
			if errors.Is(err, driver.ErrBroken) {
				err = driver.ErrLost
			}
			return g, err
		}
	}},
	{"nobody announces a break, and Release says that the hold was deleted", "ADM-006", func(m *mutant) {
		m.announcesNoBreak()
		release := m.release
		m.release = func(ctx context.Context, h driver.Holder) error {
			err := release(ctx, h)
			if errors.Is(err, driver.ErrBroken) {
				err = driver.ErrLost
			}
			return err
		}
	}},
	{"the owner of a hold that was broken meets a refusal", "ADM-006", func(m *mutant) {
		acquire := m.acquire
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			over := false
			m.locked(func() { over = m.broke[r.Owner] })
			if over {
				return driver.Grant{}, driver.ErrRefused
			}
			return acquire(ctx, r)
		}
	}},
	{"a break tells all holders of the client", "ADM-006", func(m *mutant) {
		brk := m.brk
		m.brk = func(ctx context.Context, key string, token uint64) error {
			err := brk(ctx, key, token)
			var all []driver.Listener
			m.locked(func() {
				for _, e := range m.m {
					all = append(all, e.Hold)
				}
			})
			for _, n := range all {
				if err == nil {
					n.Lost(driver.ErrBroken)
				}
			}
			return err
		}
	}},

	{"List tells names without what they begin with", "ADM-007", func(m *mutant) {
		list := m.list
		m.list = func(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
			return func(yield func(driver.Info, error) bool) {
				for i, err := range list(ctx, prefix) {
					if before, after, ok := strings.Cut(i.Key, ":"); ok {
						i.Key = strings.Repeat("-", len(before)+1) + after[:len(after)/2+1]
					}
					if !yield(i, err) {
						return
					}
				}
			}
		}
	}},
}

// announcesNoBreak makes m a backend that leaves it to the holder to ask.
func (m *mutant) announcesNoBreak() {
	brk, caps := m.brk, m.caps
	own := map[driver.Owner]bool{}
	m.granted(func(r driver.Request, _ *driver.Grant) { m.locked(func() { own[r.Owner] = true }) })
	m.caps = func() driver.Capabilities {
		c := caps()
		c.Has &^= driver.NewSet(driver.PromptLoss)
		return c
	}
	m.brk = func(ctx context.Context, key string, token uint64) error {
		m.locked(func() {
			if e, ok := m.live(key); ok && e.token == token && !own[e.Owner] {
				e.Hold = lossFilter{e.Hold, func(error) error { return nil }}
				m.m[key] = e
			}
		})
		return brk(ctx, key, token)
	}
}

// lists lets keep change what List tells, n of which came before, or leave it out.
func (m *mutant) lists(keep func(n int, i *driver.Info) bool) {
	list := m.list
	m.list = func(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
		return func(yield func(driver.Info, error) bool) {
			n := 0
			for i, err := range list(ctx, prefix) {
				if errors.Is(err, driver.ErrClosed) {
					return
				}
				n++
				if (err != nil || keep(n-1, &i)) && !yield(i, err) {
					return
				}
			}
		}
	}
}

// breaks lets which choose the token that Break breaks.
func (m *mutant) breaks(which func(e refEntry, token uint64) uint64) {
	brk := m.brk
	m.brk = func(ctx context.Context, key string, token uint64) error {
		m.locked(func() {
			if e, ok := m.live(key); ok {
				token = which(e, token)
			}
		})
		return brk(ctx, key, token)
	}
}
