// Package redis keeps Lockstep's locks in Redis: one server, Sentinel or Cluster, from
// version 5 on.
//
//	l, err := redis.New(ctx, redis.Config{Addrs: []string{"localhost:6379"}}, locker.Config{})
//
// or, by configuration alone, importing this package for its registration,
//
//	l, err := locker.Open(ctx, cfg) // cfg.Type == "redis"
//
// It is built on [rueidis], and its sessions on rueidislock, which renews them and hears
// of their loss. Every operation is one round trip of one Lua script that is atomic on
// the server: acquiring sets the expiry as a duration, by the server's clock alone, and
// mints the fencing token in the same step.
//
// # What it can promise, and what not
//
// As long as the one master that holds a key keeps its data, all clauses hold. Redis
// replicates asynchronously: a failover can promote a replica that has not heard of the
// newest locks, and two holders may then believe in the same lock until the first one's
// deadline. The fencing token still tells them apart, if the store that the lock protects
// checks it: the new master's counter, which may have been lost too, starts from the
// server's clock. Keep the servers' clocks synchronized, and set min-replicas-to-write if
// you would rather lose availability.
//
// A Redis that evicts keys (maxmemory-policy other than noeviction) may evict locks. A
// server whose clock is set forward ends them early by as much. Holders count on their own
// monotonic clock, which stands still while a machine is suspended: after that, too, only the
// fencing token tells.
//
// # Waiting and loss
//
// A failed attempt makes Redis remember this client, and announce the next change of the
// key (client-side caching, Redis 6.2 and up, RESP3); a release is heard of in well under
// a millisecond, and so is the deletion of a key that is held. An expiry may be announced
// late or never, so that waiters also try again when the holder's time is up. Without the
// announcements (an older server, a proxy, an ACL without CLIENT TRACKING) waiters poll at
// their Retry.Delay, losses are noticed at the next renewal or the deadline, and
// driver.PromptLoss is not among the capabilities.
//
// A lease that others of the same process wait for goes from hand to hand without the
// server, for 64 times or 5 ms; then it is the turn of the next process that waits, in the
// order in which they came. A waiting process that has died costs the others 10 ms, once.
//
// [rueidis]: https://github.com/redis/rueidis
package redis

import (
	"context"
	"errors"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func init() {
	locker.Register("redis", Open, locker.Names{Schemes: []string{"rediss", "unix"}})
}

// New opens the backend and makes a Locker over it, which owns it. settings.Type and
// settings.Backend stay empty. Errors are those of locker.Open.
func New(ctx context.Context, c Config, settings locker.Config) (*locker.Locker, error) {
	if settings.Type != "" || settings.Backend != nil {
		return nil, &locker.Error{Op: "open", Backend: "redis", Code: locker.InvalidConfig,
			Err: errors.New("type, backend: they are for locker.Open; here the backend's configuration is the argument before")}
	}
	settings.Type, settings.Backend = "redis", c
	return locker.Open(ctx, settings)
}

var (
	_ driver.Backend   = (*backend)(nil)
	_ driver.Notifier  = (*backend)(nil)
	_ driver.Passer    = (*backend)(nil)
	_ driver.Inspector = (*backend)(nil)
	_ driver.Pinger    = (*backend)(nil)
	_ locker.URLConfig = (*Config)(nil)
)
