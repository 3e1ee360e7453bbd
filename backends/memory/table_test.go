package memory

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestTableAgainstMap compares a table with a map while it grows and shrinks, with hashes
// that collide in full as well as in their low bits.
func TestTableAgainstMap(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		hash := func(n int) uint64 { return uint64(n) * 0x9e3779b97f4a7c15 }
		if seed%4 == 3 {
			hash = func(n int) uint64 { return uint64(n % 37) }
		}
		var table table
		var slab slab
		var wheel wheel
		model := make(map[string]ref)
		var keys []string
		remove := func(n ref) {
			table.remove(&slab, n, slab.at(n))
			slab.give(&wheel, n, slab.at(n))
		}
		check := func() {
			t.Helper()
			seen := 0
			table.each(&slab, func(n ref, e *entry) {
				seen++
				if model[e.key] != n {
					t.Fatalf("seed %d: %q should not be there", seed, e.key)
				}
			})
			if seen != len(model) || table.n != seen {
				t.Fatalf("seed %d: %d entries, and n is %d; want %d", seed, seen, table.n, len(model))
			}
			if len(table.buckets) > max(minBuckets, 8*table.n) {
				t.Fatalf("seed %d: %d buckets for %d entries", seed, len(table.buckets), table.n)
			}
			if cap(table.buckets) > max(4*minBuckets, 4*len(table.buckets)) {
				t.Fatalf("seed %d: memory for %d buckets while there are %d", seed, cap(table.buckets), len(table.buckets))
			}
		}
		for _, add := range []int{70, 30, 60, 10, 0} { // percent of additions: up and down again
			for range 1500 {
				if r.IntN(100) < add {
					n := r.IntN(5000)
					key := strconv.Itoa(n)
					found, _ := table.find(&slab, hash(n), key)
					if found != model[key] {
						t.Fatalf("seed %d: find(%q) is %v, want %v", seed, key, found, model[key])
					}
					if found == none {
						found, e := slab.take()
						e.key, e.hash = key, hash(n)
						table.add(&slab, found, e)
						model[key] = found
						keys = append(keys, key)
					}
				} else if len(keys) > 0 {
					i := r.IntN(len(keys))
					key := keys[i]
					keys[i] = keys[len(keys)-1]
					keys = keys[:len(keys)-1]
					remove(model[key])
					delete(model, key)
				}
			}
			check()
		}
		for _, key := range keys {
			remove(model[key])
			delete(model, key)
		}
		check()
		if len(table.buckets) != minBuckets {
			t.Errorf("seed %d: %d buckets when empty again", seed, len(table.buckets))
		}
	}
}
