package peers

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/locker"
	mobylocker "github.com/moby/locker"
)

var memoryLocks = map[string]opener{
	lockstep:        openLockstep,
	lockstepSession: openLockstepSession,
	mobyLocker:      openMoby,
	afterFuncMap:    openAfterFunc,
	channelFIFO:     openFIFO,
	handleFIFO:      openHandleFIFO,
	plainMutex:      openMutex,
}

var errTaken = errors.New("the key is taken")

func openLockstep(context.Context, string) (*locks, error) {
	l, err := memory.New(memory.Config{}, locker.Config{})
	if err != nil {
		return nil, err
	}
	return lockstepLocks(l), nil
}

// openLockstepSession: without a ttl, as moby/locker is.
func openLockstepSession(context.Context, string) (*locks, error) {
	l, err := memory.New(memory.Config{}, locker.Config{})
	if err != nil {
		return nil, err
	}
	all := lockstepLocks(l)
	all.pair = func(ctx context.Context, key string) error {
		lease, err := l.Lock(ctx, key, locker.WithSession())
		if err != nil {
			return err
		}
		return lease.Unlock(ctx)
	}
	all.lock = func(ctx context.Context, key string) (any, error) { return l.Lock(ctx, key, locker.WithSession()) }
	return all, nil
}

// lockstepLocks is the same for every backend.
func lockstepLocks(l *locker.Locker) *locks {
	return &locks{
		pair: func(ctx context.Context, key string) error {
			lease, err := l.Lock(ctx, key, locker.WithTTL(leaseTTL))
			if err != nil {
				return err
			}
			return lease.Unlock(ctx)
		},
		lock: func(ctx context.Context, key string) (any, error) {
			return l.Lock(ctx, key, locker.WithTTL(leaseTTL))
		},
		unlock: func(ctx context.Context, _ string, held any) error { return held.(*locker.Lease).Unlock(ctx) },
		extend: func(ctx context.Context, held any) error { return held.(*locker.Lease).Extend(ctx, leaseTTL) },
		lease: func(key string, d time.Duration) (any, error) {
			return l.TryLock(context.Background(), key, locker.WithTTL(d))
		},
		hold:  func(key string) (any, error) { return l.TryLock(context.Background(), key, locker.WithSession()) },
		ended: func(held any) <-chan struct{} { return held.(*locker.Lease).Done() },
		due: func(held any) time.Time {
			deadline, _ := held.(*locker.Lease).Deadline()
			return deadline
		},
		close: func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = l.Close(ctx) // locks that a crashed round left are of no interest
		},
	}
}

// openMoby: a mutex by name. No ttl, no ctx, no token, no notice of a loss.
func openMoby(context.Context, string) (*locks, error) {
	l := mobylocker.New()
	return &locks{
		pair: func(_ context.Context, key string) error {
			l.Lock(key)
			return l.Unlock(key)
		},
		lock: func(_ context.Context, key string) (any, error) {
			l.Lock(key)
			return nil, nil
		},
		unlock: func(_ context.Context, key string, _ any) error { return l.Unlock(key) },
		close:  func() {},
	}, nil
}

// openAfterFunc is what one writes oneself: a sharded map, and a timer for each key.
func openAfterFunc(context.Context, string) (*locks, error) {
	m := &timedMap{seed: maphash.MakeSeed()}
	for i := range m.shards {
		m.shards[i].m = make(map[string]*timedEntry)
	}
	return &locks{
		pair: func(_ context.Context, key string) error {
			e := m.lock(key, leaseTTL)
			if e == nil {
				return errTaken
			}
			m.unlock(e)
			return nil
		},
		lease: func(key string, d time.Duration) (any, error) {
			if e := m.lock(key, d); e != nil {
				return e, nil
			}
			return nil, errTaken
		},
		ended: func(held any) <-chan struct{} {
			e := held.(*timedEntry)
			s := m.shard(e.key)
			s.mu.Lock()
			defer s.mu.Unlock()
			if e.done == nil {
				e.done = make(chan struct{})
			}
			return e.done
		},
		due:   func(held any) time.Time { return held.(*timedEntry).due },
		close: func() {},
	}, nil
}

type timedMap struct {
	seed   maphash.Seed
	shards [16]struct {
		mu sync.Mutex
		m  map[string]*timedEntry
		_  [48]byte
	}
}

type timedEntry struct {
	key   string
	due   time.Time
	timer *time.Timer
	done  chan struct{}
}

func (m *timedMap) shard(key string) *struct {
	mu sync.Mutex
	m  map[string]*timedEntry
	_  [48]byte
} {
	return &m.shards[maphash.String(m.seed, key)%uint64(len(m.shards))]
}

func (m *timedMap) lock(key string, d time.Duration) *timedEntry {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[key] != nil {
		return nil
	}
	e := &timedEntry{key: key, due: time.Now().Add(d)}
	s.m[key] = e
	e.timer = time.AfterFunc(d, func() { m.unlock(e) })
	return e
}

func (m *timedMap) unlock(e *timedEntry) {
	s := m.shard(e.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[e.key] != e {
		return
	}
	delete(s.m, e.key)
	e.timer.Stop()
	if e.done != nil {
		close(e.done)
	}
}

// openFIFO: one lock, a queue of channels, handed from one to the next. The key is not
// looked at. It has nothing but the order, and is the floor for what order costs.
func openFIFO(context.Context, string) (*locks, error) {
	f := &fifo{}
	f.waiters.New = func() any { return &fifoWaiter{ready: make(chan struct{}, 1)} }
	return &locks{
		lock: func(context.Context, string) (any, error) {
			f.lock()
			return nil, nil
		},
		unlock: func(context.Context, string, any) error {
			f.unlock()
			return nil
		},
		close: func() {},
	}, nil
}

type fifo struct {
	mu          sync.Mutex
	held        bool
	first, last *fifoWaiter
	waiters     sync.Pool
}

type fifoWaiter struct {
	next  *fifoWaiter
	ready chan struct{}
}

func (f *fifo) lock() {
	f.mu.Lock()
	if !f.held {
		f.held = true
		f.mu.Unlock()
		return
	}
	w := f.waiters.Get().(*fifoWaiter)
	if f.first == nil {
		f.first = w
	} else {
		f.last.next = w
	}
	f.last = w
	f.mu.Unlock()
	<-w.ready
	w.next = nil
	f.waiters.Put(w)
}

func (f *fifo) unlock() {
	f.mu.Lock()
	w := f.first
	if w == nil {
		f.held = false
	} else {
		f.first = w.next
	}
	f.mu.Unlock()
	if w != nil {
		w.ready <- struct{}{}
	}
}

// openHandleFIFO is the floor for order together with a deadline that is looked at and a handle that
// each holder has to itself.
func openHandleFIFO(context.Context, string) (*locks, error) {
	f, epoch := &fifo{}, time.Now()
	f.waiters.New = func() any { return &fifoWaiter{ready: make(chan struct{}, 1)} }
	return &locks{
		lock: func(_ context.Context, key string) (any, error) {
			h := &fifoHandle{key: key, due: time.Since(epoch) + leaseTTL}
			f.lock()
			return h, nil
		},
		unlock: func(_ context.Context, _ string, held any) error {
			over := time.Since(epoch) > held.(*fifoHandle).due
			f.unlock()
			if over {
				return errLost
			}
			return nil
		},
		close: func() {},
	}, nil
}

// fifoHandle has as many bytes as a Lease, and like it something for the collector to follow.
type fifoHandle struct {
	key string
	due time.Duration
	_   [56]byte
}

func openMutex(context.Context, string) (*locks, error) {
	var mu sync.Mutex
	return &locks{
		lock: func(context.Context, string) (any, error) {
			mu.Lock()
			return nil, nil
		},
		unlock: func(context.Context, string, any) error {
			mu.Unlock()
			return nil
		},
		close: func() {},
	}, nil
}
