// Package certlock gives certmagic's storage locks of package locker: a certificate is obtained by
// one process of the fleet at a time, whatever the storage is.
package certlock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/lockstep-go/lockstep/locker"
)

// Defaults, where Options are silent.
const (
	DefaultName = "certmagic"
	DefaultTTL  = 30 * time.Second
)

// Options are how names are locked. The zero value works.
type Options struct {
	// Name and a slash go before certmagic's names; it is the label of the locks, too. It may hold
	// no slash. "" means DefaultName.
	Name string
	// TTL is how long the others wait after a process died: the length of the leases, which are
	// kept alive. 0 means DefaultTTL, or the backend's MinTTL if that is longer.
	TTL time.Duration
	// Cap is the longest time for which a lock is kept. certmagic holds one through all its
	// retries, for up to 30 days. 0 is no cap.
	Cap time.Duration
}

// Storage is a certmagic.Storage with the locks of a Locker in place of its own. Its methods are
// safe for concurrent use.
type Storage struct {
	certmagic.Storage

	l     *locker.Locker
	names locker.Family[string]

	mu sync.Mutex
	// held has more than one lease of a name only after a loss, when another caller here has the
	// name already and the first has not called Unlock yet. Nothing says whose Unlock it is, so it
	// is the earliest's: with the latest, a caller who lost the lock would free it under the one
	// who has it.
	held map[string][]*locker.Lease
}

var (
	_ certmagic.Storage          = (*Storage)(nil)
	_ certmagic.TryLocker        = (*Storage)(nil)
	_ certmagic.LockLeaseRenewer = (*Storage)(nil)
)

// New gives s the locks of l, which stays open when certmagic has ended. Every process that shares
// the storage needs it. The errors are locker.ErrInvalidArgument and ErrInvalidConfig.
func New(s certmagic.Storage, l *locker.Locker, o Options) (*Storage, error) {
	switch {
	case s == nil:
		return nil, fmt.Errorf("certlock: the storage is nil: %w", locker.ErrInvalidArgument)
	case l == nil:
		return nil, fmt.Errorf("certlock: the Locker is nil: %w", locker.ErrInvalidArgument)
	case o.TTL < 0:
		return nil, fmt.Errorf("certlock: TTL: %s is below 0: %w", o.TTL, locker.ErrInvalidConfig)
	case o.Cap < 0:
		return nil, fmt.Errorf("certlock: Cap: %s is below 0; 0 is no cap: %w", o.Cap, locker.ErrInvalidConfig)
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.TTL == 0 {
		o.TTL = max(DefaultTTL, l.Capabilities().MinTTL)
	}
	return &Storage{
		Storage: s, l: l, held: map[string][]*locker.Lease{},
		names: locker.NewFamily[string](o.Name, locker.WithTTL(o.TTL), locker.WithKeepAlive(o.Cap), locker.WithRetry(locker.DefaultRetry())),
	}, nil
}

// Lock implements certmagic.Locker. It waits until ctx ends, through outages too.
func (s *Storage) Lock(ctx context.Context, name string) error {
	lease, err := s.names.Lock(ctx, s.l, name)
	if err == nil {
		s.add(name, lease)
	}
	return err
}

// TryLock implements certmagic.TryLocker. A store that does not answer is an error.
func (s *Storage) TryLock(ctx context.Context, name string) (bool, error) {
	lease, err := s.names.TryLock(ctx, s.l, name)
	switch {
	case errors.Is(err, locker.ErrHeld):
		return false, nil
	case err != nil:
		return false, err
	}
	s.add(name, lease)
	return true, nil
}

func (s *Storage) add(name string, lease *locker.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[name] = append(s.held[name], lease)
}

// Unlock implements certmagic.Locker, also with a ctx that has ended. After an error it may be
// called again. A lock that was lost is none: RenewLockLease reports it.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	all := s.held[name]
	if len(all) == 0 {
		s.mu.Unlock()
		return notLocked(name)
	}
	if len(all) == 1 {
		delete(s.held, name)
	} else {
		s.held[name] = all[1:]
	}
	s.mu.Unlock()
	err := all[0].Unlock(ctx)
	if !errors.Is(err, locker.ErrUnavailable) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[name] = append([]*locker.Lease{all[0]}, s.held[name]...)
	return err
}

// RenewLockLease implements certmagic.LockLeaseRenewer, which certmagic calls before each attempt.
// The leases renew themselves, so it only looks: the error is locker.ErrLost when the lock was lost,
// and certmagic then gives up the attempt.
func (s *Storage) RenewLockLease(_ context.Context, name string, _ time.Duration) error {
	s.mu.Lock()
	all := s.held[name]
	s.mu.Unlock()
	if len(all) == 0 {
		return notLocked(name)
	}
	return all[0].Err()
}

func notLocked(name string) error {
	return fmt.Errorf("certlock: %q is not locked here: %w", name, locker.ErrReleased)
}
