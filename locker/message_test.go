package locker

import (
	"strings"
	"testing"
)

// A new kind of event without a message would panic in the log, and only there.
func TestEveryEventKindHasAMessage(t *testing.T) {
	k := EventAcquired
	for ; !strings.HasPrefix(k.String(), "EventKind("); k++ {
		if int(k) >= len(messages) || messages[k] == [2]string{} {
			t.Errorf("messages has none for %s", k)
		}
	}
	if int(k) != len(messages) {
		t.Errorf("messages has %d entries; there are %d kinds with 0", len(messages), k)
	}
}
