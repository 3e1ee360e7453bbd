package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Acquire implements driver.Backend.
func (b *backend) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	life := r.TTL
	if r.Session() {
		life = b.config.Validity
	}
	var waiter *waker
	if b.listens {
		waiter = b.watched.wanted(r.Key)
	}
	b.watched.mark(waiter, true)
	h := b.watched.hold(r)
	var sent time.Time
	ask := func(wanted bool) (uint64, *time.Duration, error) {
		row, err := b.call(ctx, "lockstep_acquire", func(left time.Duration) [][]byte {
			sent = time.Now() // now that there is a connection
			return [][]byte{[]byte(r.Key), ownerBytes(r.Owner), micros(life), bools(r.Session()), bools(wanted), micros(left),
				[]byte(r.Identity), []byte(r.Note)}
		})
		return readGrant(row, err)
	}
	token, rest, err := ask(waiter != nil)
	if waiter != nil && answeredNo(err) {
		// It may be the mark that was refused, on a server that takes no writes: then the key is held all the same.
		b.watched.mark(waiter, false)
		token, rest, err = ask(false)
	}
	switch {
	case err != nil:
		b.watched.unhold(h)
		b.watched.mark(waiter, false)
		b.doubts.note(r.Owner, err)
		return driver.Grant{}, err
	case token == 0:
		b.watched.unhold(h)
		if rest == nil {
			return driver.Grant{}, driver.ErrHeld
		}
		return driver.Grant{}, driver.Held(*rest)
	}
	if r.Session() && !b.sessions.Keep(r, token, sent) {
		b.watched.unhold(h)
		return driver.Grant{}, driver.ErrClosed
	}
	b.watched.granted(h, sent.Add(life))
	return driver.Grant{Token: token, TTL: r.TTL}, nil
}

// readGrant reads the reply of acquire: a token, or 0 and what remains of the holder's time.
func readGrant(row [][]byte, err error) (token uint64, rest *time.Duration, _ error) {
	if err != nil {
		return 0, nil, err
	}
	if len(row) != 1 {
		return 0, nil, fmt.Errorf("%w: %w", driver.ErrUnavailable, errReply)
	}
	n, err := readInt8(row[0])
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	case n < 0:
		d := time.Duration(-n-1) * time.Microsecond
		rest = &d
	case n > 0:
		token = uint64(n)
	}
	return token, rest, nil
}

// Extend implements driver.Backend.
func (b *backend) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	var sent time.Time
	row, err := b.call(ctx, "lockstep_extend", func(left time.Duration) [][]byte {
		sent = time.Now()
		return [][]byte{[]byte(h.Key), ownerBytes(h.Owner), int8s(int64(h.Token)), micros(ttl), micros(left)}
	})
	if err := b.held(ctx, h.Owner, row, err); err != nil {
		return driver.Grant{}, err
	}
	b.watched.extended(h.Key, h.Owner, sent.Add(ttl))
	return driver.Grant{Token: h.Token, TTL: ttl}, nil
}

// Release implements driver.Backend.
func (b *backend) Release(ctx context.Context, h driver.Holder) error {
	if h.Session {
		b.sessions.Forget(h.Owner)
	}
	b.watched.forget(h.Key, h.Owner)
	name, params := "lockstep_release", [][]byte{[]byte(h.Key), ownerBytes(h.Owner), int8s(int64(h.Token))}
	if h.Token == 0 || b.doubts.has(h.Owner) {
		name, params = "lockstep_takeback", [][]byte{[]byte(h.Key), ownerBytes(h.Owner), micros(lateness)}
	}
	row, err := b.call(ctx, name, func(time.Duration) [][]byte { return params })
	return b.held(ctx, h.Owner, row, err)
}

// held reads the reply of extend and release: whether the hold stood.
func (b *backend) held(ctx context.Context, owner driver.Owner, row [][]byte, err error) error {
	if err != nil {
		return err
	}
	if len(row) != 1 {
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, errReply)
	}
	ok, err := readBool(row[0])
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
	case !ok:
		return b.whyLost(ctx, owner)
	}
	return nil
}

// Ping implements driver.Pinger: the server answers, takes writes, and has the schema, and the role
// may use it.
func (b *backend) Ping(ctx context.Context) error {
	_, err := b.call(ctx, "lockstep_ping", func(time.Duration) [][]byte { return nil })
	return err
}

// SessionErr implements driver.SessionClock.
func (b *backend) SessionErr(h driver.Holder) error { return b.sessions.SessionErr(h) }
