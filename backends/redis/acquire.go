package redis

import (
	"context"
	"math"
	"strconv"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// counterTTL is how long a token counter outlives the hold that was granted last. It need not be
// long: afterwards the server's clock takes over (lua/acquire.lua), which is past every token
// handed out, unless it is set back by more than this in between. Counters without an
// end are 25 million keys one day.
const counterTTL = time.Hour

// counterLife is the ttl of the counter at the grant of a hold of ttl, in ms. The counter lasts longer
// than the hold: it alone tells others the hold's token, without which nobody can break it.
func counterLife(ttl time.Duration) string { return millis(ttl + counterTTL) }

// counted is until when a hold may last, by our clock, whose counter was given its life for ttl by what
// was sent then, before the counter's life is to be prolonged too. Doing so at each renewal would be
// another write for each.
func counted(sent time.Time, ttl time.Duration) time.Time { return sent.Add(ttl + counterTTL/2) }

// Acquire implements driver.Backend.
func (b *backend) Acquire(ctx context.Context, r driver.Request) (driver.Grant, error) {
	return b.attempt(ctx, r, false)
}

// Queue implements driver.Queuer.
func (b *backend) Queue(ctx context.Context, r driver.Request) (driver.Grant, error) {
	return b.attempt(ctx, r, true)
}

// attempt is one attempt, queued if it is of a Lock that waits or would.
func (b *backend) attempt(ctx context.Context, r driver.Request, queued bool) (driver.Grant, error) {
	if b.closed.Load() {
		return driver.Grant{}, driver.ErrClosed
	}
	if r.Session() {
		return b.acquireSession(ctx, r, queued)
	}
	lock := b.layout.lockKey(r.Key)
	value, owner := lockValue(&r)
	// Watched from before the attempt: a deletion right after the grant is not missed.
	h := b.watched.hold(lock, owner, &r)
	sent := time.Now()
	token, err := b.acquire(ctx, wish{r.Key, lock, value, owner, r.TTL}, queued)
	b.unknowns.note(owner, err, lateness*time.Second+b.cfg.Timeout)
	if err != nil {
		b.watched.unhold(h)
		return driver.Grant{}, err
	}
	if b.watched.granted(h, token, sent, r.TTL) {
		b.verify(h)
	}
	b.supersede(lock, owner, token)
	return driver.Grant{Token: token, TTL: r.TTL}, nil
}

// wish is what an attempt is to get.
type wish struct {
	key, lock    string
	value, owner string
	ttl          time.Duration
}

// acquire asks the server, for leases and sessions alike.
func (b *backend) acquire(ctx context.Context, w wish, queued bool) (token uint64, err error) {
	if queued {
		return b.acquireQueued(ctx, w)
	}
	return b.acquireFree(ctx, w)
}

// acquireFree is an attempt that takes the lock if it is free, whoever waits for it.
func (b *backend) acquireFree(ctx context.Context, w wish) (uint64, error) {
	return b.grantOrRemaining(ctx, w.key, acquireScript.Exec(ctx, b.client,
		[]string{w.lock, b.layout.tokenKey(w.key)}, []string{w.value, millis(w.ttl), counterLife(w.ttl)}))
}

// grantOrRemaining reads the reply of acquire.lua.
func (b *backend) grantOrRemaining(ctx context.Context, key string, reply rueidis.RedisResult) (uint64, error) {
	n, err := b.number(ctx, key, reply, math.MinInt64, driver.MaxToken)
	if err != nil {
		return 0, err
	}
	return tokenOrRemaining(n)
}

func tokenOrRemaining(n int64) (uint64, error) {
	const most = int64(math.MaxInt64 / time.Millisecond) // that a Duration has
	switch {
	case n > 0:
		return uint64(n), nil
	case n == 0 || n < -most:
		return 0, driver.ErrHeld
	}
	return 0, driver.Held(time.Duration(-n-1) * time.Millisecond)
}

// supersede ends what this client still considers held of a lock that owner has just been
// granted. The server need not have announced the end of that: if owner's own attempt found
// it expired, because somebody had shortened its ttl or set the clock forward, NOLOOP keeps
// it from this client (LOSS-003).
func (b *backend) supersede(lock, owner string, token uint64) {
	b.watched.supersede(lock, owner, token)
	b.sessions.supersede(lock, owner, token)
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
