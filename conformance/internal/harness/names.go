package harness

import (
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Rand is a source of its own for each caller: one per goroutine keeps each one's choices the
// same, however they are scheduled.
func (c *Trial) Rand() *rand.Rand {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rngs++
	return rand.New(rand.NewPCG(c.Random, c.rngs))
}

// Key is a key that nobody else has.
func (c *Trial) Key(name string) string {
	return "conformance/" + c.ID + "/" + c.Unique + "/" + name
}

// Short is a key as the history shows it.
func (c *Trial) Short(key string) string {
	s := fmt.Sprintf("%q", strings.ReplaceAll(key, c.Hist.cut, ""))
	if len(s) > 48 {
		s = s[:40] + `…"`
	}
	return s
}

// Owner is an owner that nobody else is, of an instance of its own.
func (c *Trial) Owner() driver.Owner {
	o := driver.Owner{}
	_, _ = crand.Read(o.Instance[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owners++
	o.Seq = c.owners
	return o
}
