package peers

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

func summarize(values []float64) Figure {
	if len(values) == 0 {
		return Figure{}
	}
	slices.Sort(values)
	return Figure{Value: median(values), Low: quantile(values, 0.25), High: quantile(values, 0.75), Rounds: len(values)}
}

// median and quantile take sorted values.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

func quantile[T any](sorted []T, q float64) (none T) {
	if len(sorted) == 0 {
		return none
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// The metrics, and the units that they are in. One that is not here is a plain number.
const (
	perPair     = "Lock + Unlock" // mean
	p50         = "p50"
	p99         = "p99"
	throughput  = "throughput"
	handOff     = "hand-off p50"
	allocations = "allocations"
	p99Wait     = "p99 wait"
	worst       = "worst Lock"
	worstMoby   = "worst moby/locker"
	excess      = "worst Lock − 2 × moby/locker's"
	p999        = "p99.9 Lock"
	alone       = "1 goroutine"
	both        = "2 goroutines"
	scaling     = "scaling"
	cpuEach     = "CPU each"
	clientEach  = "client CPU each"
	serverEach  = "server CPU each"
	callsEach   = "server calls per pair"
	nextHas     = "next has it"
	nextCalled  = "next has it, if called"
	lastHas     = "last has it"
	serverStays = "server memory"
	bytesEach   = "bytes each"
	collection  = "GC cycle"
)

// pairsDone is for whoever divides by it, and not in the report.
const pairsDone = "pairs"

var units = map[string]string{
	perPair: "ns", p50: "ns", p99: "ns", handOff: "ns", p99Wait: "ns", worst: "ns", collection: "ns",
	cpuEach: "ns", clientEach: "ns", serverEach: "ns", nextHas: "ns", nextCalled: "ns", lastHas: "ns", worstMoby: "ns", excess: "ns", p999: "ns",
	throughput: "/s", alone: "/s", both: "/s", bytesEach: "B", serverStays: "MB",
	"lateness p50": "ns", "lateness p99": "ns", "lateness": "ns",
	"all gone": "ns",
	"wake-ups": "/s", "client CPU": "%",
}

// show writes a value with its unit.
func show(metric string, v float64) string {
	switch unit := units[metric]; unit {
	case "ns":
		for _, scale := range []struct {
			unit string
			size float64
		}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
			if math.Abs(v) >= scale.size*0.9995 {
				return number(v/scale.size) + " " + scale.unit
			}
		}
		return number(v) + " ns"
	case "/s":
		switch {
		case v >= 1e6:
			return number(v/1e6) + " M/s"
		case v >= 1e4:
			return number(v/1e3) + " k/s"
		}
		return number(v) + "/s"
	case "B", "MB", "%":
		return number(v) + " " + unit
	}
	return number(v)
}

// number writes three digits that count.
func number(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v) && a < 1e6:
		return strconv.Itoa(int(v))
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return trim(fmt.Sprintf("%.1f", v))
	case a >= 0.1:
		return trim(fmt.Sprintf("%.2f", v))
	}
	return fmt.Sprintf("%.2g", v)
}

func trim(s string) string { return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") }
