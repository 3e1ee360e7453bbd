package harness

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// wait is something that a case waits for: a key, or that something comes true.
type wait struct {
	who, what string
	key       string // "" where it is no key
	since     time.Time
}

// Waits notes that who waits for what from now until done is called, for the failure of a case
// that hangs. key is the key that it is about, if it is one.
func (c *Trial) Waits(who, what, key string) (done func()) {
	w := &wait{who, what, key, time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waits == nil {
		c.waits = map[*wait]bool{}
	}
	c.waits[w] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waits, w)
	}
}

// stuck is who waits for what since when, and what the store says holds the keys.
func (c *Trial) stuck() string {
	c.mu.Lock()
	var all []*wait
	for w := range c.waits {
		all = append(all, w)
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b *wait) int { return a.since.Compare(b.since) })
	var b strings.Builder
	keys := map[string]bool{}
	for i, w := range all {
		const most = 20
		if i == most {
			fmt.Fprintf(&b, "\n  … and %d others wait", len(all)-most)
			break
		}
		fmt.Fprintf(&b, "\n  %s waits for %s since +%s", w.who, w.what, w.since.Sub(c.Hist.Start).Round(time.Microsecond))
		if w.key != "" && !keys[w.key] && len(keys) < 5 {
			keys[w.key] = true
			fmt.Fprintf(&b, "; the store says that %s", c.holderOf(w.key))
		}
	}
	return b.String()
}

// holderOf asks the store who holds key.
func (c *Trial) holderOf(key string) string {
	in, ok := driver.As[driver.Inspector](c.Backend)
	if !ok {
		return "nothing: the backend is no driver.Inspector"
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	info, held, err := in.Inspect(ctx, key)
	switch {
	case err != nil:
		return "nothing: " + err.Error()
	case !held:
		return "it is free"
	}
	kind := "a lease for another " + info.Remaining.String()
	if info.Session {
		kind = "a session"
	}
	return fmt.Sprintf("%s holds it, token %d, %s", cmp.Or(info.Owner, "somebody"), info.Token, kind)
}
