package harness

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A failure that is about some moment shows what happened around it, not what came last.
func TestFocus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &History{Start: time.Now()}
		for i := range 1000 {
			h.Add("event %d.", i)
			time.Sleep(time.Millisecond)
		}
		if text := h.Text(""); !strings.Contains(text, "event 999.") || strings.Contains(text, "event 100.") || !strings.HasPrefix(text, "last 30 of 1000 events") {
			t.Errorf("without a focus:\n%s", text)
		}
		h.Focus(h.Start.Add(100*time.Millisecond), h.Start.Add(300*time.Millisecond))
		text := h.Text("")
		for _, want := range []string{"event 98.", "event 100.", "event 103.", "others", "event 300."} {
			if !strings.Contains(text, want) {
				t.Errorf("the text lacks %q:\n%s", want, text)
			}
		}
		if strings.Contains(text, "event 999.") || strings.Contains(text, "event 200.") {
			t.Errorf("it shows what is far from the focus:\n%s", text)
		}
		h.Focus(h.Start.Add(-time.Hour), h.Start.Add(time.Hour)) // before all, and after all
		if text := h.Text(""); !strings.Contains(text, "event 0.") || !strings.Contains(text, "event 999.") {
			t.Errorf("at the ends:\n%s", text)
		}
	})
}
