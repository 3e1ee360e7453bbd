package proof

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
)

// pasted is a program as it was printed, and then pasted here. It holds a step of every
// kind and every sort of value.
func pasted() program {
	return []step{
		{do: "try", key: "k\x00", ttl: longTTL, as: "a"},
		{do: "lock", by: 2, key: "\xff\xfe", ttl: shortTTL, as: "b"},
		{do: "try", by: 1, key: tooLongKey, ttl: longerTTL, as: "a"},
		{do: "try", key: longestKey, ttl: wrongTTL, as: "c"},
		{do: "lock", key: "}{\"\r\n", ttl: hugeTTL, as: "c", ctx: "nil"},
		{do: "lock", as: "c", ctx: "canceled"},
		{do: "pass"},
		{do: "await", by: 1, key: "\xff\xfe", as: "c"},
		{do: "handOver", by: 2, ttl: longTTL, as: "b", of: "a"},
		{do: "inspect", by: 1, key: "k\x00"},
		{do: "look", of: "a"},
		{do: "unlock", of: "a"},
		{do: "close", by: 1},
		{do: "open", by: 1},
		{do: "extend", ttl: longTTL, of: "b"},
	}
}

// TestLockstepPrints proves that what is printed is Go, and this very program.
func TestLockstepPrints(t *testing.T) {
	source, err := os.ReadFile("lockstep_paste_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if printed := "\treturn " + pasted().GoString() + "\n}\n"; !strings.Contains(string(source), printed) {
		t.Errorf("a program is not printed as it stands in the source:\n%s", printed)
	}
}

// TestLockstepPasted proves that a program that was pasted shows the difference for which
// it was printed, and none where there is none.
func TestLockstepPasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		replay(t, memoryAndMemory, pasted())
		add := faulty{extend: extendAdds}
		r := pasted().run([2]func() opener{memoryStore, add.store})
		if last := len(pasted()); r.differ != last {
			t.Errorf("it differs at step %d, want %d:\n%s", r.differ, last, r.text())
		}
	})
	replay(t, memoryAndRedis, pasted())
}
