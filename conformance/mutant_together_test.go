package conformance

import (
	"context"
	"slices"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// togetherMutants take several keys in one step, but not as they should.
var togetherMutants = []brokenBackend{
	{"what came before a held key stays", "MULTI-001", func(m *mutant) {
		m.all = func(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
			grants := make([]driver.Grant, len(rs))
			for i, r := range rs {
				var err error
				if grants[i], err = m.acquire(ctx, r); err != nil {
					return nil, i, err
				}
			}
			return grants, -1, nil
		}
	}},
	{"the keys that are held are left out", "MULTI-001", func(m *mutant) {
		m.all = func(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
			grants := make([]driver.Grant, len(rs))
			for i, r := range rs {
				grants[i], _ = m.acquire(ctx, r)
				grants[i].Token, grants[i].TTL = max(grants[i].Token, 1), r.TTL
			}
			return grants, -1, nil
		}
	}},
	{"the grants come in another order", "MULTI-001", func(m *mutant) {
		m.togetherGranted(func(_ []driver.Request, grants []driver.Grant) { slices.Reverse(grants) })
	}},
	{"who was refused hears of the next holder's loss", "MULTI-001", func(m *mutant) {
		all, acquire := m.all, m.acquire
		refused := map[string]driver.Listener{}
		m.all = func(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
			grants, at, err := all(ctx, rs)
			if err != nil {
				m.locked(func() {
					for _, r := range rs {
						refused[r.Key] = r.Hold
					}
				})
			}
			return grants, at, err
		}
		m.acquire = func(ctx context.Context, r driver.Request) (driver.Grant, error) {
			m.locked(func() {
				if l := refused[r.Key]; l != nil {
					r.Hold = bothHear{l, r.Hold}
				}
			})
			return acquire(ctx, r)
		}
	}},
	{"a refusal names the wrong key", "MULTI-001", func(m *mutant) {
		all := m.all
		m.all = func(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
			grants, at, err := all(ctx, rs)
			if at > 0 {
				at--
			}
			return grants, at, err
		}
	}},
	{"a repeat of a step has other tokens", "MULTI-001", func(m *mutant) {
		m.togetherGranted(func(_ []driver.Request, grants []driver.Grant) {
			m.locked(func() {
				for i := range grants {
					m.token++
					grants[i].Token = m.token
				}
			})
		})
	}},
	{"the first one's listener hears for all", "MULTI-003", func(m *mutant) {
		all := m.all
		m.all = func(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
			rs = slices.Clone(rs)
			for i := range rs {
				rs[i].Hold = rs[0].Hold
			}
			return all(ctx, rs)
		}
	}},
	{"the last of several keys lasts for twice the ttl", "MULTI-004", func(m *mutant) {
		m.togetherGranted(func(rs []driver.Request, grants []driver.Grant) {
			m.locked(func() {
				last := rs[len(rs)-1]
				e := m.m[last.Key]
				e.until = e.until.Add(last.TTL + time.Minute)
				m.m[last.Key] = e
			})
		})
	}},
}

// bothHear tells two listeners.
type bothHear [2]driver.Listener

func (b bothHear) Lost(cause error) { b[0].Lost(cause); b[1].Lost(cause) }

// togetherGranted lets fn change what AcquireAll has granted.
func (m *mutant) togetherGranted(fn func([]driver.Request, []driver.Grant)) {
	all := m.all
	m.all = func(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
		grants, at, err := all(ctx, rs)
		if err == nil {
			fn(rs, grants)
		}
		return grants, at, err
	}
}
