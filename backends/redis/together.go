package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// maxTogether is how many keys one script takes: a server does nothing else meanwhile.
const maxTogether = 128

// AcquireAll implements driver.Together. In a Cluster the keys have to be in one slot.
func (b *backend) AcquireAll(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
	switch {
	case b.closed.Load():
		return nil, -1, driver.ErrClosed
	case len(rs) > maxTogether, b.client.Mode() == rueidis.ClientModeCluster && !oneSlot(rs):
		return nil, -1, driver.ErrNotTogether
	case rs[0].Session():
		return b.sessionsTogether(ctx, rs)
	}
	holds, values := make([]*hold, len(rs)), make([]string, len(rs))
	for i := range rs {
		var owner string
		values[i], owner = lockValue(&rs[i])
		holds[i] = b.watched.hold(b.layout.lockKey(rs[i].Key), owner, &rs[i]) // as in attempt
	}
	sent := time.Now()
	grants, at, err := b.acquireAll(ctx, rs, values, rs[0].TTL)
	for i, h := range holds {
		b.unknowns.note(h.owner, err, lateness*time.Second+b.cfg.Timeout)
		if err != nil {
			b.watched.unhold(h)
			continue
		}
		if b.watched.granted(h, grants[i].Token, sent, rs[i].TTL) {
			b.verify(h)
		}
		b.supersede(h.lock, h.owner, grants[i].Token)
	}
	return grants, at, err
}

// oneSlot says whether rs are all in one slot of a Cluster.
func oneSlot(rs []driver.Request) bool {
	first := slotOf(rs[0].Key)
	for i := range rs[1:] {
		if slotOf(rs[i+1].Key) != first {
			return false
		}
	}
	return true
}

// acquireAll asks the server, for leases and sessions alike.
func (b *backend) acquireAll(ctx context.Context, rs []driver.Request, values []string, ttl time.Duration) (grants []driver.Grant, at int, err error) {
	keys, args := make([]string, 0, 2*len(rs)), append(make([]string, 0, 3+len(rs)), "", millis(ttl), counterLife(ttl))
	for i := range rs {
		keys = append(keys, b.layout.lockKey(rs[i].Key), b.layout.tokenKey(rs[i].Key))
	}
	result := togetherScript.Exec(ctx, b.client, keys, append(args, values...))
	reply, err := result.ToArray()
	if err != nil {
		return nil, -1, b.scriptError(ctx, rs[0].Key, result, err)
	}
	if len(reply) == 2 {
		if n, err := reply[0].AsInt64(); err != nil || n <= 0 {
			return b.notAll(ctx, rs, reply)
		}
	}
	if len(reply) != len(rs) {
		return nil, -1, b.malformed(rs[0].Key, fmt.Sprintf("%d values, not %d", len(reply), len(rs)))
	}
	grants = make([]driver.Grant, len(rs))
	for i := range rs {
		token, err := b.number(ctx, rs[i].Key, rueidis.NewResult(reply[i], nil), 1, driver.MaxToken)
		if err != nil {
			return nil, i, err
		}
		grants[i] = driver.Grant{Token: uint64(token), TTL: rs[i].TTL}
	}
	return grants, -1, nil
}

// notAll reads the reply of together.lua when a key could not be had: what acquire.lua says of it, and
// which it is.
func (b *backend) notAll(ctx context.Context, rs []driver.Request, reply []rueidis.RedisMessage) ([]driver.Grant, int, error) {
	which, err := reply[1].AsInt64()
	if err != nil || which < 1 || which > int64(len(rs)) {
		return nil, -1, b.malformed(rs[0].Key, "it does not say of which key")
	}
	at := int(which - 1)
	_, err = b.grantOrRemaining(ctx, rs[at].Key, rueidis.NewResult(reply[0], nil))
	return nil, at, err
}

// sessionsTogether is AcquireAll for sessions: all are granted in one step, and then given to
// rueidislock one after the other, which sends nothing.
func (b *backend) sessionsTogether(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
	all, values := make([]*session, len(rs)), make([]string, len(rs))
	for i := range rs {
		s := &session{b: b, key: rs[i].Key, lock: b.layout.lockKey(rs[i].Key), hears: rs[i].Hold, ask: ctx}
		s.value, s.owner = lockValue(&rs[i])
		all[i], values[i] = s, s.value
		// In the order of the keys: two callers cannot have each other's next.
		if err := b.sessions.take(ctx, s.lock); err != nil {
			return nil, i, fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
		}
		defer b.sessions.give(s.lock, true)
	}
	sent := time.Now()
	grants, at, err := b.acquireAll(ctx, rs, values, b.cfg.Validity)
	for i, s := range all {
		b.unknowns.note(s.owner, err, lateness*time.Second+b.cfg.Timeout)
		if err != nil {
			continue
		}
		s.granted, s.confirmed = grants[i].Token, sent
		if held := b.sessions.get(s.lock); held != nil {
			if held.owner == s.owner && held.adopt(s.hears) {
				continue
			}
			held.finish(driver.ErrLost) // the server has granted it to another owner
		}
		if _, failed := b.start(ctx, s); failed != nil {
			// Of unknown outcome, whatever it is: the core then takes back all of them.
			at, err = i, fmt.Errorf("%w: %v", driver.ErrUnavailable, failed)
		}
	}
	return grants, at, err
}
