package harness

import "sync"

// Hub hands hints from every tap to every tap of one trial.
type Hub struct {
	mu   sync.Mutex
	next int
	subs map[int]sub
}

type sub struct {
	key  string
	wake func()
}

// Notify has wake called when key is woken.
func (h *Hub) Notify(key string, wake func()) (stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs == nil {
		h.subs = map[int]sub{}
	}
	h.next++
	n := h.next
	h.subs[n] = sub{key, wake}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, n)
	}
}

// Wake calls who waits for key.
func (h *Hub) Wake(key string) { h.each(func(k string) bool { return k == key }) }

// WakeAll calls everybody.
func (h *Hub) WakeAll() { h.each(func(string) bool { return true }) }

func (h *Hub) each(want func(key string) bool) {
	h.mu.Lock()
	var wakes []func()
	for _, s := range h.subs {
		if want(s.key) {
			wakes = append(wakes, s.wake)
		}
	}
	h.mu.Unlock()
	for _, w := range wakes {
		w()
	}
}
