package redis

import (
	"context"
	"strconv"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// lateness is for how many seconds after an attempt of unknown outcome was taken back it is
// refused should it arrive (lua/takeback.lua, docs/adr/0008-late-requests.md). Nobody sends it
// any more, but a closed connection's bytes are retransmitted: by Linux for 102 s after the
// first retransmission. Later than that, what arrives holds the key until its ttl.
const lateness = 120

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
	if h.Token == 0 || b.unknowns.has(owner) {
		n, err = b.takeBack(ctx, h.Key, lock, owner)
	} else {
		n, err = b.free(ctx, h.Key, lock, owner)
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return b.whyLost(ctx, lock, owner)
	}
	b.watched.freed(lock, n) // see Extend
	return nil
}

// The replies of release.lua that freed the lock, where it was to call the next process.
const (
	calledAnother = 2
	calledNobody  = 3 // or this process itself
)

func (b *backend) free(ctx context.Context, key, lock, owner string) (int64, error) {
	if b.announced() && b.watched.wanted(lock) {
		reply := releaseScript.Exec(ctx, b.client, []string{lock, b.layout.queueKey(key)}, []string{owner, b.process, patience, queueTTL})
		if said, ok := rueidis.IsRedisErr(reply.Error()); !ok || !said.IsTryAgain() { // see takeBack
			return b.number(ctx, key, reply, 0, calledNobody)
		}
	}
	return b.number(ctx, key, releaseScript.Exec(ctx, b.client, []string{lock}, []string{owner}), 0, 1)
}

func (b *backend) takeBack(ctx context.Context, key, lock, owner string) (int64, error) {
	counter := b.layout.tokenKey(key)
	reply := takeBackScript.Exec(ctx, b.client, []string{lock, counter, givenUpKey(counter, owner)}, []string{owner, strconv.Itoa(lateness), counterLife(0)})
	n, err := b.number(ctx, key, reply, 0, 1)
	if said, ok := rueidis.IsRedisErr(reply.Error()); ok && said.IsTryAgain() {
		// The slot is migrating, and the server can do nothing with several keys. What is held
		// need not stay so until it has moved; only a late attempt is not refused meanwhile,
		// which the core's next repetition sees to.
		if freed, failed := b.free(ctx, key, lock, owner); failed == nil && freed > 0 {
			b.watched.wake(lock)
		}
	}
	return n, err
}
