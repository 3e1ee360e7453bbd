package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// watched is who wants to hear of which key: the holders here, whose hold somebody may have
// deleted, and the waiters, for whom it may have become free. Keys are known by their hash,
// as in notifications.
type watched struct {
	poke func() // has the attendant look at what is due

	mu     sync.Mutex
	holds  map[string][]*hold // more than one while an old one is not given up
	wakers map[string]*waker
	dueNow []*hold // to be looked at
	many   int     // so many keys are held when it is time to forget
}

// hold is one lease or session of this client.
type hold struct {
	key     string
	owner   driver.Owner
	session bool
	hears   driver.Listener
	granted bool // until then, a change proves nothing
	changed bool // it may have been, since it was last looked at
	gone    bool // forgotten
	until   time.Time
}

// waker is who waits for one key.
type waker struct {
	key    string
	wake   func()
	since  time.Time
	marked bool // the row says that somebody waits
}

func (w *watched) init() {
	w.holds = make(map[string][]*hold)
	w.wakers = make(map[string]*waker)
}

func hashOf(key string) string {
	h := sha256.Sum256([]byte(key))
	return hex.EncodeToString(h[:])
}

// hold begins to watch. It is called before the attempt: a deletion right after the grant is
// not missed.
func (w *watched) hold(r driver.Request) *hold {
	h := &hold{key: r.Key, owner: r.Owner, session: r.Session(), hears: r.Hold}
	hash := hashOf(r.Key)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holds[hash] = append(w.holds[hash], h)
	if len(w.holds) > w.many {
		w.forgetExpired(time.Now())
		w.many = max(2*len(w.holds), 64)
	}
	return h
}

// granted notes that h is held until then, as far as is known, and has it looked at if it was
// changed meanwhile. A repeat of an attempt takes the earlier one's place.
func (w *watched) granted(h *hold, until time.Time) {
	hash := hashOf(h.key)
	w.mu.Lock()
	w.drop(hash, func(other *hold) bool { return other != h && other.owner == h.owner })
	h.granted, h.until = true, until
	due := h.changed
	if due {
		w.dueNow = append(w.dueNow, h)
	}
	w.mu.Unlock()
	if due {
		w.poke()
	}
}

// forget stops watching for what owner holds.
func (w *watched) forget(key string, owner driver.Owner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(hashOf(key), func(h *hold) bool { return h.owner == owner })
}

func (w *watched) unhold(h *hold) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(hashOf(h.key), func(other *hold) bool { return other == h })
}

// extended puts off when a lease is forgotten.
func (w *watched) extended(key string, owner driver.Owner, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.holds[hashOf(key)] {
		if h.owner == owner {
			h.until = until
		}
	}
}

// forgetExpired drops leases that expired long ago: nobody need unlock those. The mutex is held.
func (w *watched) forgetExpired(now time.Time) {
	for hash := range w.holds {
		w.drop(hash, func(h *hold) bool { return h.granted && !h.session && now.Sub(h.until) > time.Minute })
	}
}

func (w *watched) drop(hash string, which func(*hold) bool) {
	left := slices.DeleteFunc(w.holds[hash], func(h *hold) bool {
		h.gone = h.gone || which(h)
		return h.gone
	})
	if len(left) == 0 {
		delete(w.holds, hash)
	} else {
		w.holds[hash] = left
	}
}

// announced is a notification: w and a hash, the key was freed; c and a hash, somebody else
// changed it; a, everything was.
func (w *watched) announced(payload string) {
	if payload == "" {
		return
	}
	switch hash := payload[1:]; payload[0] {
	case 'w':
		w.wake(hash)
	case 'c':
		w.mu.Lock()
		w.change(hash)
		w.mu.Unlock()
		w.wake(hash)
	case 'a':
		w.missed()
	}
}

// missed: anything may have happened.
func (w *watched) missed() {
	w.mu.Lock()
	for hash := range w.holds {
		w.change(hash)
	}
	var all []func()
	for _, waker := range w.wakers {
		waker.marked = false // who emptied the table took the marks away
		waker.since = time.Now()
		all = append(all, waker.wake)
	}
	w.mu.Unlock()
	for _, wake := range all {
		wake()
	}
}

// change notes that the holds of a key may have been changed. The mutex is held.
func (w *watched) change(hash string) {
	for _, h := range w.holds[hash] {
		if h.granted && !h.changed {
			w.dueNow = append(w.dueNow, h)
		}
		h.changed = true
	}
}

func (w *watched) wake(hash string) {
	w.mu.Lock()
	waker := w.wakers[hash]
	w.mu.Unlock()
	if waker != nil {
		waker.wake()
	}
}

func (w *watched) wakeKey(key string) { w.wake(hashOf(key)) }

// due says whether there are holds to be looked at.
func (w *watched) due() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dueNow) > 0
}

// takeDue takes so many of them at most.
func (w *watched) takeDue(most int) []*hold {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.dueNow), most)
	due := slices.DeleteFunc(w.dueNow[:n:n], func(h *hold) bool {
		h.changed = false // a change from here on is another one
		return h.gone
	})
	if w.dueNow = w.dueNow[n:]; len(w.dueNow) == 0 {
		w.dueNow = nil
	}
	return due
}

// putBack: nobody answered.
func (w *watched) putBack(holds []*hold) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range holds {
		if !h.changed {
			h.changed = true
			w.dueNow = append(w.dueNow, h)
		}
	}
}

// lose tells the holder of h, unless it has let go of it.
func (b *backend) lose(h *hold, cause error) {
	b.watched.mu.Lock()
	gone := h.gone
	b.watched.drop(hashOf(h.key), func(other *hold) bool { return other == h })
	b.watched.mu.Unlock()
	switch {
	case gone:
	case h.session:
		b.sessions.Lose(h.owner, cause)
	default:
		h.hears.Lost(cause)
	}
}

// Notify implements driver.Notifier.
func (b *backend) Notify(key string, wake func()) (stop func()) {
	w, hash := &b.watched, hashOf(key)
	own := &waker{key: key, wake: wake, since: time.Now()}
	w.mu.Lock()
	w.wakers[hash] = own
	first := len(w.wakers) == 1
	w.mu.Unlock()
	if first {
		b.attendant.poke() // it may sleep until the next renewal
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.wakers[hash] == own {
			delete(w.wakers, hash)
		}
	}
}

// wanted says whether somebody here waits for key: then its row has to say so.
func (w *watched) wanted(key string) *waker {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wakers) == 0 {
		return nil
	}
	return w.wakers[hashOf(key)]
}

// mark notes whether the row says that somebody waits, or an attempt under way sees to it.
func (w *watched) mark(own *waker, marked bool) {
	if own == nil {
		return
	}
	w.mu.Lock()
	own.marked, own.since = marked, time.Now()
	w.mu.Unlock()
	if !marked {
		w.poke() // it may sleep until the next renewal
	}
}

// unmark: nobody answered. They are asked for again, a moment later.
func (w *watched) unmark(keys []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range keys {
		if own := w.wakers[hashOf(key)]; own != nil {
			own.marked, own.since = false, time.Now()
		}
	}
}

// waiting says whether anybody waits.
func (w *watched) waiting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.wakers) > 0
}

// markAfter is how long after Notify the attendant marks the row of a key itself. The core
// makes an attempt right after Notify, which does so on its way.
const markAfter = 20 * time.Millisecond

// unmarked is how long it is until the first row has to be marked.
func (w *watched) unmarked(now time.Time) (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	least, any := time.Duration(0), false
	for _, own := range w.wakers {
		if left := own.since.Add(markAfter).Sub(now); !own.marked && (!any || left < least) {
			least, any = left, true
		}
	}
	return least, any
}

// toAsk are the keys to be looked at: where changes are announced, those whose rows have to be
// marked, otherwise all that somebody waits for.
func (w *watched) toAsk(listens bool, now time.Time) (keys []string, want bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, own := range w.wakers {
		switch {
		case !listens:
			keys = append(keys, own.key)
		case !own.marked && now.Sub(own.since) >= markAfter:
			own.marked = true
			keys = append(keys, own.key)
		}
	}
	return keys, listens
}
