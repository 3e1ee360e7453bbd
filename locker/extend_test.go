package locker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// An Unlock that begins while an Extend is under way looks only afterwards whether the hold
// can be handed off. If the Extend has returned in between, with its outcome unknown, its
// request may still arrive, and would meet the next one's hold under the same owner.
func TestUnknownExtendOfEndedHoldIsRemembered(t *testing.T) {
	b := &interrupted{}
	l, err := New(b, Config{TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	s, err := l.Lock(context.Background(), "k")
	if err != nil {
		t.Fatal(err)
	}
	b.during = func() { // as Unlock does, up to where it looks
		s.mu.Lock()
		defer s.mu.Unlock()
		s.endLocked(ReasonReleased, nil)
	}
	if err := s.Extend(context.Background(), time.Second); !errors.Is(err, ErrReleased) {
		t.Errorf("got %v, want ErrReleased", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mayBeChangedLocked() {
		t.Error("the hold would be handed off although the Extend may yet arrive")
	}
}

// interrupted loses each Extend, after during.
type interrupted struct{ during func() }

func (*interrupted) Acquire(_ context.Context, r driver.Request) (driver.Grant, error) {
	return driver.Grant{Token: 1, TTL: r.TTL}, nil
}

func (b *interrupted) Extend(context.Context, driver.Holder, time.Duration) (driver.Grant, error) {
	b.during()
	return driver.Grant{}, driver.ErrUnavailable
}
func (*interrupted) Release(context.Context, driver.Holder) error { return nil }
func (*interrupted) Capabilities() driver.Capabilities {
	return driver.Capabilities{Name: "interrupted"}
}
func (*interrupted) Close(context.Context) error { return nil }
