// Package catalogue is the one list of what otellock measures. The instruments are made from it,
// and so are the table in the documents, the dashboard and the alert rules.
package catalogue

import "strings"

// Kind is the kind of an instrument.
type Kind string

// The kinds of instruments.
const (
	Counter       Kind = "counter"
	UpDownCounter Kind = "up-down counter"
	Histogram     Kind = "histogram"
)

// The attributes of the metrics and of the spans.
const (
	Backend   = "lockstep.backend"
	Label     = "lockstep.label"
	Reason    = "lockstep.reason"
	ErrorType = "error.type" // of OpenTelemetry's semantic conventions
)

// Metric is one instrument, and how it is shown and alarmed on.
type Metric struct {
	Name       string
	Kind       Kind
	Unit       string
	Help       string // a sentence
	Attributes []string
	Buckets    []float64 // of a histogram, in Unit

	Panel  string // the title of its panel
	Legend string // the attribute that tells the lines of the panel apart
	Alerts []Alert
}

// Alert is a rule on a metric. In Expr, $metric is the name of the metric as Prometheus has it.
type Alert struct {
	Name     string
	Expr     string
	For      string
	Severity string
	Summary  string
	Do       string
}

// durations are from what a lock in memory takes to what a batch takes.
var durations = []float64{.00001, .0001, .001, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 1800}

// The metrics.
var (
	Acquisitions = Metric{
		Name: "lockstep.acquisitions", Kind: Counter, Unit: "{acquisition}",
		Help:       "Holds that were granted.",
		Attributes: []string{Backend, Label},
		Panel:      "Acquisitions per second", Legend: Label,
	}
	Refusals = Metric{
		Name: "lockstep.refusals", Kind: Counter, Unit: "{refusal}",
		Help:       "Calls of Lock and TryLock that got no hold; error.type says whether it was held, or the store.",
		Attributes: []string{Backend, Label, ErrorType},
		Panel:      "Refusals per second", Legend: ErrorType,
		Alerts: []Alert{{
			Name: "LockstepStoreUnavailable",
			Expr: `sum by (lockstep_backend) (rate($metric{error_type="unavailable"}[5m])) > 0`,
			For:  "2m", Severity: "critical",
			Summary: "Calls fail because the {{ $labels.lockstep_backend }} store does not answer, or refuses.",
			Do:      "Look at the store, and at the error in the log.",
		}},
	}
	Wait = Metric{
		Name: "lockstep.wait.duration", Kind: Histogram, Unit: "s",
		Help:       "The time from a call to its hold, or until a Lock that waited gave up.",
		Attributes: []string{Backend, Label, ErrorType}, Buckets: durations,
		Panel: "Wait, p50 and p99", Legend: Label,
		Alerts: []Alert{{
			Name: "LockstepWaitsLong",
			Expr: `histogram_quantile(0.99, sum by (le, lockstep_backend, lockstep_label) (rate($metric_bucket[10m]))) > 30`,
			For:  "10m", Severity: "warning",
			Summary: "One of a hundred waits for {{ $labels.lockstep_label }} takes longer than 30 s.",
			Do:      "Set the threshold to what your callers can bear. Look at the hold times: who holds for so long?",
		}},
	}
	Hold = Metric{
		Name: "lockstep.hold.duration", Kind: Histogram, Unit: "s",
		Help:       "How long holds lasted, however they ended.",
		Attributes: []string{Backend, Label}, Buckets: durations,
		Panel: "Hold, p50 and p99", Legend: Label,
	}
	Waiters = Metric{
		Name: "lockstep.waiters", Kind: UpDownCounter, Unit: "{waiter}",
		Help:       "Calls of Lock that wait at this moment.",
		Attributes: []string{Backend, Label},
		Panel:      "Waiters", Legend: Label,
		Alerts: []Alert{{
			Name: "LockstepWaitersStuck",
			Expr: `sum by (lockstep_backend, lockstep_label) ($metric) > 0
  unless sum by (lockstep_backend, lockstep_label) (rate(lockstep_acquisitions_total[10m])) > 0`,
			For: "10m", Severity: "warning",
			Summary: "Callers wait for {{ $labels.lockstep_label }}, and nobody gets it.",
			Do:      "Inspect the key: a holder may hang, or a crashed one have a long ttl.",
		}},
	}
	Holds = Metric{
		Name: "lockstep.holds", Kind: UpDownCounter, Unit: "{hold}",
		Help:       "Locks that this process holds at this moment.",
		Attributes: []string{Backend, Label},
		Panel:      "Holds", Legend: Label,
	}
	Losses = Metric{
		Name: "lockstep.losses", Kind: Counter, Unit: "{loss}",
		Help:       "Holds that ended before they were unlocked, by reason.",
		Attributes: []string{Backend, Label, Reason},
		Panel:      "Losses per minute", Legend: Reason,
		Alerts: []Alert{{
			Name: "LockstepHoldLost",
			Expr: `sum by (lockstep_backend, lockstep_label, lockstep_reason) (increase($metric[5m])) > 0`,
			For:  "0m", Severity: "warning",
			Summary: "A hold of {{ $labels.lockstep_label }} ended before it was unlocked: {{ $labels.lockstep_reason }}.",
			Do:      "expired: the ttl is too short for the work. unreachable: look at the store. lost: somebody deleted the key, or the store forgot it. broken: somebody used Break. In these four two may have worked at the same time. capped, stalled: the work took too long, or hangs; nobody else has the key before the lease's end.",
		}},
	}
	RenewalFailures = Metric{
		Name: "lockstep.renewal.failures", Kind: Counter, Unit: "{failure}",
		Help:       "Extensions of a lease that failed, by the program or of a kept lease.",
		Attributes: []string{Backend, Label, ErrorType},
		Panel:      "Failed renewals per minute", Legend: ErrorType,
		Alerts: []Alert{{
			Name: "LockstepRenewalsFail",
			Expr: `sum by (lockstep_backend) (rate($metric{error_type=~"unavailable|lost"}[5m])) > 0`,
			For:  "5m", Severity: "warning",
			Summary: "Leases on {{ $labels.lockstep_backend }} cannot be extended. They are lost when their ttl is up.",
			Do:      "Look at the store before the holds are lost.",
		}},
	}
	ReleaseFailures = Metric{
		Name: "lockstep.release.failures", Kind: Counter, Unit: "{failure}",
		Help:       "Releases that the store did not confirm; they are repeated in the background.",
		Attributes: []string{Backend, Label, ErrorType},
		Panel:      "Failed releases per minute", Legend: ErrorType,
	}
	Outages = Metric{
		Name: "lockstep.outages", Kind: Counter, Unit: "{outage}",
		Help:       "Times that the waiters of a key met a store that did not answer, or refused.",
		Attributes: []string{Backend},
		Panel:      "Outages per minute", Legend: Backend,
		Alerts: []Alert{{
			Name: "LockstepOutage",
			Expr: `sum by (lockstep_backend) (increase($metric[5m])) > 0`,
			For:  "0m", Severity: "warning",
			Summary: "Calls of Lock wait because the {{ $labels.lockstep_backend }} store does not answer, or refuses.",
			Do:      "Look at the store, and at the error in the log. They go on by themselves when it is back.",
		}},
	}
)

// All is every metric, in the order in which it is shown.
var All = []Metric{Acquisitions, Refusals, Wait, Hold, Waiters, Holds, Losses, RenewalFailures, ReleaseFailures, Outages}

// Prometheus is the name of m, or of its series with a suffix, in Prometheus.
func (m Metric) Prometheus() string {
	name := strings.ReplaceAll(m.Name, ".", "_")
	if m.Unit == "s" {
		name += "_seconds"
	}
	if m.Kind == Counter {
		name += "_total"
	}
	return name
}

// PrometheusLabel is the name of an attribute in Prometheus.
func PrometheusLabel(attribute string) string { return strings.ReplaceAll(attribute, ".", "_") }
