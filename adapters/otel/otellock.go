// Package otellock measures the locks of package locker with OpenTelemetry: an Observer for
// locker.Config that counts, times, and traces long waits.
//
// The metrics tell locks apart by their label (locker.WithLabel, or the name of a locker.Family),
// never by their key: there may be millions of those. What is measured, a Grafana dashboard and
// alert rules for Prometheus are in this module's folder.
package otellock

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/lockstep-go/lockstep/adapters/otel/internal/catalogue"
	"github.com/lockstep-go/lockstep/locker"
)

// ScopeName is the name of the instrumentation scope of all metrics and spans.
const ScopeName = "github.com/lockstep-go/lockstep/adapters/otel"

// Defaults, where Options are silent.
const (
	DefaultSlowWait  = time.Second
	DefaultMaxLabels = 200
)

// NoSpans is the Options.SlowWait that makes no spans.
const NoSpans time.Duration = -1

// OtherLabel is the label of all labels beyond Options.MaxLabels.
const OtherLabel = "_other"

// Options are how locks are measured. The zero value works.
type Options struct {
	// MeterProvider and TracerProvider are where metrics and spans go. nil means the global ones.
	MeterProvider  metric.MeterProvider
	TracerProvider trace.TracerProvider
	// Label makes the label of the metrics from the key and the label of a hold, for programs whose
	// calls have no labels. It must return the same for the same arguments, and few different
	// words. nil means the label. It is called for each event.
	Label func(key, label string) string
	// MaxLabels is how many labels have series of their own; a later one counts as OtherLabel. 0
	// means DefaultMaxLabels.
	MaxLabels int
	// SlowWait is how long a wait takes that has a span, "lockstep.wait", a child of the caller's
	// span. 0 means DefaultSlowWait; NoSpans makes none.
	SlowWait time.Duration
	// SpanAttributes are added to the span of a long wait, such as who held the lock. nil for none.
	SpanAttributes func(ctx context.Context, e locker.Event) []attribute.KeyValue
}

// Observer is a locker.Observer. Its methods are safe for concurrent use.
type Observer struct {
	o          Options
	tracer     trace.Tracer
	wait, hold metric.Float64Histogram

	// series is copied when a label comes, so that an Observe of a known one takes no lock and
	// allocates nothing. A sync.Map would allocate its key.
	series atomic.Pointer[map[name]*series]
	adding sync.Mutex

	outages sync.Map // *atomic.Int64 by backend: an outage has no label
}

var _ locker.Observer = (*Observer)(nil)

type name struct{ backend, label string }

// kinds is more than there are Codes and Reasons; later ones count as the last.
const kinds = 32

// series is what one label counts. The counters are numbers that are read when metrics are
// collected: four change in one hold, and an Add of the SDK hashes its attributes and looks them up
// each time. So they begin at 0 for Prometheus, too, which sees no increase in a series that begins
// at 1: the first loss would raise no alarm.
type series struct {
	attrs []attribute.KeyValue
	plain []metric.RecordOption // made once: making it for each measurement would allocate

	acquisitions, waiters, holds               atomic.Int64
	refusals, renewalFailures, releaseFailures [kinds]atomic.Int64 // by Code
	losses                                     [kinds]atomic.Int64 // by Reason
	gaveUp                                     [kinds]atomic.Pointer[[]metric.RecordOption]
}

// New makes an Observer. Several Lockers may share it; what several Observers of one MeterProvider
// count is added up. The errors are those of the MeterProvider,
// and locker.ErrInvalidConfig.
func New(o Options) (*Observer, error) {
	switch {
	case o.MaxLabels < 0:
		return nil, fmt.Errorf("otellock: MaxLabels: %d is below 0: %w", o.MaxLabels, locker.ErrInvalidConfig)
	case o.SlowWait < 0 && o.SlowWait != NoSpans:
		return nil, fmt.Errorf("otellock: SlowWait: %s is below 0; NoSpans makes no spans: %w", o.SlowWait, locker.ErrInvalidConfig)
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.MaxLabels == 0 {
		o.MaxLabels = DefaultMaxLabels
	}
	if o.SlowWait == 0 {
		o.SlowWait = DefaultSlowWait
	}
	x := &Observer{o: o, tracer: o.TracerProvider.Tracer(ScopeName)}
	x.series.Store(&map[name]*series{})
	if err := x.instrument(o.MeterProvider.Meter(ScopeName)); err != nil {
		return nil, fmt.Errorf("otellock: %w", err)
	}
	return x, nil
}

// values takes one value that is collected.
type values func(value int64, attrs ...attribute.KeyValue)

func (x *Observer) instrument(meter metric.Meter) error {
	var errs []error
	histogram := func(m catalogue.Metric) metric.Float64Histogram {
		h, err := meter.Float64Histogram(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.Help),
			metric.WithExplicitBucketBoundaries(m.Buckets...))
		errs = append(errs, err)
		return h
	}
	x.wait, x.hold = histogram(catalogue.Wait), histogram(catalogue.Hold)

	// read has one instrument read when metrics are collected. By RegisterCallback: a callback
	// that is an option of the instrument is ignored for a second Observer of the same provider.
	var instruments []metric.Observable
	var reads []func(metric.Observer)
	read := func(m catalogue.Metric, collect func(is values)) {
		var i metric.Int64Observable
		var err error
		if m.Kind == catalogue.UpDownCounter {
			i, err = meter.Int64ObservableUpDownCounter(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.Help))
		} else {
			i, err = meter.Int64ObservableCounter(m.Name, metric.WithUnit(m.Unit), metric.WithDescription(m.Help))
		}
		errs = append(errs, err)
		instruments = append(instruments, i)
		reads = append(reads, func(o metric.Observer) {
			collect(func(value int64, attrs ...attribute.KeyValue) {
				o.ObserveInt64(i, value, metric.WithAttributeSet(attribute.NewSet(attrs...)))
			})
		})
	}
	// each is read of something that all series have.
	each := func(m catalogue.Metric, of func(s *series, is values)) {
		read(m, func(is values) {
			for _, s := range *x.series.Load() {
				of(s, func(value int64, more ...attribute.KeyValue) { is(value, s.with(more...)...) })
			}
		})
	}
	each(catalogue.Acquisitions, func(s *series, is values) { is(s.acquisitions.Load()) })
	each(catalogue.Waiters, func(s *series, is values) { is(s.waiters.Load()) })
	each(catalogue.Holds, func(s *series, is values) { is(s.holds.Load()) })
	read(catalogue.Outages, func(is values) {
		x.outages.Range(func(backend, n any) bool {
			is(n.(*atomic.Int64).Load(), ofBackend(backend.(string)))
			return true
		})
	})
	each(catalogue.Refusals, func(s *series, is values) { byCode(&s.refusals, is, locker.CodeHeld, locker.CodeUnavailable) })
	each(catalogue.RenewalFailures, func(s *series, is values) { byCode(&s.renewalFailures, is, locker.CodeLost, locker.CodeUnavailable) })
	each(catalogue.ReleaseFailures, func(s *series, is values) { byCode(&s.releaseFailures, is, locker.CodeLost, locker.CodeUnavailable) })
	each(catalogue.Losses, func(s *series, is values) {
		for r := range s.losses {
			n, reason := s.losses[r].Load(), locker.Reason(r)
			if n > 0 || slices.Contains(losses, reason) {
				is(n, attribute.String(catalogue.Reason, reason.String()))
			}
		}
	})
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, read := range reads {
			read(o)
		}
		return nil
	}, instruments...)
	return errors.Join(append(errs, err)...)
}

// losses are the reasons for which a hold ends that nobody unlocked.
var losses = func() (all []locker.Reason) {
	for r := locker.ReasonExpired; !strings.HasPrefix(r.String(), "Reason("); r++ {
		if r != locker.ReasonReleased && r != locker.ReasonClosed && r != locker.ReasonLeft {
			all = append(all, r)
		}
	}
	return all
}()

// byCode says the counts by error.type: those that are not 0, and those that can be expected.
func byCode(counts *[kinds]atomic.Int64, is values, expected ...locker.Code) {
	for c := range counts {
		if n := counts[c].Load(); n > 0 || slices.Contains(expected, locker.Code(c)) {
			is(n, errorType(locker.Code(c)))
		}
	}
}

// Observe implements locker.Observer.
func (x *Observer) Observe(ctx context.Context, e locker.Event) {
	if e.Kind == locker.EventOutage {
		x.outagesOf(e.Backend).Add(1)
	}
	if e.Kind == locker.EventOutage || e.Kind == locker.EventRecovered {
		return
	}
	s := x.of(&e)
	switch e.Kind {
	case locker.EventAcquired:
		s.acquisitions.Add(1)
		s.holds.Add(1)
		if e.Queued {
			s.waiters.Add(-1)
		}
		x.wait.Record(ctx, e.Waited.Seconds(), s.plain...)
		x.trace(ctx, s, &e)
	case locker.EventWaiting:
		s.waiters.Add(1)
	case locker.EventGaveUp:
		code := codeOf(e.Err)
		s.waiters.Add(-1)
		s.refusals[code].Add(1)
		x.wait.Record(ctx, e.Waited.Seconds(), s.failed(code)...)
		x.trace(ctx, s, &e)
	case locker.EventRefused:
		s.refusals[codeOf(e.Err)].Add(1)
		x.trace(ctx, s, &e)
	case locker.EventExtended:
		// The extension of a kept lease that its Unlock overtook has not failed.
		code := locker.Code(codeOf(e.Err))
		if e.Err != nil && code != locker.CodeReleased && code != locker.CodeClosed {
			s.renewalFailures[code].Add(1)
		}
	case locker.EventReleased:
		s.holds.Add(-1)
		x.hold.Record(ctx, e.Held.Seconds(), s.plain...)
		if e.Err != nil {
			s.releaseFailures[codeOf(e.Err)].Add(1)
		}
	case locker.EventLost:
		s.holds.Add(-1)
		x.hold.Record(ctx, e.Held.Seconds(), s.plain...)
		s.losses[min(int(e.Reason), kinds-1)].Add(1)
	}
}

// of is the series of an event.
func (x *Observer) of(e *locker.Event) *series {
	n := name{e.Backend, e.Label}
	if x.o.Label != nil {
		n.label = x.o.Label(e.Key, e.Label)
	}
	if s := (*x.series.Load())[n]; s != nil {
		return s
	}
	return x.add(n)
}

func (x *Observer) add(n name) *series {
	x.adding.Lock()
	defer x.adding.Unlock()
	all := *x.series.Load()
	if s := all[n]; s != nil {
		return s
	}
	// A label that came too late stays so: the map never shrinks. So the +1 and the -1 of an
	// up-down counter meet in one series.
	if len(all) >= x.o.MaxLabels && n.label != OtherLabel {
		other := name{n.backend, OtherLabel}
		if s := all[other]; s != nil {
			return s
		}
		n = other
	}
	x.outagesOf(n.backend) // so that it begins at 0, too
	s := newSeries(n)
	next := maps.Clone(all)
	next[n] = s
	x.series.Store(&next)
	return s
}

func (x *Observer) outagesOf(backend string) *atomic.Int64 {
	n, _ := x.outages.LoadOrStore(backend, new(atomic.Int64))
	return n.(*atomic.Int64)
}

func ofBackend(backend string) attribute.KeyValue {
	return attribute.String(catalogue.Backend, strings.ToValidUTF8(backend, "?"))
}

func newSeries(n name) *series {
	s := &series{attrs: []attribute.KeyValue{ofBackend(n.backend)}}
	if n.label != "" {
		// Attributes are UTF-8; a label may hold any bytes.
		s.attrs = append(s.attrs, attribute.String(catalogue.Label, strings.ToValidUTF8(n.label, "?")))
	}
	s.plain = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(s.attrs...))}
	return s
}

// with is the attributes of s, and more.
func (s *series) with(more ...attribute.KeyValue) []attribute.KeyValue {
	return append(s.attrs[:len(s.attrs):len(s.attrs)], more...)
}

// failed are the options of a wait that ended with an error.
func (s *series) failed(code int) []metric.RecordOption {
	if o := s.gaveUp[code].Load(); o != nil {
		return *o
	}
	set := attribute.NewSet(s.with(errorType(locker.Code(code)))...)
	o := []metric.RecordOption{metric.WithAttributeSet(set)}
	s.gaveUp[code].Store(&o)
	return o
}

// codeOf is the Code of an Event's Err, or 0.
func codeOf(err error) int {
	if e, ok := err.(*locker.Error); ok { // errors.As would allocate
		return min(int(e.Code), kinds-1)
	}
	return 0
}

// errorType is a Code in the words of error.type: invalid_key for CodeInvalidKey.
func errorType(c locker.Code) attribute.KeyValue {
	if c == 0 || c == kinds-1 {
		return attribute.String(catalogue.ErrorType, "_OTHER") // the conventions' word for the unknown
	}
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return attribute.String(catalogue.ErrorType, strings.ToLower(b.String()))
}

// trace makes the span of a wait that was long. It is made when the wait is over: most waits are
// short, and a span for each would cost more than the wait.
func (x *Observer) trace(ctx context.Context, s *series, e *locker.Event) {
	if x.o.SlowWait < 0 || e.Waited < x.o.SlowWait {
		return
	}
	end := time.Now()
	attrs := s.with(
		attribute.String("lockstep.outcome", outcomes[e.Kind]), attribute.Bool("lockstep.queued", e.Queued || e.Kind == locker.EventGaveUp))
	if e.Token != 0 {
		attrs = append(attrs, attribute.Int64("lockstep.token", int64(e.Token)))
	}
	if x.o.SpanAttributes != nil {
		attrs = append(attrs, x.o.SpanAttributes(ctx, *e)...)
	}
	_, span := x.tracer.Start(ctx, "lockstep.wait", trace.WithTimestamp(end.Add(-e.Waited)), trace.WithAttributes(attrs...))
	if e.Err != nil {
		code := errorType(locker.Code(codeOf(e.Err))) // the error's text holds the key
		span.SetAttributes(code)
		span.SetStatus(codes.Error, code.Value.AsString())
	}
	span.End(trace.WithTimestamp(end))
}

var outcomes = map[locker.EventKind]string{
	locker.EventAcquired: "acquired", locker.EventGaveUp: "gave_up", locker.EventRefused: "refused",
}
