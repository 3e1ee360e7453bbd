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
		s.confirm(time.Now())
		if err := b.SessionErr(h); err != nil {
			t.Errorf("just confirmed: %v", err)
		}
		time.Sleep(time.Second)
		if err := b.SessionErr(h); err == nil || strings.Contains(err.Error(), "NOPERM") {
			t.Errorf("silence after an answer that was good: %v", err)
		}
	})
}
