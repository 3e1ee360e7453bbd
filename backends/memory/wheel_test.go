package memory

import (
	"math/rand/v2"
	"testing"
)

// turnTo turns w to tick to, at most budget steps, and returns what became due.
func turnTo(w *wheel, to int64, budget int) (due []*entry, done bool) {
	for range budget {
		e, more := w.step(to)
		if !more {
			return due, true
		}
		if e != nil {
			due = append(due, e)
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
		model := make(map[*entry]bool)
		var all []*entry
		for op := range 4000 {
			switch k := r.IntN(10); {
			case k < 4: // arm
				e := &entry{slot: unarmed, due: after(now, tick+magnitude(r, horizon))}
				if r.IntN(20) == 0 {
					e.due = max(now-magnitude(r, horizon), 0) // is overdue
				}
				w.add(e)
				model[e] = true
				all = append(all, e)
			case k < 6 && len(all) > 0: // cancel, perhaps once more than armed
				e := all[r.IntN(len(all))]
				w.remove(e)
				delete(model, e)
			case k < 7 && len(all) > 0: // make later without telling the wheel, as arm does
				if e := all[r.IntN(len(all))]; model[e] {
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
				due, done := turnTo(&w, now/tick, budget)
				for _, e := range due {
					if !model[e] {
						t.Fatalf("seed %d op %d: given out although cancelled or given out before", seed, op)
					}
					if e.due > now {
						t.Fatalf("seed %d op %d: %d ns early", seed, op, e.due-now)
					}
					delete(model, e)
				}
				if !done {
					continue
				}
				first := int64(-1)
				for e := range model {
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
		for e := range model {
			w.remove(e)
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
			e := &entry{slot: unarmed, due: (start + due) * tick}
			at, turns := w.add(e), 0
			for ; ; turns++ {
				got, _ := turnTo(&w, at, 1<<30)
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
	for i := range int64(100_000) {
		w.add(&entry{slot: unarmed, due: (i + 1) * tick})
	}
	e := &entry{slot: unarmed, due: 30_000 * tick}
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		w.add(e)
		w.remove(e)
	}
}
