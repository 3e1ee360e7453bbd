package peers

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	redsyncredis "github.com/go-redsync/redsync/v4/redis"
	redsyncgoredis "github.com/go-redsync/redsync/v4/redis/goredis/v9"
	redsyncrueidis "github.com/go-redsync/redsync/v4/redis/rueidis"
	lockstepredis "github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/locker"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidiscompat"
	"github.com/redis/rueidis/rueidislock"
)

var redisLocks = map[string]opener{
	lockstepRedis:  openLockstepRedis,
	floor:          func(ctx context.Context, server string) (*locks, error) { return openFloor(server, false) },
	floorPipelined: func(ctx context.Context, server string) (*locks, error) { return openFloor(server, true) },
	rawMinting:     openRawMinting,
	rawRueidislock: func(ctx context.Context, server string) (*locks, error) { return openRueidislock(server, validity) },
	rueidislock1s:  func(ctx context.Context, server string) (*locks, error) { return openRueidislock(server, time.Second) },
	redsyncRueidis: func(ctx context.Context, server string) (*locks, error) {
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server}})
		if err != nil {
			return nil, err
		}
		return redsyncLocks(redsyncrueidis.NewPool(rueidiscompat.NewAdapter(client)), client.Close,
			redsync.WithTries(1<<30), redsync.WithRetryDelay(pollDelay)), nil
	},
	redsyncGoRedis: func(ctx context.Context, server string) (*locks, error) {
		client := goredis.NewClient(&goredis.Options{Addr: server})
		return redsyncLocks(redsyncgoredis.NewPool(client), func() { client.Close() },
			redsync.WithTries(1<<30), redsync.WithRetryDelay(pollDelay)), nil
	},
	redsyncDefault: func(ctx context.Context, server string) (*locks, error) {
		client := goredis.NewClient(&goredis.Options{Addr: server})
		return redsyncLocks(redsyncgoredis.NewPool(client), func() { client.Close() }, redsync.WithTries(1<<30)), nil
	},
	bsmRedislock: openBSM,
}

// pollDelay is how often those who poll do so where they contend. Their defaults, no
// waiting at all or 50 to 250 ms, are for locks that are rarely wanted by two.
const pollDelay = time.Millisecond

// validity is how long a lock of rueidislock, or a session of Lockstep's, outlives its
// process. Both renew it three times within that time.
const validity = 3 * time.Second

func openLockstepRedis(ctx context.Context, server string) (*locks, error) {
	l, err := lockstepredis.New(ctx, lockstepredis.Config{Addrs: []string{server}, Validity: validity}, locker.Config{})
	if err != nil {
		return nil, err
	}
	all := lockstepLocks(l)
	all.stored = func(key string) string { return "lockstep:0:{:" + key + "}" }
	return all, nil
}

// openFloor is the least that a lock with an owner and an expiry can cost: no token, no
// waiting, no notice of a loss.
func openFloor(server string, pipelined bool) (*locks, error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server}, AlwaysPipelining: pipelined})
	if err != nil {
		return nil, err
	}
	release := rueidis.NewLuaScript(compareAndDelete)
	var n atomic.Uint64
	return &locks{
		pair: func(ctx context.Context, key string) error {
			owner := "0123456789abcdef0123456789abcdef-" + strconv.FormatUint(n.Add(1), 10)
			err := client.Do(ctx, client.B().Set().Key(key).Value(owner).Nx().PxMilliseconds(leaseTTL.Milliseconds()).Build()).Error()
			if err != nil {
				return err
			}
			freed, err := release.Exec(ctx, client, []string{key}, []string{owner}).AsInt64()
			if err == nil && freed == 0 {
				err = errLost
			}
			return err
		},
		close: client.Close,
	}, nil
}

// openRawMinting is the least that a lock costs whose holder hears of its deletion and has a token that
// grows. The token is not seeded by a clock, so that it would not survive the loss of the counter.
func openRawMinting(_ context.Context, server string) (*locks, error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{server}, AlwaysPipelining: true,
		ClientTrackingOptions: []string{"OPTOUT", "NOLOOP"}, OnInvalidations: func([]rueidis.RedisMessage) {},
	})
	if err != nil {
		return nil, err
	}
	acquire := rueidis.NewLuaScript(`if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('GET', KEYS[1])
local token = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return token`)
	release := rueidis.NewLuaScript(compareAndDelete)
	ttl, counterTTL := strconv.FormatInt(leaseTTL.Milliseconds(), 10), strconv.FormatInt(time.Hour.Milliseconds(), 10)
	var n atomic.Uint64
	return &locks{
		pair: func(ctx context.Context, key string) error {
			owner := "0123456789abcdef0123456789abcdef-" + strconv.FormatUint(n.Add(1), 10)
			token, err := acquire.Exec(ctx, client, []string{key, key + ":token"}, []string{owner, ttl, counterTTL}).AsInt64()
			if err != nil {
				return err
			}
			if token == 0 {
				return errTaken
			}
			freed, err := release.Exec(ctx, client, []string{key}, []string{owner}).AsInt64()
			if err == nil && freed == 0 {
				err = errLost
			}
			return err
		},
		close: client.Close,
	}, nil
}

const compareAndDelete = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`

var errLost = errors.New("the lock was lost")

// openRueidislock: one key instead of three a lock, and without the invalidations that a
// lock's own renewals cause: as fast as it can be configured.
func openRueidislock(server string, validity time.Duration) (*locks, error) {
	l, err := rueidislock.NewLocker(rueidislock.LockerOption{
		ClientOption: rueidis.ClientOption{InitAddress: []string{server}},
		KeyMajority:  1, NoLoopTracking: true,
		KeyValidity: validity, ExtendInterval: validity / 3,
		TryNextAfter: 5 * time.Second, // one attempt's time; by default no round trip may take 20 ms
	})
	if err != nil {
		return nil, err
	}
	return &locks{
		pair: func(ctx context.Context, key string) error {
			_, cancel, err := l.WithContext(ctx, key)
			if err != nil {
				return err
			}
			cancel()
			return nil
		},
		lock: func(ctx context.Context, key string) (any, error) {
			// The hold ends with ctx, so that the waiting has one of its own.
			life, end := context.WithCancel(context.Background())
			stop := context.AfterFunc(ctx, end)
			_, cancel, err := l.WithContext(life, key)
			stop()
			if err != nil {
				end()
				return nil, err
			}
			return cancel, nil
		},
		unlock: func(_ context.Context, _ string, held any) error {
			held.(context.CancelFunc)()
			return nil
		},
		hold: func(key string) (any, error) {
			_, cancel, err := l.TryWithContext(context.Background(), key)
			return cancel, err
		},
		stored: func(key string) string { return "rueidislock:0:" + key },
		close:  l.Close,
	}, nil
}

func redsyncLocks(pool redsyncredis.Pool, closeClient func(), opts ...redsync.Option) *locks {
	r := redsync.New(pool)
	opts = append(opts, redsync.WithExpiry(leaseTTL))
	unlock := func(ctx context.Context, m *redsync.Mutex) error {
		ok, err := m.UnlockContext(ctx)
		if err == nil && !ok {
			err = errLost
		}
		return err
	}
	return &locks{
		pair: func(ctx context.Context, key string) error {
			m := r.NewMutex(key, opts...)
			if err := m.LockContext(ctx); err != nil {
				return err
			}
			return unlock(ctx, m)
		},
		lock: func(ctx context.Context, key string) (any, error) {
			m := r.NewMutex(key, opts...)
			return m, m.LockContext(ctx)
		},
		unlock: func(ctx context.Context, _ string, held any) error { return unlock(ctx, held.(*redsync.Mutex)) },
		extend: func(ctx context.Context, held any) error {
			_, err := held.(*redsync.Mutex).ExtendContext(ctx)
			return err
		},
		lease: func(key string, d time.Duration) (any, error) {
			m := r.NewMutex(key, redsync.WithExpiry(d))
			return m, m.TryLock()
		},
		stored: func(key string) string { return key },
		close:  closeClient,
	}
}

func openBSM(_ context.Context, server string) (*locks, error) {
	client := goredis.NewClient(&goredis.Options{Addr: server})
	l := redislock.New(client)
	wait := &redislock.Options{RetryStrategy: redislock.LinearBackoff(pollDelay)}
	return &locks{
		pair: func(ctx context.Context, key string) error {
			lock, err := l.Obtain(ctx, key, leaseTTL, nil)
			if err != nil {
				return err
			}
			return lock.Release(ctx)
		},
		lock:   func(ctx context.Context, key string) (any, error) { return l.Obtain(ctx, key, leaseTTL, wait) },
		unlock: func(ctx context.Context, _ string, held any) error { return held.(*redislock.Lock).Release(ctx) },
		extend: func(ctx context.Context, held any) error {
			return held.(*redislock.Lock).Refresh(ctx, leaseTTL, nil)
		},
		lease: func(key string, d time.Duration) (any, error) {
			return l.Obtain(context.Background(), key, d, nil)
		},
		stored: func(key string) string { return key },
		close:  func() { client.Close() },
	}, nil
}
