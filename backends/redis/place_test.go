package redis

import (
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// What this process knows of its place answers an attempt only where nothing has happened that the
// server must be asked about, whatever the order in which its goroutines hear of it.
func TestPlace(t *testing.T) {
	const lock = "lock"
	soon := func() time.Time { return time.Now().Add(time.Minute) }
	refused := func(w *watched, turn bool) { w.refused(lock, 1, soon(), turn) }
	changed := func(w *watched) {
		s := w.shard(lock)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stir(lock)
	}
	due := func(w *watched) { w.due(lock, w.shard(lock).places[lock]) } // the timer
	for name, tt := range map[string]struct {
		events []func(*watched)
		asks   bool // the next attempt is for the server
	}{
		"refused":                                   {[]func(*watched){func(w *watched) { refused(w, false) }}, false},
		"refused, changed":                          {[]func(*watched){func(w *watched) { refused(w, false) }, changed}, true},
		"another's turn":                            {[]func(*watched){func(w *watched) { refused(w, true) }}, false},
		"another's turn, and it came":               {[]func(*watched){func(w *watched) { refused(w, true) }, changed}, false},
		"another's turn, it came, called":           {[]func(*watched){func(w *watched) { refused(w, true) }, changed, func(w *watched) { w.called(lock) }}, true},
		"called before the reply came":              {[]func(*watched){func(w *watched) { refused(w, true) }, changed, func(w *watched) { w.called(lock) }, func(w *watched) { refused(w, true) }}, true},
		"another's turn, it came, woken":            {[]func(*watched){func(w *watched) { refused(w, true) }, changed, func(w *watched) { w.wake(lock) }}, true},
		"another's turn, it came, an attempt fails": {[]func(*watched){func(w *watched) { refused(w, true) }, changed, func(w *watched) { w.yielding(lock, time.Now()) }, changed}, true},
		"yielded, nothing announced":                {[]func(*watched){func(w *watched) { w.yielding(lock, time.Now()) }, func(w *watched) { w.yielded(lock, 1) }}, false},
		"yielded, and nobody came":                  {[]func(*watched){func(w *watched) { w.yielding(lock, time.Now()) }, func(w *watched) { w.yielded(lock, 1) }, due}, true},
		"called before it had yielded":              {[]func(*watched){func(w *watched) { w.yielding(lock, time.Now()) }, func(w *watched) { w.called(lock) }, func(w *watched) { w.yielded(lock, 1) }}, true},
		"freed, nobody called":                      {[]func(*watched){func(w *watched) { refused(w, true) }, changed, func(w *watched) { w.freed(lock, calledNobody) }}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := new(watched)
			w.init()
			s := w.shard(lock)
			s.wakes[lock] = append(s.wakes[lock], &waker{wake: func() {}})
			// An attempt in between has been answered by the server.
			if _, held := w.asking(lock, time.Now(), true, false); held != nil {
				t.Fatal("the first attempt is answered from memory")
			}
			for _, event := range tt.events {
				event(w)
			}
			_, held := w.asking(lock, time.Now(), true, false)
			if asks := held == nil; asks != tt.asks {
				t.Errorf("asks %t; want %t (%v)", asks, tt.asks, held)
			}
			if _, ok := driver.Remaining(held); name == "another's turn, and it came" && ok {
				t.Errorf("it tells a time that is nobody's: %v", held)
			}
		})
	}
}

// Who stands further in front than it thought asks as early as one does who stands there.
func TestPlaceAsksSooner(t *testing.T) {
	const lock = "lock"
	w := new(watched)
	w.init()
	s := w.shard(lock)
	asks := func(before int) time.Duration {
		w.refused(lock, before, time.Now().Add(time.Minute), true)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stir(lock)
		return time.Until(s.places[lock].due)
	}
	far, near := asks(16), asks(1)
	if far > maxDelay || far < maxDelay/2 || near > firstPlace {
		t.Errorf("it asks after %s behind 16, then after %s behind one", far, near)
	}
}
