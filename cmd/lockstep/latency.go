package main

import (
	"fmt"
	"slices"
	"time"
)

// latencies are measured durations.
type latencies []time.Duration

func (l latencies) percentile(p float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l))
	return sorted[min(int(float64(len(sorted))*p/100), len(sorted)-1)]
}

func (l latencies) String() string {
	return fmt.Sprintf("p50 %s, p99 %s of %d", micro(l.percentile(50)), micro(l.percentile(99)), len(l))
}

// micro is d to the microsecond, or in three digits.
func micro(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// add says what the round trips to a node are like.
func (e *examination) latency(check, node string, l latencies, timeout time.Duration) {
	f := finding{Severity: fine, Check: check, Node: node, Found: "a round trip takes " + l.String()}
	if p99 := l.percentile(99); timeout > 0 && p99 > timeout/3 {
		f.Severity = warning
		f.Means = fmt.Sprintf("a session is renewed three times within its validity, %s; slow answers end it", short(timeout))
		f.Clauses = []string{"LOSS-001"}
		f.Do = "raise validity, or move closer to the store"
	}
	e.add(f)
}

// clockReading is what a server's clock said, and how far from now that may be.
type clockReading struct {
	at    time.Time // on this machine's monotonic clock, in the middle of the round trip
	says  time.Time
	about time.Duration // the true moment is within this of at
}

// readClock takes the quickest of some readings.
func readClock(ask func() (time.Time, error)) (best clockReading, err error) {
	for i := range 5 {
		began := time.Now()
		says, err := ask()
		took := time.Since(began)
		if err != nil {
			return best, err
		}
		if about := took / 2; i == 0 || about < best.about {
			best = clockReading{began.Add(took / 2), says, about}
		}
	}
	return best, nil
}

// offset is how far ahead the server is.
func (c clockReading) offset() time.Duration { return c.says.Sub(c.at.Round(0)) }

// What a client allows for, and what is remarkable.
const (
	driftAllowed  = 0.01 // locker.DefaultDriftFactor
	offsetNotable = time.Second
)

// clock says what two readings of one server's clock tell, the second some time after the first.
func (e *examination) clock(node string, first, second clockReading) {
	offset := second.offset()
	f := finding{Severity: fine, Check: "clock", Node: node,
		Found: fmt.Sprintf("it is %s ahead of this machine's, give or take %s", short0(offset), micro(second.about))}
	if offset.Abs() > offsetNotable {
		f.Severity = note
		f.Means = "nothing for leases and sessions, which are timed by the server alone; tokens, where a counter was lost, begin at its clock"
		f.Clauses = []string{"FLT-006", "TOK-005"}
		f.Do = "find out which of the two is wrong"
	}
	e.add(f)

	passed := second.at.Sub(first.at)
	drift := second.says.Sub(first.says) - passed
	unsure := first.about + second.about
	f = finding{Severity: fine, Check: "drift", Node: node,
		Found: fmt.Sprintf("within %s its clock moved %s more than this machine's, give or take %s", short(passed), short0(drift), micro(unsure))}
	if drift.Abs()-unsure > time.Duration(float64(passed)*driftAllowed) {
		f.Severity = critical
		f.Means = "a holder counts on a clock of about the same speed, to within driftFactor (1 %): it may consider itself the holder when the key is free already"
		f.Clauses = []string{"TTL-002", "LOSS-001"}
		f.Do = "let the time service slew, never step; see why this clock runs or jumps"
	}
	e.add(f)
}

// short0 is short with a sign.
func short0(d time.Duration) string {
	if d = d.Round(time.Microsecond); d < 0 {
		return "-" + micro(-d)
	}
	return micro(d)
}
