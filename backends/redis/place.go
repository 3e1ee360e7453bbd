package redis

import (
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// place is what this process knows of its place in the server's queue for one lock. Who frees
// a lock calls the first process in the queue (lua/call.lua); every other one is told as well that the
// lock was changed, but would ask in vain. It asks only after a while, in case that those before it
// have died, and never later than maxDelay.
type place struct {
	in     bool // the queue has this process
	before int  // so many processes are before it there

	// The last answer, and whether it still says how things are.
	asked   time.Time
	ends    time.Time // of the hold that it told of, or of the time that others have to come
	turn    bool      // it told that the lock is free, and that it is another's turn
	again   bool      // nobody was listening yet: the one who will is given it, too
	changed bool      // something was announced since asked

	others bool      // when this process got the lock, others waited
	until  time.Time // it is remembered: for as long as that hold may last
	used   time.Time // it is forgotten placeLife later, unless somebody waits here
	timer  *time.Timer
	asks   bool      // the timer wakes those who wait, rather than to look whether this is old
	due    time.Time // when it does
}

const (
	// placeLife is how long a lock is remembered as one that many want. A first attempt for such a
	// lock does not overtake those who wait, and its release calls the next one.
	placeLife = time.Second
	// perPlace is how long a process that is not called waits for each one before it but the first,
	// once the lock has been changed: about two acquisitions. The first has as long as the server has
	// the others wait for it (patience), and a little for the way.
	firstPlace = 11 * time.Millisecond
	perPlace   = 25 * time.Millisecond
	// maxDelay bounds that. When those before have died, or the lock was freed by somebody who called
	// nobody, an expiry or an administrator, the first of all who wait to ask sees to the rest.
	maxDelay = 400 * time.Millisecond
	// sameAnswer is how old an answer may be that is given twice, while nothing is announced.
	sameAnswer = 250 * time.Millisecond
)

// placeLocked is the place for lock, a new one if need be.
func (w *watched) placeLocked(s *watchedShard, lock string) *place {
	p := s.places[lock]
	if p == nil {
		p = new(place)
		p.timer = time.AfterFunc(placeLife, func() { w.due(lock, p) })
		s.places[lock] = p
	}
	p.used = time.Now()
	return p
}

// due is the timer of p: it wakes those who wait, or forgets p.
func (w *watched) due(lock string, p *place) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places[lock] != p {
		return
	}
	if p.asks {
		p.asks, p.changed = false, true
		s.wakeAll(lock)
	} else if now := time.Now(); len(s.wakes[lock]) == 0 && now.Sub(p.used) >= placeLife && now.After(p.until) {
		delete(s.places, lock)
		if p.in { // its first attempt was its last: nobody ever listened
			w.leave(lock)
		}
		return
	}
	p.timer.Reset(placeLife)
}

func (s *watchedShard) wakeAll(lock string) {
	for _, w := range s.wakes[lock] {
		w.wake()
	}
}

// stir wakes those who wait for lock, which may have become free: now, or where other processes
// come first, later.
func (s *watchedShard) stir(lock string) {
	p := s.places[lock]
	if p != nil {
		p.changed = true
	}
	if p == nil || !p.in || p.before == 0 {
		s.wakeAll(lock)
	} else {
		after := min(firstPlace+time.Duration(p.before-1)*perPlace, maxDelay)
		if due := time.Now().Add(after); !p.asks || due.Before(p.due) {
			p.asks, p.due = true, due
			p.timer.Reset(after)
		}
	}
}

// askAnyway: something happened that this process's place does not explain. The next attempt is for the
// server, also if the answer to an earlier one comes only now.
func (p *place) askAnyway() { p.changed, p.asked = true, time.Time{} }

// called: it is this process's turn.
func (w *watched) called(lock string) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.places[lock]; p != nil {
		p.before = 0
		p.askAnyway()
	}
	s.wakeAll(lock)
}

// asking prepares an attempt of one who waits, or is about to. wanted is false where nobody else is known to
// want the lock. held is an ErrHeld where the server need not be asked: its last answer still stands, or that
// answer was that others are to come, and one of them did. In that case this process asks by its place (stir).
// unknown says that an earlier attempt of the same owner may have been granted: only the server's answer
// settles it.
func (w *watched) asking(lock string, sent time.Time, announced, unknown bool) (wanted bool, held error) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, waits := s.places[lock], len(s.wakes[lock]) > 0
	if !waits && (p == nil || !announced) { // a first attempt; who polls gets a place when it listens
		return false, nil
	}
	p = w.placeLocked(s, lock)
	again := p.again || p.before > 0
	p.again = false
	if again && waits && !unknown && sent.Sub(p.asked) < sameAnswer {
		switch {
		case p.changed && p.turn && p.in && p.before > 0 && p.asks:
			return true, driver.ErrHeld // another one has come meanwhile; the timer asks
		case !p.changed && sent.Before(p.ends):
			return true, driver.Held(p.ends.Sub(sent))
		}
	}
	p.asksAt(sent)
	return true, nil
}

// asksAt: what was answered before stands no more, whatever becomes of this attempt.
func (p *place) asksAt(sent time.Time) {
	p.asked, p.changed, p.ends, p.turn = sent, false, time.Time{}, false
}

// grantedInTurn notes that the server has given this process the lock, while others waited or not.
// The hold lasts until then, unless it is extended.
func (w *watched) grantedInTurn(lock string, others bool, until time.Time) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := w.placeLocked(s, lock)
	p.in, p.others, p.before, p.again, p.until = false, others, 0, false, time.Time{}
	if others {
		p.until = until
	}
}

// refused notes that there are before others in the queue before this process. The answer stands until
// ends; it stands for one attempt where that is zero. turn says that the lock is free, and the others have
// until then to come.
func (w *watched) refused(lock string, before int, ends time.Time, turn bool) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := w.placeLocked(s, lock)
	p.in, p.before, p.ends, p.turn = true, before, ends, turn
	p.again = len(s.wakes[lock]) == 0
	if before == 0 && p.changed { // it was announced to one who stood further behind
		s.wakeAll(lock)
	}
}

// yielding prepares an attempt to give way to others.
func (w *watched) yielding(lock string, sent time.Time) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	w.placeLocked(s, lock).asksAt(sent)
}

// yielded notes that this process has given way to others and stands behind before of them. Those who
// wait here need not ask at once, unless something was announced already.
func (w *watched) yielded(lock string, before int) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := w.placeLocked(s, lock)
	p.in, p.others, p.before = true, false, before
	unheard := !p.changed
	s.stir(lock) // in case that none of them comes
	if p.again = unheard && before > 0; p.again {
		p.changed, p.ends = false, p.asked.Add(sameAnswer)
	}
}

// wanted says whether others waited for lock when this process got it, a moment ago.
func (w *watched) wanted(lock string) bool {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[lock]
	return p != nil && p.others
}

// freed wakes those who wait here for a lock that this process has freed, at once unless another one was
// called. n is lua/release.lua's reply.
func (w *watched) freed(lock string, n int64) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.places[lock]; p != nil {
		p.others, p.until, p.used = false, time.Time{}, time.Now()
		switch n {
		case calledAnother:
			p.before = max(p.before, 1)
		case calledNobody: // but this one, which the server does not tell
			p.before = 0
			p.askAnyway()
		}
	}
	s.stir(lock)
}

// left takes this process's place away, when nobody waits here any more, and says whether it had one.
func (s *watchedShard) left(lock string) bool {
	p := s.places[lock]
	if p == nil || len(s.wakes[lock]) > 0 {
		return false
	}
	was := p.in
	p.in, p.before, p.again, p.used = false, 0, false, time.Now()
	return was
}

// bellOf is the key by which this process is called; see lua/call.lua.
func (b *backend) bellOf(key string) string { return b.layout.queueKey(key) + ":" + b.process }

// belled is the lock that a bell of this process belongs to.
func (b *backend) belled(redisKey string) (lock string, ok bool) {
	key, ok := strings.CutPrefix(redisKey, b.layout.token)
	if !ok {
		return "", false
	}
	key, ok = strings.CutSuffix(key, ":queue:"+b.process)
	return b.layout.lock + key, ok
}

// announced says whether the server tells this client of changes.
func (b *backend) announced() bool { return b.caps.Has.Has(driver.PromptLoss) }
