package redis

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// A server remembers in one table, for all clients together, which of them is to hear of which
// key. Above tracking-table-max-keys (1,000,000 by default) it forgets some, and tells neither
// the client that made it grow (NOLOOP) nor, of course, of their later changes. A lease that is
// deleted may then go unnoticed until its deadline, and a waiter sleep through a release.
//
// So this client looks at the size of the table now and then, and while the table is full, at
// its own leases in turns, which also has the server remember them again. Waiters are woken as
// often. Sessions need neither: they ask at each renewal.
const (
	tableInterval = 5 * time.Second // between looks at the table
	turnInterval  = time.Second     // between parts of a turn, while it is full
	turnParts     = 8               // so many shards at a time: a turn takes 8 s
	defaultTable  = 1_000_000
)

// watchTable looks at the tables of all nodes until Close.
func (b *backend) watchTable() {
	tick := time.NewTicker(turnInterval)
	defer tick.Stop()
	const looks = int(tableInterval / turnInterval)
	warned, mayAsk := false, true
	left := 0 // parts of the turn: once begun it is finished, whatever has become of the table
	for n := 1; ; n++ {
		select {
		case <-b.closing.Done():
			return
		case <-tick.C:
		}
		if n%looks == 0 {
			full, keys, most := b.tableFull(&mayAsk)
			if full {
				left = len(b.watched.shards) / turnParts
			}
			if full && !warned {
				warned = true
				slog.Warn("lockstep: redis: the server's table of tracked keys is full, so that deletions and releases are noticed some seconds late; raise tracking-table-max-keys",
					"tracking_total_keys", keys, "tracking-table-max-keys", most)
			}
		}
		if left > 0 {
			left--
			for i := range turnParts {
				b.turnShard(&b.watched.shards[(n*turnParts+i)%len(b.watched.shards)])
			}
		}
	}
}

// turnShard has the leases of one shard looked at, and its waiters make an attempt.
func (b *backend) turnShard(s *watchedShard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, holds := range s.holds {
		for _, h := range holds {
			if h.held && !h.changed {
				h.changed = true // to be looked at, once; no reason not to hand it off meanwhile
				b.looksAt(h.lock).add(h)
			}
		}
	}
	for _, p := range s.places {
		p.askAnyway() // an answer from memory would not have the server remember them
	}
	for _, wakers := range s.wakes {
		for _, w := range wakers {
			w.wake()
		}
	}
}

// tableFull asks the nodes while there is something to lose. The limit needs a right that few
// users have (CONFIG GET). Without it the default is assumed, but a table with less in it than
// this client alone holds is full too. mayAsk becomes false when the right is missing: refusals
// fill the server's log.
func (b *backend) tableFull(mayAsk *bool) (full bool, keys, most int64) {
	held, waiting := b.watched.count()
	if held+waiting == 0 {
		return false, 0, 0
	}
	ctx, cancel := context.WithTimeout(b.closing, b.cfg.Timeout)
	defer cancel()
	var all int64
	for _, node := range b.client.Nodes() {
		info, err := node.Do(ctx, node.B().Info().Section("stats").Build()).ToString()
		if err != nil {
			return false, 0, 0 // another time
		}
		n, ok := infoNumber(info, "tracking_total_keys")
		if !ok {
			return false, 0, 0
		}
		limit := tableLimit(ctx, node, mayAsk)
		if limit > 0 && n >= limit-limit/50 { // what it forgets to stay below, it forgets in bulk
			return true, n, limit
		}
		all, most = all+n, limit
	}
	return all < int64(held)-int64(held)/50, all, most
}

// tableLimit is 0 where there is none.
func tableLimit(ctx context.Context, node rueidis.Client, mayAsk *bool) int64 {
	if !*mayAsk {
		return defaultTable
	}
	conf, err := node.Do(ctx, node.B().ConfigGet().Parameter("tracking-table-max-keys").Build()).AsStrMap()
	if _, refused := rueidis.IsRedisErr(err); refused {
		*mayAsk = false
	}
	limit, bad := strconv.ParseInt(conf["tracking-table-max-keys"], 10, 64)
	if err != nil || bad != nil {
		return defaultTable
	}
	return limit
}

// infoNumber reads one field out of INFO.
func infoNumber(info, field string) (int64, bool) {
	_, after, ok := strings.Cut(info, "\n"+field+":")
	if !ok {
		return 0, false
	}
	digits, _, _ := strings.Cut(after, "\r\n")
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil
}

// count is how many leases there are whose time is not up, and how many waiters.
func (w *watched) count() (held, waiting int) {
	now := time.Now()
	for i := range w.shards {
		s := &w.shards[i]
		s.mu.Lock()
		for _, holds := range s.holds {
			for _, h := range holds {
				if h.held && now.Sub(h.from) < h.ttl {
					held++
				}
			}
		}
		waiting += len(s.wakes)
		s.mu.Unlock()
	}
	return held, waiting
}
