package peers

import (
	"context"
	"fmt"
	"time"
)

// The subjects' names. A name chooses what openLocks opens.
const (
	lockstep = "Lockstep"

	mobyLocker   = "moby/locker"
	afterFuncMap = "AfterFunc map"
	ttlCache     = "ttlcache"
	otterCache   = "otter"
	channelFIFO  = "FIFO of channels"
	plainMutex   = "sync.Mutex"

	floor          = "floor"
	floorPipelined = "floor, always pipelining"
	lockstepRedis  = "Lockstep on Redis"
	rawRueidislock = "rueidislock"
	rueidislock1s  = "rueidislock, validity 1 s"
	redsyncRueidis = "redsync/rueidis"
	redsyncGoRedis = "redsync/go-redis"
	redsyncDefault = "redsync, default delay"
	bsmRedislock   = "bsm/redislock"
)

// leaseTTL is the ttl of a lock that is released long before.
const leaseTTL = 30 * time.Second

// locks are one subject's, reduced to what the tasks need. A function that a subject has
// no counterpart for is nil.
type locks struct {
	// pair is lock and unlock of a free key, the way that the subject does it fastest.
	pair func(ctx context.Context, key string) error
	// lock waits for the key. held is for unlock; a pointer, so that it does not allocate.
	lock   func(ctx context.Context, key string) (held any, err error)
	unlock func(ctx context.Context, key string, held any) error

	// lease takes a free key for d, and returns a handle that keeps it. hold does the same
	// for good. ended is closed when the lease that the handle stands for has ended.
	lease func(key string, d time.Duration) (held any, err error)
	hold  func(key string) (held any, err error)
	ended func(held any) <-chan struct{}
	// due is when the lease was to end.
	due func(held any) time.Time

	extend func(ctx context.Context, held any) error
	// stored is the name of key's lock in Redis.
	stored func(key string) string

	close func()
}

// opener opens a subject's locks; server is host:port for those of Redis.
type opener func(ctx context.Context, server string) (*locks, error)

func openLocks(ctx context.Context, name, server string) (*locks, error) {
	for _, all := range []map[string]opener{memoryLocks, redisLocks} {
		if open := all[name]; open != nil {
			return open(ctx, server)
		}
	}
	return nil, fmt.Errorf("there are no locks of this name")
}
