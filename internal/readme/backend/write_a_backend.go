//go:build ignore

// This file is not compiled: it holds the blocks of docs/write-a-backend.md. Each of them also
// stands in conformance/examples/dirlock, where it is compiled and proven; the test beside
// this file sees to it that they stay the same.

package backend

// entry is what stands under a key. Its zero value is what stands under a free one.
type entry struct {
	Key     []byte
	Owner   string
	Token   uint64
	Session bool
	Until   time.Time `json:"-"` // by the clock that all clients share; the file's modification time

	// foreign says that something stands there which no client of ours wrote.
	foreign bool
}

// taken says whether the key is anybody's at the instant now. What we do not understand
// is not free: somebody may count on it.
func (e *entry) taken(now time.Time) bool {
	return e.foreign || e.Owner != "" && now.Before(e.Until)
}

// heldBy is nil if h holds the key at the instant now, and otherwise says why not.
func (e *entry) heldBy(h driver.Holder, now time.Time) error {
	switch {
	case e.Owner != h.Owner.String(), h.Token != 0 && h.Token != e.Token:
		return driver.ErrLost
	case !now.Before(e.Until):
		return driver.ErrExpired
	}
	return nil
}

func acquire() {
	err := b.step(ctx, func(s *step) error {
		e, err := s.read(r.Key)
		if err != nil {
			return err
		}
		owner := r.Owner.String()
		until = s.now.Add(life)
		switch {
		case e.taken(s.now) && e.Owner == owner:
			token = e.Token // the core repeats itself: it has not heard our answer
			return s.prolong(r.Key, until)
		case e.taken(s.now):
			return driver.Held(e.Until.Sub(s.now))
		}
		if token, err = s.mint(); err != nil {
			return err
		}
		return s.create(entry{Key: []byte(r.Key), Owner: owner, Token: token, Session: r.Session(), Until: until})
	})
}

func release() {
	b.forget(h.Owner)
	return b.step(ctx, func(s *step) error {
		e, err := s.read(h.Key)
		if err != nil {
			return err
		}
		if err := e.heldBy(h, s.now); err != nil {
			return err
		}
		return s.remove(fileName(h.Key))
	})
}

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		path := directory(t) // each case gets one of its own
		open := func(tb testing.TB) driver.Backend {
			b, err := Open(tb.Context(), Config{Path: path, Validity: validity})
			if err != nil {
				tb.Fatal(err)
			}
			return b
		}
		return &conformance.Target{
			Backend: open(t),
			Peer:    open,
			Delete:  store{path}.remove,
			Crash:   store{path}.crash,
			Restart: store{path}.restart,
			Wipe:    store{path}.wipe,
			Keys:    store{path}.keys,
			Inject:  store{path}.inject(),
		}
	}, conformance.Parallel(), conformance.Slack(3)) // for machines that have other things to do
}

func init() { locker.Register("dir", Open) }

func open() {
	one, err := locker.Open(ctx, locker.Config{Type: "dir", Backend: dirlock.Config{Path: path}})
}
