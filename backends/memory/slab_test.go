package memory

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

func TestEntrySize(t *testing.T) {
	if size := reflect.TypeFor[entry]().Size(); size > 104 {
		t.Errorf("%d bytes", size)
	}
}

// TestSlab takes and gives entries at random: none is given out twice, the empty chunks are
// few, and none that was dropped is left in the wheel.
func TestSlab(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		var s slab
		w := newWheel(0)
		used := make(map[ref]bool)
		var all []ref
		for _, take := range []int{80, 20, 60, 0} { // percent: up and down again
			for range 3000 {
				if r.IntN(100) < take {
					n, e := s.take()
					if used[n] || n == none || e != s.find(n) {
						t.Fatalf("seed %d: entry %d is given out twice, or is another", seed, n)
					}
					e.by = &client{}
					if e.slot == unarmed {
						e.due = tick * (1 + r.Int64N(100_000))
						w.add(&s, n, e)
					}
					used[n] = true
					all = append(all, n)
				} else if len(all) > 0 {
					i := r.IntN(len(all))
					n := all[i]
					all = slices.Delete(all, i, i+1)
					delete(used, n)
					s.give(&w, n, s.at(n))
				}
			}
			empty := 0
			for _, c := range s.chunks {
				if c != nil && c.used == 0 {
					empty++
				}
			}
			if empty != s.spare || empty > maxSpare {
				t.Fatalf("seed %d: %d empty chunks, counted as %d", seed, empty, s.spare)
			}
		}
		for _, n := range all {
			s.give(&w, n, s.at(n))
		}
		armed := 0
		for _, c := range s.chunks {
			if c == nil {
				continue
			}
			for i := range c.entries {
				if c.entries[i].slot != unarmed {
					armed++
				}
			}
		}
		for ; armed > 0; armed-- {
			if _, more := w.step(&s, 0); !more {
				t.Fatalf("seed %d: the wheel lacks %d", seed, armed)
			}
		}
		if _, more := w.step(&s, 0); more || w.inUse != 0 {
			t.Errorf("seed %d: something is left in the wheel", seed)
		}
	}
}

// TestDrop: a place finds the hold that was taken there, and no other.
func TestDrop(t *testing.T) {
	b := open(t, Config{})
	hand, other := b.Attach([16]byte{1}, ""), b.Attach([16]byte{2}, "")
	take := func() (token, where uint64) {
		t.Helper()
		token, where, _, err := hand.Take("k", time.Hour, time.Since(b.Epoch()), ignore{}, false, "")
		if err != nil || token == 0 {
			t.Fatalf("token %d, %v", token, err)
		}
		return token, where
	}
	drop := func(h driver.Hand, where, token uint64) error { return h.Drop(where, token, time.Since(b.Epoch())) }
	token1, where1 := take()
	if err := drop(hand, where1, token1); err != nil {
		t.Fatal(err)
	}
	token2, where2 := take() // in the same entry
	if where2 != where1 {
		t.Errorf("the entry was not used again: %x, %x", where1, where2)
	}
	const nowhere = 1<<32 - 1 // a number that no entry has
	for name, err := range map[string]error{
		"an earlier hold":    drop(hand, where1, token1),
		"no token":           drop(hand, where2, 0),
		"no entry":           drop(hand, where2|nowhere, token2),
		"no shard":           drop(hand, where2|nowhere<<32, token2),
		"another one's hold": drop(other, where2, token2),
	} {
		if !errors.Is(err, driver.ErrLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := drop(hand, where2, token2); err != nil {
		t.Error(err)
	}
	if err := drop(hand, where2, token2); !errors.Is(err, driver.ErrLost) {
		t.Errorf("again: %v", err)
	}
}

// TestShut: waiters end, nothing new is granted, and what is held stays so until it is
// released, or Close.
func TestShut(t *testing.T) {
	b, other := open(t, Config{}), open(t, Config{})
	var mine []driver.Listener
	for i := range 10 {
		r := request("k"+strconv.Itoa(i), i, time.Hour)
		r.Hold = &losses{}
		mine = append(mine, r.Hold)
		if _, err := b.Acquire(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Acquire(ctx, request("other", 50, time.Hour)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	for i := range 3 {
		go func() {
			_, err := b.Wait(context.Background(), request("other", 60+i, time.Hour))
			ended <- err
		}()
	}
	go func() {
		_, err := other.Wait(ctx, request("k0", 70, time.Hour))
		ended <- err
	}()
	waitFor(t, func() bool { return waiting(b) == 4 })

	held := b.shut()
	for _, hold := range mine {
		if !slices.Contains(held, hold) {
			t.Error("a hold is missing")
		}
	}
	if len(held) != len(mine) || b.shut() != nil {
		t.Errorf("%d holds, want %d, and none the second time", len(held), len(mine))
	}
	for range 3 {
		if err := <-ended; err != driver.ErrClosed {
			t.Errorf("a waiter: %v", err)
		}
	}
	if _, err := b.Acquire(ctx, request("new", 80, time.Hour)); err != driver.ErrClosed {
		t.Errorf("Acquire: %v", err)
	}
	if _, err := b.Wait(ctx, request("new", 81, time.Hour)); err != driver.ErrClosed {
		t.Errorf("Wait: %v", err)
	}
	if _, err := b.Extend(ctx, holder("k1", 1), time.Hour); err != nil {
		t.Errorf("Extend: %v", err)
	}
	if err := b.Release(ctx, holder("k0", 0)); err != nil {
		t.Errorf("Release: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("another backend's waiter: %v", err)
	}
	if live(b) != len(mine)+1 {
		t.Errorf("%d keys are held", live(b))
	}
}

// TestCloseOvertakesShut: of two who close a backend, one may find it shut by the other, who
// has not come to all of the shards yet. What is held goes to none of its waiters.
func TestCloseOvertakesShut(t *testing.T) {
	b, other := open(t, Config{Shards: 1}), open(t, Config{})
	if _, err := b.Acquire(ctx, request("k", 0, 0)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	for i := range 3 {
		go func() {
			_, err := b.Wait(ctx, request("k", 1+i, 0))
			ended <- err
		}()
	}
	waitFor(t, func() bool { return waiting(b) == 3 })
	b.state.Store(shut) // the other one has begun
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Acquire(ctx, request("k", 9, 0)); err != nil {
		t.Errorf("the key stays taken: %v", err)
	}
	for range 3 {
		if err := <-ended; err != driver.ErrClosed {
			t.Errorf("a waiter: %v", err)
		}
	}
}
