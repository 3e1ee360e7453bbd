package peers

import (
	"context"
	"fmt"
	"time"
)

// The subjects' names. A name chooses what openLocks opens.
const (
	lockstep        = "Lockstep"
	lockstepSession = "Lockstep session"

	mobyLocker   = "moby/locker"
	afterFuncMap = "AfterFunc map"
	channelFIFO  = "FIFO of channels"
	handleFIFO   = "FIFO with a handle and two clock readings"
	plainMutex   = "sync.Mutex"

	floor          = "floor"
	floorPipelined = "floor, always pipelining"
	rawMinting     = "raw client that tracks, pipelines and mints"
	lockstepRedis  = "Lockstep on Redis"
	rawRueidislock = "rueidislock"
	rueidislock1s  = "rueidislock, validity 1 s"
	redsyncRueidis = "redsync/rueidis"
	redsyncGoRedis = "redsync/go-redis"
	redsyncDefault = "redsync, default delay"
	bsmRedislock   = "bsm/redislock"

	lockstepPostgres = "Lockstep on PostgreSQL"
	twoUpdates       = "two UPDATEs"
	selectOne        = "SELECT 1"
	advisorySession  = "pg_advisory_lock"
	advisoryTx       = "pg_advisory_xact_lock"
	cirelloPglock    = "cirello.io/pglock"
	cirelloQuick     = "cirello.io/pglock, lease 1 s"
	allissonPglock   = "allisson/go-pglock"
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
	// refused makes one attempt at a key that another client holds; nil says that it was refused.
	refused func(ctx context.Context, key string) error
	// sent is what the client has sent so far: statements, and requests that wait for an answer.
	sent func() (statements, trips int64)
	// stored is the name of key's lock in Redis.
	stored func(key string) string

	close func()
}

// opener opens a subject's locks; server is host:port for those of Redis and of Postgres.
type opener func(ctx context.Context, server string) (*locks, error)

func openLocks(ctx context.Context, name, server string) (*locks, error) {
	for _, all := range []map[string]opener{memoryLocks, redisLocks, postgresLocks} {
		if open := all[name]; open != nil {
			return open(ctx, server)
		}
	}
	return nil, fmt.Errorf("there are no locks of this name")
}
