package locker

import (
	"reflect"
	"testing"
)

// A Lease is made in each Lock, and a program may hold millions: no field is added without a
// thought. What is rarely needed belongs in extra.
func TestLeaseSize(t *testing.T) {
	if size := reflect.TypeFor[Lease]().Size(); size > 80 {
		t.Errorf("%d bytes; the size class of 80 is full", size)
	}
}
