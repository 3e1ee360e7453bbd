package driver_test

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

func TestHeld(t *testing.T) {
	err := fmt.Errorf("redis: %w", driver.Held(3*time.Second))
	if !errors.Is(err, driver.ErrHeld) || errors.Is(err, driver.ErrLost) {
		t.Error(err)
	}
	if d, ok := driver.Remaining(err); !ok || d != 3*time.Second {
		t.Errorf("%s, %v", d, ok)
	}
	for _, err := range []error{nil, driver.ErrHeld, errors.New("x")} {
		if _, ok := driver.Remaining(err); ok {
			t.Errorf("%v has a rest", err)
		}
	}
	if !errors.Is(driver.ErrExpired, driver.ErrLost) || errors.Is(driver.ErrLost, driver.ErrExpired) {
		t.Error("ErrExpired is an ErrLost, and not the reverse")
	}
}

func TestOwner(t *testing.T) {
	o := driver.Owner{Instance: [16]byte{0xab}, Seq: math.MaxUint64}
	if got := o.String(); got != "ab000000000000000000000000000000-18446744073709551615" {
		t.Error(got)
	}
	var buf [64]byte
	if n := testing.AllocsPerRun(100, func() { _ = o.AppendText(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCapabilities(t *testing.T) {
	all := driver.All()
	for i, c := range all {
		s := driver.NewSet(c)
		for j, other := range all {
			if s.Has(other) != (i == j) {
				t.Errorf("{%v} has %v: %v", c, other, s.Has(other))
			}
		}
		if c.String() == "" || c.String() == fmt.Sprintf("Capability(%d)", i) {
			t.Errorf("capability %d has no name", i)
		}
	}
	if driver.NewSet().Has(driver.Capability(200)) {
		t.Error("an unknown capability")
	}
}
