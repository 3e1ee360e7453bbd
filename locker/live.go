package locker

import "sync"

// live is the list of a Locker's holds, so that Close can end them. It is sharded,
// because every Lock and Unlock passes through it.
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
	return &l.shards[s.holder.Owner.Seq%uint64(len(l.shards))]
}

// add reports false when Close has begun.
func (l *live) add(s *Lease) bool {
	sh := l.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.shut {
		return false
	}
	s.next = sh.head
	if s.next != nil {
		s.next.prev = s
	}
	sh.head = s
	return true
}

func (l *live) remove(s *Lease) {
	sh := l.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case s.prev != nil:
		s.prev.next = s.next
	case sh.head == s:
		sh.head = s.next
	default:
		return // taken by shut
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
}

// shut empties the list for good and returns what was on it.
func (l *live) shut() []*Lease {
	var all []*Lease
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		sh.shut = true
		for s := sh.head; s != nil; {
			next := s.next
			s.prev, s.next = nil, nil
			all = append(all, s)
			s = next
		}
		sh.head = nil
		sh.mu.Unlock()
	}
	return all
}
