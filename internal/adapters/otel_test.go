package adapters

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric/noop"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	otellock "github.com/lockstep-go/lockstep/adapters/otel"
	"github.com/lockstep-go/lockstep/locker"
)

// meter is an Observer with OpenTelemetry's SDK behind it, and what Prometheus scrapes of it.
type meter struct {
	*otellock.Observer
	t        *testing.T
	registry *prometheus.Registry
	provider *sdk.MeterProvider
	spans    *tracetest.SpanRecorder
	tracing  *trace.TracerProvider
}

func newMeter(t *testing.T, o otellock.Options) *meter {
	t.Helper()
	m := &meter{t: t, registry: prometheus.NewRegistry(), spans: tracetest.NewSpanRecorder()}
	e, err := exporter.New(exporter.WithRegisterer(m.registry))
	if err != nil {
		t.Fatal(err)
	}
	m.tracing = trace.NewTracerProvider(trace.WithSpanProcessor(m.spans))
	m.provider = sdk.NewMeterProvider(sdk.WithReader(e))
	o.MeterProvider, o.TracerProvider = m.provider, m.tracing
	if m.Observer, err = otellock.New(o); err != nil {
		t.Fatal(err)
	}
	return m
}

// scrape is the text that Prometheus gets.
func (m *meter) scrape() string {
	m.t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

var sample = regexp.MustCompile(`(?m)^(\w+)\{(.*)\} (\S+)$`)

// value is the sample of name that has all these labels, and no others but the scope's.
func (m *meter) value(name string, labels ...string) float64 {
	m.t.Helper()
	for _, s := range sample.FindAllStringSubmatch(m.scrape(), -1) {
		if s[1] != name {
			continue
		}
		rest := regexp.MustCompile(`otel_scope_\w+="[^"]*",?`).ReplaceAllString(s[2], "")
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				rest = "missing"
				break
			}
			rest = strings.Replace(rest, l, "", 1)
		}
		if strings.Trim(rest, ",") != "" {
			continue
		}
		v, err := strconv.ParseFloat(s[3], 64)
		if err != nil {
			m.t.Fatal(err)
		}
		return v
	}
	return -1
}

func (m *meter) want(value float64, name string, labels ...string) {
	m.t.Helper()
	eventually(m.t, name, func() bool { return m.value(name, labels...) == value })
}

func label(name, value string) string { return name + `="` + value + `"` }

// What happens to real locks is what Prometheus reads.
func TestOtel(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		m := newMeter(t, otellock.Options{SlowWait: 100 * time.Millisecond})
		l, other := f.open(m), f.open(m)
		backend, job := label("lockstep_backend", f.config.Type), label("lockstep_label", "job")
		jobs := locker.NewFamily[int]("job", locker.WithTTL(time.Minute))
		ctx, root := m.tracing.Tracer("test").Start(t.Context(), "caller")
		defer root.End()

		held, err := jobs.Lock(ctx, l, 1)
		if err != nil {
			t.Fatal(err)
		}
		m.want(1, "lockstep_acquisitions_total", backend, job)
		m.want(1, "lockstep_holds", backend, job)
		m.want(1, "lockstep_wait_duration_seconds_count", backend, job)
		// Prometheus must have seen a counter at 0 to see its first increase.
		for _, reason := range []string{"expired", "lost", "unreachable", "capped", "stalled"} {
			m.want(0, "lockstep_losses_total", backend, job, label("lockstep_reason", reason))
		}
		m.want(-1, "lockstep_losses_total", backend, job, label("lockstep_reason", "released"))
		m.want(0, "lockstep_renewal_failures_total", backend, job, label("error_type", "unavailable"))
		m.want(0, "lockstep_renewal_failures_total", backend, job, label("error_type", "lost"))
		m.want(0, "lockstep_outages_total", backend)

		if _, err := jobs.TryLock(ctx, other, 1); !errors.Is(err, locker.ErrHeld) {
			t.Fatal(err)
		}
		m.want(1, "lockstep_refusals_total", backend, job, label("error_type", "held"))

		got := make(chan *locker.Lease)
		go func() {
			s, err := jobs.Lock(ctx, other, 1)
			if err != nil {
				t.Error(err)
			}
			got <- s
		}()
		m.want(1, "lockstep_waiters", backend, job)
		time.Sleep(150 * time.Millisecond) // a long wait
		if err := held.Unlock(ctx); err != nil {
			t.Fatal(err)
		}
		if err := held.Extend(ctx, time.Minute); !errors.Is(err, locker.ErrReleased) {
			t.Fatal(err)
		}
		later := <-got
		m.want(0, "lockstep_waiters", backend, job)
		m.want(1, "lockstep_holds", backend, job)
		m.want(1, "lockstep_hold_duration_seconds_count", backend, job)
		if v := m.value("lockstep_wait_duration_seconds_sum", backend, job); v < .15 || v > 30 {
			t.Errorf("the waits took %v s", v)
		}

		once := locker.WithRetry(locker.Retry{Attempts: 1, Delay: 20 * time.Millisecond}) // and no ctx that a slow machine is late for
		if _, err := jobs.Lock(ctx, l, 1, once); !errors.Is(err, locker.ErrHeld) {
			t.Fatal(err)
		}
		m.want(2, "lockstep_refusals_total", backend, job, label("error_type", "held"))
		m.want(1, "lockstep_wait_duration_seconds_count", backend, job, label("error_type", "held"))
		m.want(0, "lockstep_waiters", backend, job)

		// A loss by time, on every backend.
		if err := later.Extend(ctx, time.Second); err != nil {
			t.Fatal(err)
		}
		<-later.Done()
		m.want(1, "lockstep_losses_total", backend, job, label("lockstep_reason", "expired"))
		m.want(0, "lockstep_holds", backend, job)
		if err := later.Extend(ctx, time.Second); !errors.Is(err, locker.ErrLost) {
			t.Fatal(err)
		}
		m.want(1, "lockstep_renewal_failures_total", backend, job, label("error_type", "lost"))
		m.want(-1, "lockstep_renewal_failures_total", backend, job, label("error_type", "released"))

		long := 0
		for _, s := range m.spans.Ended() {
			if s.Parent().SpanID() != root.SpanContext().SpanID() {
				t.Errorf("%s is not a child of the caller's span", s.Name())
			}
			for _, a := range s.Attributes() {
				if strings.Contains(a.Value.String(), "job/1") {
					t.Errorf("%s has the key: %v", s.Name(), a)
				}
			}
			// Of a slow machine other calls may have one, too.
			attrs := attribute.NewSet(s.Attributes()...)
			outcome, _ := attrs.Value("lockstep.outcome")
			queued, _ := attrs.Value("lockstep.queued")
			if s.Name() != "lockstep.wait" || outcome.AsString() != "acquired" || !queued.AsBool() {
				continue
			}
			long++
			if d := s.EndTime().Sub(s.StartTime()); d < 150*time.Millisecond {
				t.Errorf("the span takes %s", d)
			}
			if s.Status().Code == codes.Error {
				t.Errorf("the wait that had its hold has the status %v", s.Status())
			}
		}
		if long != 1 {
			t.Errorf("%d spans of the long wait, want 1", long)
		}
		if text := m.scrape(); strings.Contains(text, "job/1") {
			t.Error("a key is among the metrics")
		}
	})
}

// An outage has a key and no label: it makes no series of other metrics.
func TestOtelOutage(t *testing.T) {
	m := newMeter(t, otellock.Options{})
	for _, k := range []locker.EventKind{locker.EventOutage, locker.EventRecovered, locker.EventOutage} {
		m.Observe(t.Context(), locker.Event{Kind: k, Backend: "redis", Key: "job/1"})
	}
	m.want(2, "lockstep_outages_total", label("lockstep_backend", "redis"))
	if text := m.scrape(); strings.Contains(text, "lockstep_holds{") {
		t.Errorf("an outage has made a series of holds:\n%s", text)
	}
}

// A span of a wait that failed has the status, and what SpanAttributes adds.
func TestOtelSpanOfFailure(t *testing.T) {
	m := newMeter(t, otellock.Options{SlowWait: time.Nanosecond, SpanAttributes: func(context.Context, locker.Event) []attribute.KeyValue {
		return []attribute.KeyValue{attribute.String("holder", "worker 7")}
	}})
	m.Observe(t.Context(), locker.Event{Kind: locker.EventGaveUp, Backend: "memory", Key: "secret", Waited: time.Second,
		Err: &locker.Error{Op: "lock", Key: "secret", Code: locker.CodeHeld}})
	spans := m.spans.Ended()
	if len(spans) != 1 || spans[0].Status().Code != codes.Error || spans[0].Status().Description != "held" {
		t.Fatalf("got %v", spans)
	}
	all := map[attribute.Key]string{}
	for _, a := range spans[0].Attributes() {
		all[a.Key] = a.Value.String()
	}
	if all["holder"] != "worker 7" || all["error.type"] != "held" || all["lockstep.outcome"] != "gave_up" || all["lockstep.queued"] != "true" {
		t.Errorf("got %v", all)
	}
}

// Labels come from a function, hold only UTF-8, and are bounded; what goes up comes down in the
// same series.
func TestOtelLabels(t *testing.T) {
	m := newMeter(t, otellock.Options{MaxLabels: 2, Label: func(key, _ string) string { before, _, _ := strings.Cut(key, ":"); return before }})
	ctx := t.Context()
	for _, key := range []string{"a:1", "\xff:1", "c:1", "d:1", "a:2"} {
		m.Observe(ctx, locker.Event{Kind: locker.EventAcquired, Backend: "memory", Key: key})
		m.Observe(ctx, locker.Event{Kind: locker.EventWaiting, Backend: "memory", Key: key})
	}
	for value, l := range map[float64]string{2: "a", 1: "?"} {
		m.want(value, "lockstep_holds", label("lockstep_backend", "memory"), label("lockstep_label", l))
	}
	m.want(2, "lockstep_holds", label("lockstep_backend", "memory"), label("lockstep_label", otellock.OtherLabel))
	for _, key := range []string{"a:1", "\xff:1", "c:1", "d:1", "a:2"} {
		m.Observe(ctx, locker.Event{Kind: locker.EventReleased, Backend: "memory", Key: key})
		m.Observe(ctx, locker.Event{Kind: locker.EventGaveUp, Backend: "memory", Key: key, Err: errors.New("another error")})
	}
	for _, l := range []string{"a", "?", otellock.OtherLabel} {
		m.want(0, "lockstep_holds", label("lockstep_backend", "memory"), label("lockstep_label", l))
		m.want(0, "lockstep_waiters", label("lockstep_backend", "memory"), label("lockstep_label", l))
	}
	m.want(2, "lockstep_refusals_total", label("lockstep_backend", "memory"), label("lockstep_label", "a"), label("error_type", "_OTHER"))
}

// What two Observers count is added up, as in a program that makes one for each of its Lockers.
func TestOtelTwo(t *testing.T) {
	m := newMeter(t, otellock.Options{})
	other, err := otellock.New(otellock.Options{MeterProvider: m.provider})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		hold(t.Context(), m)
		hold(t.Context(), other)
		other.Observe(t.Context(), locker.Event{Kind: locker.EventAcquired, Backend: "memory", Label: "job"})
	}
	m.want(6, "lockstep_acquisitions_total", label("lockstep_backend", "memory"), label("lockstep_label", "job"))
	m.want(2, "lockstep_holds", label("lockstep_backend", "memory"), label("lockstep_label", "job"))
}

func TestOtelOptions(t *testing.T) {
	for _, o := range []otellock.Options{{MaxLabels: -1}, {SlowWait: -2}} {
		if _, err := otellock.New(o); !errors.Is(err, locker.ErrInvalidConfig) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := otellock.New(otellock.Options{SlowWait: otellock.NoSpans}); err != nil {
		t.Error(err)
	}
}

var metricName = regexp.MustCompile(`\blockstep_[a-z_]+_(total|seconds|seconds_bucket)\b|\blockstep_(holds|waiters)\b`)

// The dashboard and the rules ask for what the exporter has, and the dashboard for all of it.
func TestOtelDashboard(t *testing.T) {
	m := newMeter(t, otellock.Options{})
	failed := &locker.Error{Code: locker.CodeUnavailable}
	for _, e := range []locker.Event{
		{Kind: locker.EventAcquired}, {Kind: locker.EventWaiting}, {Kind: locker.EventGaveUp, Err: failed}, {Kind: locker.EventRefused, Err: failed},
		{Kind: locker.EventExtended, Err: failed}, {Kind: locker.EventReleased, Err: failed}, {Kind: locker.EventLost, Reason: locker.ReasonLost}, {Kind: locker.EventOutage},
	} {
		e.Backend, e.Label = "memory", "job"
		m.Observe(t.Context(), e)
	}
	exported := map[string]bool{}
	for _, s := range sample.FindAllStringSubmatch(m.scrape(), -1) {
		if strings.HasPrefix(s[1], "lockstep_") {
			exported[s[1]] = true
		}
	}
	module := filepath.Join("..", "..", "adapters", "otel")
	board, err := os.ReadFile(filepath.Join(module, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(board, &parsed); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, p := range parsed.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("the panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			for _, name := range metricName.FindAllString(target.Expr, -1) {
				if shown[name] = true; !exported[name] {
					t.Errorf("the panel %q asks for %s, which is not exported", p.Title, name)
				}
			}
		}
	}
	for name := range exported {
		if strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_count") {
			continue // of a histogram, by its buckets
		}
		if !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
	rules, err := os.ReadFile(filepath.Join(module, "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	names := metricName.FindAllString(string(rules), -1)
	if len(names) == 0 {
		t.Error("the rules name no metric")
	}
	for _, name := range names {
		if !exported[name] {
			t.Errorf("a rule asks for %s, which is not exported", name)
		}
	}
}

// hold is what an Observer hears of one hold.
func hold(ctx context.Context, o locker.Observer) {
	o.Observe(ctx, locker.Event{Kind: locker.EventAcquired, Backend: "memory", Key: "job/1", Label: "job", Waited: time.Microsecond})
	o.Observe(ctx, locker.Event{Kind: locker.EventReleased, Backend: "memory", Key: "job/1", Label: "job", Held: time.Millisecond, Reason: locker.ReasonReleased})
}

// Where nothing is sampled, a hold allocates nothing in the Observer, and neither does a refusal.
func TestOtelAllocations(t *testing.T) {
	m, ctx := newMeter(t, otellock.Options{}), context.Background()
	held := &locker.Error{Code: locker.CodeHeld}
	for name, do := range map[string]func(){
		"a hold": func() { hold(ctx, m) },
		"a refusal": func() {
			m.Observe(ctx, locker.Event{Kind: locker.EventRefused, Backend: "memory", Label: "job", Err: held})
		},
		"a wait": func() {
			m.Observe(ctx, locker.Event{Kind: locker.EventWaiting, Backend: "memory", Label: "job"})
			m.Observe(ctx, locker.Event{Kind: locker.EventGaveUp, Backend: "memory", Label: "job", Err: held})
		},
	} {
		do()
		if n := testing.AllocsPerRun(1000, do); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkOtel(b *testing.B) {
	for name, o := range map[string]otellock.Options{
		"sdk":  {MeterProvider: sdk.NewMeterProvider(sdk.WithReader(sdk.NewManualReader()))},
		"noop": {MeterProvider: noop.NewMeterProvider()},
	} {
		x, err := otellock.New(o)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			// What the processor took for it, which says more than the clock beside other work.
			began := processorTime(b)
			for b.Loop() {
				hold(b.Context(), x)
			}
			b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

func processorTime(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
