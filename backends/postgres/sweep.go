package postgres

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// keepTokens is how long a row outlives its last grant. It need not be long: afterwards
	// the server's clock takes over, which is past every token handed out unless it is set back
	// by more than this in between. Rows without an end are 10 million keys one day.
	keepTokens = time.Hour
	// sweepEvery is how often all clients together sweep.
	sweepEvery = time.Minute
	// sweepMost is how many rows one statement removes: it holds their locks until it ends.
	sweepMost = 10000
	// sweepTime is how long one statement may take. It may have to read all of a large table, which a
	// timeout that suits a lock would never allow: the table would grow, and each sweep be hopeless.
	sweepTime = sweepEvery
)

// sweepLoop removes rows that nobody needs any more. Each client looks now and then whether
// somebody has lately, and who finds that nobody has does it.
func (b *backend) sweepLoop() {
	defer b.background.Done()
	for {
		timer := time.NewTimer(sweepEvery/2 + rand.N(sweepEvery))
		select {
		case <-timer.C:
		case <-b.ctx.Done():
			timer.Stop()
			return
		}
		for b.sweep(b.ctx, keepTokens, sweepEvery) == sweepMost {
		}
	}
}

// sweep removes at most sweepMost rows, and says how many. An error is nobody's concern: the
// next sweep does what this one did not.
func (b *backend) sweep(ctx context.Context, keep, every time.Duration) int {
	rows, err := b.callAll(ctx, sweepTime, "lockstep_sweep", func(time.Duration) [][]byte {
		return [][]byte{micros(keep), micros(every), int4s(sweepMost)}
	})
	if err != nil || len(rows) != 1 || len(rows[0]) != 1 || len(rows[0][0]) != 4 {
		return 0
	}
	n := 0
	for _, c := range rows[0][0] {
		n = n<<8 | int(c)
	}
	return n
}
