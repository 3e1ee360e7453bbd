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
// As long as the one master that holds a key keeps its data, all clauses hold. Redis replicates
// asynchronously, and a failover can promote a replica that lacks the old master's last moments.
// Grants are lost then: somebody else gets a lock whose holder still considers it held. Releases
// are lost too: Unlock returned nil, but the lock is held again, in the name of an owner that is
// gone, for what remained of its ttl. In a split brain a client that still reaches the old master
// extends and acquires there for as long as the partition lasts.
//
// The fencing token still tells holders apart, if the store that the lock protects checks it:
// a counter that was lost starts again from the server's clock. Keep the servers' clocks
// synchronized. min-replicas-to-write 1 makes an old master refuse after
// min-replicas-max-lag, at the price of availability.
//
// A Redis that evicts keys (maxmemory-policy other than noeviction) may evict locks. A server
// whose clock is set forward ends them early by as much. Redis announces SWAPDB to no client.
// Holders count on their own monotonic clock, which stands still while a machine is suspended:
// after that, too, only the fencing token tells. docs/operating.md of the repository has all of
// this at length, and what it costs in memory: each name keeps a counter for an hour.
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
// The server keeps the announcements that it owes in one table for all its clients, of at most
// tracking-table-max-keys (1,000,000 unless configured). When more is held and waited for than
// fits, it forgets some without saying so. The client looks at the size of the table every few
// seconds. While it is full, leases are looked at and waiters make an attempt in turns, so that a
// deletion or a release is noticed within some ten seconds, and a warning is logged once, by
// log/slog's default logger: raise the limit (an entry takes some 155 bytes). Where the user may
// not call CONFIG GET, the default limit is assumed.
//
// A lease that others of the same process wait for is handed off to the next waiter without the
// server, at most 64 times and for at most 5 ms; then it is the turn of the next process that
// waits, in the order in which they came. A release calls that process, and no other one asks. A waiting
// process that has died costs the others some 10 to 20 ms, once, and a thousand that have died half a
// second: each time that none comes, twice as many are called.
//
// # Other values under a lock's Redis keys
//
// A lock that somebody deletes, renames, overwrites or replaces by a list is lost, and its
// holder is told (ErrLost). Where something else stands in the place of a lock, or of its token
// counter, an attempt gets ErrUnavailable, which names the Redis key, its type and
// what to do; a Lock that waits gets the lock when that has been deleted. A string without
// the form of an owner, of up to 62 bytes, counts as a holder: SET on a lock's key is a way
// to keep everybody out.
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
	driver.Register("redis", Open, driver.Names{Schemes: []string{"rediss", "unix"}})
}

// New opens the backend and makes a Locker over it, which owns it. settings.Type and
// settings.Backend stay empty. Errors are those of locker.Open.
func New(ctx context.Context, c Config, settings locker.Config) (*locker.Locker, error) {
	if settings.Type != "" || settings.Backend != nil {
		return nil, &locker.Error{Op: "open", Backend: "redis", Code: locker.CodeInvalidConfig,
			Err: errors.New("type, backend: they are for locker.Open; here the backend's configuration is the argument before")}
	}
	settings.Type, settings.Backend = "redis", c
	return locker.Open(ctx, settings)
}

var (
	_ driver.Backend      = (*backend)(nil)
	_ driver.Notifier     = (*backend)(nil)
	_ driver.Queuer       = (*backend)(nil)
	_ driver.Handoff      = (*backend)(nil)
	_ driver.Together     = (*backend)(nil)
	_ driver.Inspector    = (*backend)(nil)
	_ driver.Pinger       = (*backend)(nil)
	_ driver.Lister       = (*backend)(nil)
	_ driver.Breaker      = (*backend)(nil)
	_ driver.SessionClock = (*backend)(nil)
	_ driver.URLConfig    = (*Config)(nil)
)
