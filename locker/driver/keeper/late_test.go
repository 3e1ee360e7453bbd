//go:build go1.25

package keeper

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

type hears struct{ cause chan error }

func (h hears) Lost(cause error) { h.cause <- cause }

// A process that was stopped runs before its timers do. Whoever asks for a session then is told that it
// is over (LOSS-001), so a renewal that is answered only now must not bring it back: it would be
// renewed for ever, with no holder (SES-002).
func TestAnsweredTooLate(t *testing.T) {
	const validity = 3 * time.Second
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		renewals := 0
		k := New(Config{Validity: validity, Renew: func(context.Context, []driver.Holder) ([]Outcome, error) {
			renewals++
			<-answer
			return []Outcome{Renewed}, nil
		}})
		defer k.Close()
		l, h := hears{make(chan error, 1)}, driver.Holder{Key: "k", Owner: driver.Owner{Seq: 1}}
		k.Keep(driver.Request{Key: h.Key, Owner: h.Owner, Hold: l}, 1, time.Now())
		k.mu.Lock()
		k.sessions[h.Owner].end.Stop() // it has not run yet
		k.mu.Unlock()
		time.Sleep(HeldFor(validity) - 1)
		if err := k.SessionErr(h); err != nil {
			t.Errorf("before its time: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if err := k.SessionErr(h); !errors.Is(err, driver.ErrUnavailable) {
			t.Errorf("when its time is up: %v", err)
		}
		close(answer)
		synctest.Wait()
		select {
		case cause := <-l.cause:
			if !errors.Is(cause, driver.ErrUnavailable) {
				t.Errorf("it heard %v", cause)
			}
		default:
			t.Error("a renewal that was answered too late brought it back")
		}
		time.Sleep(2 * validity)
		if renewals != 1 || k.Len() != 0 {
			t.Errorf("%d renewals, and %d are kept", renewals, k.Len())
		}
	})
}
