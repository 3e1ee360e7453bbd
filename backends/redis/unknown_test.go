package redis

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Unknown outcomes are kept for as long as a copy may come, and those of an outage are forgotten after
// it, although no other comes.
func TestUnknownOutcomesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d unknowns
		const keep = 2 * time.Minute
		for i := range 1000 {
			d.note(strconv.Itoa(i), driver.ErrUnavailable, keep)
		}
		d.note("held", driver.ErrHeld, keep)
		d.note("refused", driver.ErrRefused, keep)
		time.Sleep(keep)
		if !d.has("7") || d.has("held") || d.has("refused") {
			t.Error("what may still come is forgotten, or what was answered is not")
		}
		time.Sleep(2 * time.Second)
		d.has("somebody")
		if n, size := d.n.Load(), len(d.since); n != 0 || size != 0 {
			t.Errorf("%d, %d are left", n, size)
		}
	})
}
