package locker

import "sync"

// live is the list of a Locker's holds, so that Close can end them; unless the backend is a
// driver.Local, which knows them itself. It is sharded, because every Lock and Unlock passes
// through it.
type live struct {
	shards [16]liveShard
}

type liveShard struct {
	mu   sync.Mutex
	head *Lease
	shut bool
	_    [64 - 8 - 8 - 8]byte // a cache line each
}

func (l *live) shard(s *Lease) *liveShard {
	return &l.shards[s.seq/stripes%uint64(len(l.shards))] // not by the stripe: many keys may share one
}

// add reports false when Close has begun.
func (l *live) add(s *Lease) bool {
	sh := l.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.shut {
		return false
	}
	x := s.own()
	x.next = sh.head
	if x.next != nil {
		x.next.extra.prev = s
	}
	sh.head = s
	return true
}

func (l *live) remove(s *Lease) {
	sh := l.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	x := s.extra
	switch {
	case x.prev != nil:
		x.prev.extra.next = x.next
	case sh.head == s:
		sh.head = x.next
	default:
		return // taken by shut
	}
	if x.next != nil {
		x.next.extra.prev = x.prev
	}
	x.prev, x.next = nil, nil
}

// shut empties the list for good and returns what was on it.
func (l *live) shut() []*Lease {
	var all []*Lease
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		sh.shut = true
		for s := sh.head; s != nil; {
			next := s.extra.next
			s.extra.prev, s.extra.next = nil, nil
			all = append(all, s)
			s = next
		}
		sh.head = nil
		sh.mu.Unlock()
	}
	return all
}
