package memory

// A table finds entries of a slab by key. The zero value is empty and has no memory.
//
// It is a hash table with chains that grows and shrinks one bucket at a time (linear
// hashing: Litwin, VLDB 1980). A Go map would do, and was measured: adding and deleting a
// key costs it 44 ns against 17 ns here, where the hash is known already from choosing
// the shard and the entries bring their own links; it never gives back what a burst of
// keys made it take; and rebuilding it to make it smaller, or doubling an ordinary
// table, stops everybody in the shard for as long as that takes.
type table struct {
	// A key lives in the bucket of the lowest bits of its hash, as many as mask has; or
	// one fewer, where the table has not grown that far yet.
	buckets []ref
	mask    uint64
	n       int
}

const minBuckets = 16

func (t *table) bucket(hash uint64) *ref {
	i := hash & t.mask
	if i >= uint64(len(t.buckets)) {
		i &= t.mask >> 1
	}
	return &t.buckets[i]
}

func (t *table) find(s *slab, hash uint64, key string) (ref, *entry) {
	if t.n == 0 {
		return none, nil
	}
	for r := *t.bucket(hash); r != none; {
		e := s.at(r)
		if e.hash == hash && e.key == key {
			return r, e
		}
		r = e.next
	}
	return none, nil
}

// add adds the entry number r, whose key is not in the table.
func (t *table) add(s *slab, r ref, e *entry) {
	if t.buckets == nil {
		t.buckets, t.mask = make([]ref, minBuckets), minBuckets-1
	}
	t.n++
	// Two buckets an entry keep most chains at one. The gap between this and the
	// rule in remove keeps a table that hovers at one size from working for nothing.
	for 2*t.n > len(t.buckets) {
		t.split(s)
	}
	b := t.bucket(e.hash)
	e.next, *b = *b, r
}

// remove removes an entry that is in the table.
func (t *table) remove(s *slab, r ref, e *entry) {
	p := t.bucket(e.hash)
	for *p != r {
		p = &s.at(*p).next
	}
	*p, e.next = e.next, none
	t.n--
	for len(t.buckets) > minBuckets && 8*t.n < len(t.buckets) {
		t.merge(s)
	}
}

// split adds a bucket and moves to it what now belongs there, all of which is in one
// other bucket.
func (t *table) split(s *slab) {
	i := uint64(len(t.buckets))
	if i > t.mask {
		t.mask = t.mask<<1 | 1
	}
	t.buckets = append(t.buckets, none)
	p := &t.buckets[i&(t.mask>>1)]
	for *p != none {
		r := *p
		e := s.at(r)
		if e.hash&t.mask != i {
			p = &e.next
			continue
		}
		*p = e.next
		e.next, t.buckets[i] = t.buckets[i], r
	}
}

// merge undoes the last split.
func (t *table) merge(s *slab) {
	i := uint64(len(t.buckets) - 1)
	p := &t.buckets[i&(t.mask>>1)]
	for *p != none {
		p = &s.at(*p).next
	}
	*p, t.buckets[i] = t.buckets[i], none
	t.buckets = t.buckets[:i]
	if i == t.mask>>1+1 {
		t.mask >>= 1
	}
	if 4*len(t.buckets) < cap(t.buckets) {
		t.buckets = append(make([]ref, 0, 2*len(t.buckets)), t.buckets...)
	}
}

// each calls f for every entry. f must not change the table.
func (t *table) each(s *slab, f func(ref, *entry)) {
	for _, r := range t.buckets {
		for r != none {
			e := s.at(r)
			next := e.next
			f(r, e)
			r = next
		}
	}
}
