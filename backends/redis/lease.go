package redis

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// counterTTL is how long a token counter outlives its last grant. It need not be long:
// afterwards the server's clock takes over (lua/acquire.lua), which is past every token
// handed out, unless it is set back by more than this in between. Counters without an
// end are 25 million keys one day.
const counterTTL = "3600000"

// lateness is for how many seconds after an attempt of unknown outcome was taken back it is
// refused should it arrive (lua/takeback.lua, docs/adr/0008-late-requests.md). Nobody sends it
// any more, but a closed connection's bytes are retransmitted: by Linux for 102 s after the
// first retransmission. Later than that, what arrives holds the key until its ttl.
const lateness = 120

// Acquire implements driver.Backend.
func (b *backend) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	if b.closed.Load() {
		return driver.Grant{}, driver.ErrClosed
	}
	if r.Session() {
		return b.acquireSession(ctx, r)
	}
	lock := b.layout.lockKey(r.Key)
	owner := ownerValue(r.Owner, false)
	// Watched from before the attempt: a deletion right after the grant is not missed.
	h := b.watched.hold(lock, owner, r.Hold)
	sent := time.Now()
	token, err := b.acquire(ctx, r, owner, r.TTL)
	if err != nil {
		b.watched.unhold(h)
		return driver.Grant{}, err
	}
	if b.watched.granted(h, token, sent, r.TTL) {
		b.verify(h)
	}
	return driver.Grant{Token: token, TTL: r.TTL}, nil
}

// acquire is one attempt, for leases and sessions alike.
func (b *backend) acquire(ctx context.Context, r driver.Request, owner string, ttl time.Duration) (token uint64, err error) {
	if r.Waiting {
		token, err = b.acquireInLine(ctx, r.Key, owner, ttl)
	} else {
		token, err = b.acquireNow(ctx, r.Key, owner, ttl)
	}
	b.doubts.note(owner, err, lateness*time.Second+b.cfg.Timeout)
	return token, err
}

func (b *backend) acquireNow(ctx context.Context, key, owner string, ttl time.Duration) (uint64, error) {
	return b.grantOrRest(ctx, acquireScript.Exec(ctx, b.client,
		[]string{b.layout.lockKey(key), b.layout.tokenKey(key)}, []string{owner, millis(ttl), counterTTL}))
}

// grantOrRest reads the reply of acquire.lua and line.lua.
func (b *backend) grantOrRest(ctx context.Context, reply rueidis.RedisResult) (uint64, error) {
	n, err := reply.AsInt64()
	switch {
	case err != nil:
		return 0, b.classify(ctx, err)
	case n > 0:
		return uint64(n), nil
	case n == 0:
		return 0, driver.ErrHeld
	}
	return 0, driver.Held(time.Duration(-n-1) * time.Millisecond)
}

// Extend implements driver.Backend.
func (b *backend) Extend(ctx context.Context, h driver.Holder, ttl time.Duration) (driver.Grant, error) {
	if b.closed.Load() { // the client of a Cluster may still let a command through
		return driver.Grant{}, driver.ErrClosed
	}
	lock, owner := b.layout.lockKey(h.Key), ownerValue(h.Owner, false)
	b.watched.extending(lock, owner)
	sent := time.Now()
	n, err := extendScript.Exec(ctx, b.client, []string{lock}, []string{owner, millis(ttl)}).AsInt64()
	if err != nil {
		return driver.Grant{}, b.classify(ctx, err)
	}
	if n == 0 {
		return driver.Grant{}, driver.ErrLost
	}
	b.watched.extended(lock, owner, sent, ttl)
	// Our own writes are not announced to us, and a waiter here may have planned its next
	// attempt for the old end.
	b.watched.wake(lock)
	return driver.Grant{Token: h.Token, TTL: ttl}, nil
}

// Release implements driver.Backend.
func (b *backend) Release(ctx context.Context, h driver.Holder) error {
	if b.closed.Load() {
		return driver.ErrClosed
	}
	lock := b.layout.lockKey(h.Key)
	owner := ownerValue(h.Owner, h.Session)
	if h.Session {
		b.sessions.release(lock, owner)
	} else {
		b.watched.unholdOwner(lock, owner)
	}
	var n int64
	var err error
	if h.Token == 0 || b.doubts.has(owner) {
		counter := b.layout.tokenKey(h.Key)
		n, err = takeBackScript.Exec(ctx, b.client, []string{lock, counter, givenUpKey(counter, owner)}, []string{owner, strconv.Itoa(lateness), counterTTL}).AsInt64()
	} else {
		n, err = releaseScript.Exec(ctx, b.client, []string{lock}, []string{owner}).AsInt64()
	}
	if err != nil {
		return b.classify(ctx, err)
	}
	if n == 0 {
		return driver.ErrLost
	}
	b.watched.wake(lock) // see Extend
	return nil
}

// Inspect implements driver.Inspector.
func (b *backend) Inspect(ctx context.Context, key string) (driver.Info, bool, error) {
	lock := b.layout.lockKey(key)
	reply, err := inspectScript.Exec(ctx, b.client, []string{lock, b.layout.tokenKey(key)}, nil).ToArray()
	if err != nil && rueidis.IsRedisNil(err) {
		return driver.Info{}, false, nil
	}
	if err != nil || len(reply) != 3 {
		return driver.Info{}, false, b.classify(ctx, err)
	}
	value, err := reply[0].ToString()
	if err != nil {
		return driver.Info{}, false, b.classify(ctx, err)
	}
	var info driver.Info
	info.Owner, info.Session = parseOwner(value)
	if rest, err := reply[1].AsInt64(); err == nil && rest > 0 {
		info.Remaining = time.Duration(rest) * time.Millisecond
	}
	counter, _ := reply[2].ToString() // empty, if it was deleted
	counter, _, _ = strings.Cut(counter, ":")
	info.Token, _ = strconv.ParseUint(counter, 10, 64)
	if token, ok := b.watched.token(lock, value); ok { // the counter is ahead of what is passed on here
		info.Token = token
	}
	return info, true, nil
}

// Ping implements driver.Pinger: every node that this client knows answers.
func (b *backend) Ping(ctx context.Context) error {
	for _, node := range b.client.Nodes() {
		if err := node.Do(ctx, node.B().Ping().Build()).Error(); err != nil {
			return b.classify(ctx, err)
		}
	}
	return nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
