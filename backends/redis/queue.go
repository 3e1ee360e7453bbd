package redis

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

const (
	// patience is how long the others in the queue wait for the process whose turn it is, in ms.
	patience = "10"
	// soon is when a process that hears of no changes asks again after it got its place, in ms.
	// The turn of the process before it is over by then, and the others still wait for it. By
	// its polls alone it would come too late, time after time. (WAIT-007)
	soon = "6"
	// maxLeavers is how many places are given up at a time. The others expire.
	maxLeavers = 4
	// queueTTL is how long a queue outlives the last attempt of anybody in it, in ms.
	queueTTL = "60000"
)

// acquireQueued is acquire for one who waits.
func (b *backend) acquireQueued(ctx context.Context, w wish) (uint64, error) {
	sent := time.Now()
	// A repeat of an attempt that was granted, whether this client has heard of it or not, is for the server.
	_, _, ours := b.watched.present(w.lock, w.owner)
	wanted, held := b.watched.asking(w.lock, sent, b.announced(), ours || b.unknowns.has(w.owner))
	switch {
	case held != nil:
		return 0, held
	case !wanted:
		return b.acquireFree(ctx, w)
	}
	again := soon
	if b.announced() {
		again = "0"
	}
	reply := queueScript.Exec(ctx, b.client,
		[]string{w.lock, b.layout.tokenKey(w.key), b.layout.queueKey(w.key), b.bellOf(w.key)},
		[]string{w.value, millis(w.ttl), counterLife(w.ttl), b.process, patience, queueTTL, again})
	if said, ok := rueidis.IsRedisErr(reply.Error()); ok && said.IsTryAgain() {
		// The slot is migrating, and the server can do nothing with several keys of which one is not
		// there. There is no order meanwhile.
		return b.acquireFree(ctx, w)
	}
	n, m, err := b.queueReply(ctx, w.key, reply)
	if err != nil {
		return 0, err
	}
	token, err := tokenOrRemaining(n)
	left, _ := driver.Remaining(err)
	switch before := int(m); {
	case err == nil:
		b.watched.grantedInTurn(w.lock, m > 0, sent.Add(w.ttl))
	case !b.announced(), before == -1: // at -1 it is free, and those who have a turn are not in the queue
		b.watched.refused(w.lock, 0, time.Time{}, false)
	case before < 0: // it is free: if those who were called have not come by then, this one asks again
		b.watched.refused(w.lock, -before-1, sent.Add(left), true)
	default:
		b.watched.refused(w.lock, before, sent.Add(left), false)
	}
	return token, err
}

// queueReply reads the reply of queue.lua.
func (b *backend) queueReply(ctx context.Context, key string, reply rueidis.RedisResult) (n, m int64, err error) {
	list, err := reply.ToArray()
	if err != nil {
		return 0, 0, b.scriptError(ctx, key, reply, err)
	}
	if len(list) != 2 {
		return 0, 0, b.malformed(key, fmt.Sprintf("%d values, not 2", len(list)))
	}
	n, bad := list[0].AsInt64()
	m, bad2 := list[1].AsInt64()
	most := int64(1) // others wait, or not
	if n <= 0 {
		most = math.MaxInt32
	}
	if bad != nil || bad2 != nil || n > driver.MaxToken || m > most || m < -most || n > 0 && m < 0 {
		return 0, 0, b.malformed(key, fmt.Sprintf("%d and %d, not a token or a time, and a number of processes", n, m))
	}
	return n, m, nil
}

// leaveQueue gives up this process's place. If that fails, the others wait for it once,
// for the length of patience.
func (b *backend) leaveQueue(key string) {
	if b.closed.Load() {
		return
	}
	if b.leavers.Add(1) > maxLeavers { // so many at once give up in an outage
		b.leavers.Add(-1)
		return
	}
	b.leaving.Add(1)
	go func() {
		defer b.leaving.Done()
		defer b.leavers.Add(-1)
		ctx, cancel := context.WithTimeout(b.closing, b.cfg.Timeout)
		defer cancel()
		defer b.watched.wake(b.layout.lockKey(key)) // somebody who came meanwhile has lost the place as well
		_ = leaveScript.Exec(ctx, b.client, []string{b.layout.queueKey(key)}, []string{b.process, patience, queueTTL}).Error()
	}()
}
