package redis

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// LOSS-001: a session that nobody's timer has ended yet, as in a process that has just woken up,
// is over all the same, and the server's last words say why.
func TestSessionErr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{layout: newLayout("p"), cfg: Config{Validity: time.Second}}
		h := driver.Holder{Key: "k", Owner: driver.Owner{Seq: 1}, Session: true}
		s := &session{b: b, lock: b.layout.lockKey("k"), owner: ownerValue(h.Owner, true), phase: holding, confirmed: time.Now()}
		b.sessions.holds = map[string]*session{s.lock: s}
		time.Sleep(989 * time.Millisecond)
		if err := b.SessionErr(h); err != nil {
			t.Errorf("after 989ms of 1s, less 1 %%: %v", err)
		}
		time.Sleep(time.Millisecond)
		if err := b.SessionErr(h); !errors.Is(err, driver.ErrUnavailable) || !strings.HasSuffix(err.Error(), "no renewal was confirmed for 1s") {
			t.Errorf("in silence: %v", err)
		}
		s.failed(fmt.Errorf("%w: NOPERM no script: of the server's", driver.ErrUnsupported))
		if err := b.SessionErr(h); !errors.Is(err, driver.ErrUnavailable) || errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), "NOPERM no") {
			t.Errorf("after a refusal: %v", err)
		}
		h.Owner.Seq = 2
		if err := b.SessionErr(h); err != nil {
			t.Errorf("of another owner: %v", err)
		}
		h.Owner.Seq = 1
		if s.confirm(time.Now()) {
			t.Error("a renewal that was answered too late brought it back")
		}
		if s.adopt(nil) {
			t.Error("a repeat that comes too late takes it over")
		}
		if err := b.SessionErr(h); !errors.Is(err, driver.ErrUnavailable) {
			t.Errorf("after a renewal that was answered too late: %v", err)
		}
		s.confirmed, s.answer = time.Now(), errors.New("NOPERM")
		time.Sleep(time.Second / 2)
		if !s.confirm(time.Now()) {
			t.Error("a renewal in time is none")
		}
		if err := b.SessionErr(h); err != nil {
			t.Errorf("just confirmed: %v", err)
		}
		time.Sleep(time.Second)
		if err := b.SessionErr(h); err == nil || strings.Contains(err.Error(), "NOPERM") {
			t.Errorf("silence after an answer that was good: %v", err)
		}
	})
}

// The attempts at a renewal that a server refuses get rarer, and the last one is just before the end.
func TestPauses(t *testing.T) {
	const left, most = 7 * time.Second, 500 * time.Millisecond
	for _, jitter := range []float64{0, 0.5, 0.999} {
		pause, now, n := leastPause, time.Duration(0), 0
		for {
			next := untilNext(pause, left-now, jitter)
			if next <= 0 {
				break
			}
			if next > pause || next < pause/2 && now+next < left-leastPause {
				t.Errorf("a pause of %s for %s", next, pause)
			}
			now += next
			n++
			pause = min(2*pause, most)
		}
		if now != left-leastPause {
			t.Errorf("jitter %v: the last attempt is %s before the end; want %s", jitter, left-now, leastPause)
		}
		if n > 40 {
			t.Errorf("jitter %v: %d attempts", jitter, n)
		}
	}
	if got := untilNext(leastPause, leastPause, 0); got != 0 {
		t.Errorf("after the last attempt: %s", got)
	}
}

// teller is a listener who asks for the state of the session while it is being told.
type teller struct {
	b    *backend
	h    driver.Holder
	told error
}

func (a *teller) Lost(error) { a.told = a.b.SessionErr(a.h) }

// LOSS-001: there is no instant at which a session that has ended passes for one that is held,
// although its listener is told a moment later.
func TestSessionErrWhileToldOf(t *testing.T) {
	b := &backend{layout: newLayout("p"), cfg: Config{Validity: time.Second}}
	h := driver.Holder{Key: "k", Owner: driver.Owner{Seq: 1}, Session: true}
	hears := &teller{b: b, h: h}
	s := &session{b: b, lock: b.layout.lockKey("k"), owner: ownerValue(h.Owner, true), phase: holding, confirmed: time.Now(), hears: hears, stop: func() {}}
	b.sessions.holds = map[string]*session{s.lock: s}
	s.finish(driver.ErrBroken)
	if hears.told != driver.ErrBroken {
		t.Errorf("while it is told: %v; want ErrBroken", hears.told)
	}
	if err := b.SessionErr(h); err != nil || b.sessions.get(s.lock) != nil {
		t.Errorf("when it has been told: %v", err)
	}
}
