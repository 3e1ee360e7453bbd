package memory

import (
	"math/rand/v2"
	"testing"
)

// takeHeld takes an entry that is not armed and counts as held.
func takeHeld(s *slab) (ref, *entry) {
	n, e := s.take()
	for e.slot != unarmed {
		n, e = s.take() // one that was left armed; it is lost to this test
	}
	e.by = &client{}
	return n, e
}

// turnTo turns w to tick to, at most budget steps, and returns what became due.
func turnTo(w *wheel, s *slab, to int64, budget int) (due []ref, done bool) {
	for range budget {
		n, more := w.step(s, to)
		if !more {
			return due, true
		}
		if n != none {
			due = append(due, n)
		}
	}
	return due, false
}

// magnitude is a random number whose order of magnitude is random too.
func magnitude(r *rand.Rand, bits int) int64 { return r.Int64N(1 << (1 + r.IntN(bits))) }

// after is t + d, or latest.
func after(t, d int64) int64 {
	if d > latest-t {
		return latest
	}
	return t + d
}

// TestWheelAgainstModel drives a wheel and a plain set with the same random operations.
// After each: what the wheel gave out is due (never early); when it says that it is done,
// nothing else is (never late); and it asks to be turned again no later than the first
// due tick, and not at once.
func TestWheelAgainstModel(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 0))
		horizon := []int{8, 22, 40, 62}[seed%4] // bits of nanoseconds beyond a millisecond
		var now int64
		w := newWheel(0)
		var s slab
		model := make(map[ref]bool)
		var all []ref
		for op := range 4000 {
			switch k := r.IntN(10); {
			case k < 4: // arm
				n, e := takeHeld(&s)
				e.due = after(now, tick+magnitude(r, horizon))
				if r.IntN(20) == 0 {
					e.due = max(now-magnitude(r, horizon), 0) // is overdue
				}
				w.add(&s, n, e)
				model[n] = true
				all = append(all, n)
			case k < 6 && len(all) > 0: // cancel, perhaps once more than armed
				n := all[r.IntN(len(all))]
				w.remove(&s, s.at(n))
				delete(model, n)
			case k == 6 && len(all) > 0 && r.IntN(2) == 0: // free it and leave it armed
				i := r.IntN(len(all))
				n := all[i]
				all = append(all[:i], all[i+1:]...)
				s.give(&w, n, s.at(n))
				delete(model, n)
			case k < 7 && len(all) > 0: // make later without telling the wheel, as arm does
				if n := all[r.IntN(len(all))]; model[n] {
					e := s.at(n)
					e.due = after(e.due, magnitude(r, horizon))
				}
			default: // time passes; the timer was punctual, or late, or the work is cut short
				if _, at, ok := w.next(); ok && r.IntN(2) == 0 {
					now = max(now, at*tick)
				} else {
					now = after(now, magnitude(r, max(horizon-4, 4)))
				}
				budget := 1 << 30
				if r.IntN(3) == 0 {
					budget = 1 + r.IntN(5)
				}
				due, done := turnTo(&w, &s, now/tick, budget)
				for _, n := range due {
					if !model[n] {
						t.Fatalf("seed %d op %d: given out although cancelled or given out before", seed, op)
					}
					if e := s.at(n); e.due > now {
						t.Fatalf("seed %d op %d: %d ns early", seed, op, e.due-now)
					}
					delete(model, n)
				}
				if !done {
					continue
				}
				first := int64(-1)
				for n := range model {
					e := s.at(n)
					if e.due <= now-tick+1 {
						t.Fatalf("seed %d op %d: at %d still holds what was due at %d", seed, op, now, e.due)
					}
					if first < 0 || e.dueTick() < first {
						first = e.dueTick()
					}
				}
				_, at, ok := w.next()
				if ok != (len(model) > 0) {
					t.Fatalf("seed %d op %d: next says %v with %d armed", seed, op, ok, len(model))
				}
				if ok && (at > first || at <= now/tick) {
					t.Fatalf("seed %d op %d: wants to be turned at %d, but it is %d and the first is due at %d", seed, op, at, now/tick, first)
				}
			}
		}
		for n := range model {
			w.remove(&s, s.at(n))
			s.give(&w, n, s.at(n))
		}
		for range 1000 * len(s.chunks) { // what is free and armed goes without the time's passing
			if _, more := w.step(&s, w.now); !more {
				break
			}
		}
		if w.inUse != 0 || w.used != [levels]uint64{} || w.draining != unarmed {
			t.Fatalf("seed %d: not empty after everything was cancelled: %v %v", seed, w.inUse, w.used)
		}
	}
}

// TestWheelWakesFewTimes: between arming and expiry the wheel asks to be turned at most
// once per level, however long that is.
func TestWheelWakesFewTimes(t *testing.T) {
	for _, start := range []int64{0, 1, 63, 64, 4095, 123456789} {
		for _, due := range []int64{1, 63, 64, 65, 4096, 30_000, 86_400_000, latest/tick - start} {
			w := newWheel(start)
			var s slab
			n, e := takeHeld(&s)
			e.due = (start + due) * tick
			at, turns := w.add(&s, n, e), 0
			for ; ; turns++ {
				got, _ := turnTo(&w, &s, at, 1<<30)
				if len(got) == 1 {
					break
				}
				var ok bool
				if _, at, ok = w.next(); !ok {
					t.Fatalf("start %d, due after %d: lost", start, due)
				}
			}
			if at != start+due || turns > levels {
				t.Errorf("start %d, due after %d: given out at tick %d after %d turns", start, due, at, turns)
			}
		}
	}
}

func TestDueTickRoundsUp(t *testing.T) {
	for due, want := range map[int64]int64{1: 1, tick - 1: 1, tick: 1, tick + 1: 2, latest: latest / tick} {
		if got := (&entry{due: due}).dueTick(); got != want {
			t.Errorf("due %d: tick %d, want %d", due, got, want)
		}
	}
}

func BenchmarkWheelArmCancel(b *testing.B) {
	w := newWheel(0)
	var s slab
	for i := range int64(100_000) {
		n, e := takeHeld(&s)
		e.due = (i + 1) * tick
		w.add(&s, n, e)
	}
	n, e := takeHeld(&s)
	e.due = 30_000 * tick
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		w.add(&s, n, e)
		w.remove(&s, e)
	}
}
