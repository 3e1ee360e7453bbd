package memory

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"runtime"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// A store is what the backends of one name share.
type store struct {
	name   string
	seed   maphash.Seed // random, so that nobody can choose keys that share a shard
	shift  uint         // the topmost bits of a hash choose the shard, the lowest the bucket in it
	base   time.Time    // where its clock begins
	shards []padded
	// waiters is a pool per store, not per process: a channel that was made inside a
	// testing/synctest bubble must never be used outside it.
	waiters sync.Pool

	backends int // how many have it open; guarded by stores.mu

	// left is through which leases are held that somebody left (driver.Leaver): no Close evicts
	// it. It is open for as long as the store is, and does not keep the store open.
	left backend
}

// stores are the open stores of this process. It is the only state of the package.
var stores = struct {
	mu     sync.Mutex
	byName map[string]*store
	// token is the greatest token that any store had minted when it vanished. New
	// stores go on from there, so that a store that is closed and opened again does
	// not hand out the same tokens twice to what lies behind the fence.
	token uint64
}{byName: make(map[string]*store)}

func openStore(c Config) (*store, error) {
	name := c.Store
	stores.mu.Lock()
	defer stores.mu.Unlock()
	s := stores.byName[name]
	if s == nil {
		n := c.Shards
		if n == 0 {
			n = chooseShards(runtime.GOMAXPROCS(0))
		}
		s = newStore(name, n, stores.token)
		stores.byName[name] = s
	} else if c.Shards != 0 && c.Shards != len(s.shards) {
		return nil, fmt.Errorf("%w: shards: %d, but the store %q is open with %d; ask for the same number, or for 0",
			driver.ErrInvalidConfig, c.Shards, name, len(s.shards))
	}
	s.backends++
	return s, nil
}

// chooseShards gives each processor eight shards: even when all of them are inside
// a shard all the time, seven of eight calls find theirs free.
func chooseShards(procs int) int {
	n := min(max(8*procs, 1), maxShards)
	return 1 << bits.Len(uint(n-1))
}

func newStore(name string, shards int, token uint64) *store {
	s := &store{
		name:   name,
		base:   time.Now(),
		seed:   maphash.MakeSeed(),
		shift:  uint(64 - bits.Len(uint(shards-1))),
		shards: make([]padded, shards),
	}
	s.left.store = s
	for i := range s.shards {
		s.shards[i].init(i, shards, s.base, token)
	}
	s.waiters.New = func() any { return &waiter{ready: make(chan struct{}, 1)} }
	return s
}

// leave is the Close of one backend that holds nothing any more.
func (s *store) leave() {
	stores.mu.Lock()
	defer stores.mu.Unlock()
	s.backends--
	if s.backends > 0 {
		return
	}
	delete(stores.byName, s.name)
	for i := range s.shards {
		stores.token = max(stores.token, s.shards[i].stop())
	}
}

// shard returns the shard that key lives in, and the key's hash.
func (s *store) shard(key string) (*shard, uint64) {
	h := maphash.String(s.seed, key)
	return &s.shards[h>>s.shift].shard, h // a shift by 64, for one shard, gives 0
}
