package memory

// A slab is the memory of a shard's entries, in chunks. The zero value is empty.
//
// A chunk of four is the largest object that Go's collector scans a span at a time: with a million
// leases a cycle takes 65 ms, and 95 with chunks of 32. The price is that an entry in use keeps its
// chunk, 448 bytes, from being freed.
//
// A free entry may still be armed in the wheel: nearly every lease is released in time and its
// entry used again for a lease that ends later, for which the wheel then has nothing to do.
// That saves both its cancelling and its arming.
type slab struct {
	chunks []*chunk // by number; nothing is number 0, so that no ref is none
	vacant []uint32 // numbers without a chunk; they are forgotten when the shard is empty
	spare  int      // chunks of which no entry is used
	// usable is the number of the first chunk that has a free entry, the one that was freed
	// last: it is the likeliest to be in a cache. 0 for none.
	usable uint32
}

const (
	chunkBits = 2
	chunkSize = 1 << chunkBits
	// maxSpare bounds what a shard keeps for reuse, to 14 KB. More would help only where
	// more than a hundred keys of one shard come and go all the time.
	maxSpare = 32
	// manyChunks is when a slab that has become empty is worth making anew.
	manyChunks = 4 * maxSpare
)

type chunk struct {
	entries    [chunkSize]entry
	free       ref    // the first free one, linked by next
	used       uint32 // how many are not free
	prev, next uint32 // in the list of usable chunks
}

func (s *slab) at(r ref) *entry { return &s.chunks[r>>chunkBits].entries[r%chunkSize] }

// find is at for a number that may never have been given out.
func (s *slab) find(r ref) *entry {
	if i := int(r >> chunkBits); i < len(s.chunks) && s.chunks[i] != nil {
		return s.at(r)
	}
	return nil
}

// take returns a free entry. It may be armed, for its due.
func (s *slab) take() (ref, *entry) {
	if s.usable == 0 {
		s.grow()
	}
	c := s.chunks[s.usable]
	r := c.free
	e := &c.entries[r%chunkSize]
	c.free, e.next = e.next, none
	if c.used == 0 {
		s.spare--
	}
	c.used++
	if c.free == none {
		s.unlink(c)
	}
	return r, e
}

// give takes an entry back, which is in no table and has no queue, and keeps nothing of what
// it referred to. w is where it may be armed.
func (s *slab) give(w *wheel, r ref, e *entry) {
	e.key, e.hold, e.by = "", nil, nil
	i := uint32(r >> chunkBits)
	c := s.chunks[i]
	if c.free == none {
		s.link(i, c)
	}
	e.next, c.free = c.free, r
	c.used--
	if c.used > 0 {
		return
	}
	if s.spare < maxSpare {
		s.spare++
		return
	}
	for j := range c.entries {
		w.remove(s, &c.entries[j])
	}
	s.unlink(c)
	s.chunks[i] = nil
	s.vacant = append(s.vacant, i)
}

func (s *slab) grow() {
	if s.chunks == nil {
		s.chunks = make([]*chunk, 1)
	}
	i := uint32(len(s.chunks))
	if n := len(s.vacant); n > 0 {
		i, s.vacant = s.vacant[n-1], s.vacant[:n-1]
	} else {
		s.chunks = append(s.chunks, nil)
	}
	c := new(chunk)
	s.chunks[i] = c
	for j := range c.entries {
		c.entries[j].slot = unarmed
		c.entries[j].next = ref(i)<<chunkBits | ref(j+1)
	}
	c.entries[chunkSize-1].next = none
	c.free = ref(i) << chunkBits
	s.spare++
	s.link(i, c)
}

// link puts c, which is number i, at the head of the usable ones.
func (s *slab) link(i uint32, c *chunk) {
	c.prev, c.next = 0, s.usable
	if c.next != 0 {
		s.chunks[c.next].prev = i
	}
	s.usable = i
}

func (s *slab) unlink(c *chunk) {
	if c.prev != 0 {
		s.chunks[c.prev].next = c.next
	} else {
		s.usable = c.next
	}
	if c.next != 0 {
		s.chunks[c.next].prev = c.prev
	}
	c.prev, c.next = 0, 0
}
