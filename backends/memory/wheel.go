package memory

import (
	"math"
	"math/bits"
	"time"
)

// tick is the wheel's resolution. A whole millisecond, because ttls are whole
// milliseconds: on the clock of testing/synctest, which stands still while anybody
// works, due times then fall on ticks and leases end to the nanosecond. A power of two
// of nanoseconds would save a division and lose that.
const tick = int64(time.Millisecond)

// A wheel is a hierarchical timer wheel (Varghese and Lauck, "Hashed and hierarchical
// timing wheels", SOSP 1987): it knows which entries are due, adds and removes one in a
// few nanoseconds whatever their number, and allocates nothing for them. A heap would
// cost O(log n) cache misses for each lease that is released in time, as nearly all are.
//
// Time is counted in ticks since the store's base. Level 0 has a slot for each of 64
// ticks, level 1 a slot for each 64 of those, and so on. An entry lies at the level of
// the highest digit, base 64, in which its tick differs from now, in the slot of that
// digit. Hence everything in a level is due before anything in the level above, and the
// first slot in use of the first level in use is the next one; two bit scans find it.
// When its time has come the entries of a higher slot move down ("cascade"), each at most
// once per level.
//
// It is a passive structure: guarded by the lock of its shard, and told the time.
type wheel struct {
	// now is the tick up to which time has been followed: at least every slot before it
	// is empty. It may stay behind the clock as long as nothing is due.
	now int64
	// draining is the slot that began at now and is being emptied, or unarmed.
	draining uint16

	inUse uint8          // bit i: level i has an entry
	used  [levels]uint64 // bit i: slot i of the level has an entry
	// The first entry of each slot. A level has memory from its first use on: leases of
	// seconds use two or three levels, and a shard with all of them would take 4 KiB.
	slots [levels]*[slotsPerLevel]ref
}

const (
	levelBits     = 6
	slotsPerLevel = 1 << levelBits
	levels        = 8 // 48 bits of ticks; the latest due time needs 44

	unarmed = math.MaxUint16

	// latest is the latest due time of a lease, about 292 years after the base: a whole
	// number of ticks, and so far below the largest int64 that rounding up to the next
	// tick does not overflow. Longer leases end then.
	latest = (math.MaxInt64/tick - 1) * tick
)

func newWheel(now int64) wheel { return wheel{now: now, draining: unarmed} }

// dueTick is the first tick at which e's time is up. Rounded up: never early.
func (e *entry) dueTick() int64 { return (e.due + tick - 1) / tick }

// add arms e, which is number r and in no slot, for e.due, and returns the tick at which
// its slot begins, which is when the wheel must be turned.
func (w *wheel) add(s *slab, r ref, e *entry) int64 {
	t := max(e.dueTick(), w.now)
	level := 0
	if differ := uint64(t ^ w.now); differ != 0 {
		level = (bits.Len64(differ) - 1) / levelBits
	}
	shift := level * levelBits
	i := t >> shift & (slotsPerLevel - 1)
	if w.slots[level] == nil {
		w.slots[level] = new([slotsPerLevel]ref)
	}
	head := &w.slots[level][i]
	e.slot = uint16(level<<levelBits | int(i))
	e.earlier, e.later = none, *head
	if *head != none {
		s.at(*head).earlier = r
	}
	*head = r
	w.used[level] |= 1 << i
	w.inUse |= 1 << level
	return t >> shift << shift
}

// remove disarms e if it is armed.
func (w *wheel) remove(s *slab, e *entry) {
	if e.slot == unarmed {
		return
	}
	if e.later != none {
		s.at(e.later).earlier = e.earlier
	}
	if e.earlier != none {
		s.at(e.earlier).later = e.later
	} else {
		level, i := e.slot>>levelBits, e.slot&(slotsPerLevel-1)
		w.slots[level][i] = e.later
		if e.later == none {
			w.used[level] &^= 1 << i
			if w.used[level] == 0 {
				w.inUse &^= 1 << level
			}
			if e.slot == w.draining {
				w.draining = unarmed
			}
		}
	}
	e.earlier, e.later, e.slot = none, none, unarmed
}

// next returns the slot to turn to next and the tick at which it begins, which is now
// for a slot that was not emptied at one go. ok is false when the wheel is empty.
func (w *wheel) next() (slot uint16, at int64, ok bool) {
	if w.draining != unarmed {
		return w.draining, w.now, true
	}
	if w.inUse == 0 {
		return 0, 0, false
	}
	level := bits.TrailingZeros8(w.inUse)
	i := bits.TrailingZeros64(w.used[level])
	shift := level * levelBits
	at = w.now>>(shift+levelBits)<<(shift+levelBits) | int64(i)<<shift
	return uint16(level<<levelBits | i), at, true
}

// step does one small piece of the work that is due at tick to: it takes one entry from
// the slot that comes next. If that entry's time is up it is returned, disarmed;
// otherwise it was moved to a lower level, and the result is none. more is false when
// there was nothing to do.
//
// One entry at a time, because a million leases that are due together also cascade
// together: the caller decides for how long it keeps the others out.
//
// What is armed but free (see slab) is only disarmed, and so is that at the head of the slot
// that comes next: no timer is set for it.
func (w *wheel) step(s *slab, to int64) (due ref, more bool) {
	slot, at, ok := w.next()
	if !ok {
		w.forward(to)
		return none, false
	}
	r := w.slots[slot>>levelBits][slot&(slotsPerLevel-1)]
	e := s.at(r)
	if at > to {
		if !e.held() {
			w.remove(s, e)
			return none, true
		}
		w.forward(to)
		return none, false
	}
	w.now, w.draining = at, slot
	w.remove(s, e)
	switch {
	case !e.held():
		return none, true
	case e.dueTick() > w.now:
		w.add(s, r, e)
		return none, true
	}
	return r, true
}

// forward sets the clock to a tick before which no slot begins. It spares entries that
// are added later a detour through higher levels.
func (w *wheel) forward(to int64) { w.now = max(w.now, to) }
