package postgres

import (
	"fmt"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// What is due is looked at so many at a time, and nothing is passed over; a change meanwhile is looked at again.
func TestTakeDue(t *testing.T) {
	w := watched{poke: func() {}}
	w.init()
	for i := range 5 {
		w.granted(w.hold(driver.Request{Key: fmt.Sprint(i), Owner: driver.Owner{Seq: uint64(i)}}), time.Now().Add(time.Hour))
	}
	w.missed()
	w.forget("4", driver.Owner{Seq: 4})
	taken := map[string]int{}
	for w.due() {
		due := w.takeDue(2)
		if len(due) > 2 {
			t.Errorf("%d at a time", len(due))
		}
		for _, h := range due {
			if taken[h.key]++; h.key == "0" && taken["0"] == 1 {
				w.change(hashOf("0"))
			}
		}
	}
	if got, want := fmt.Sprint(taken), "map[0:2 1:1 2:1 3:1]"; got != want {
		t.Errorf("looked at %s, want %s", got, want)
	}
}
