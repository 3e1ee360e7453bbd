package proof

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// opener opens one more client of a store.
type opener func(context.Context) (driver.Backend, error)

// A world makes stores of one kind, empty ones, as many as are asked for.
type world struct {
	name     string
	newStore func(tb testing.TB) func() opener
}

// A pair is two worlds whose outcomes must agree.
type pair struct {
	name        string // of the variable, for what is printed
	left, right world
}

// result is what came of one run of a program.
type result struct {
	void   bool // the machine was too slow for the outcomes to mean anything
	differ int  // the step whose outcomes differ, from 1; 0 if none do
	lines  []string
}

// text is the run as a failure shows it.
func (r result) text() string { return strings.Join(r.lines, "\n") }

const (
	clients = 3
	// patience is that of await: above shortTTL, with time for a busy machine.
	patience = 5 * shortTTL
	// margin is how far from the end of a short lease its outcomes still mean something.
	margin = shortTTL / 5
	// mostScale is the last at which a machine that is too slow is given more time.
	mostScale = 8
)

// runner runs one program on two stores.
type runner struct {
	scale   time.Duration // by which short times are stretched
	sides   [2]*player
	pending []pending
	result  result
}

// pending is a short lease, or one that may have become short, on either side.
type pending struct {
	from time.Time // before it was asked for
	to   time.Time // after the answer
}

// run runs p, with more and more time for the short leases while the machine is too slow.
func (p program) run(stores [2]func() opener) (r result) {
	for scale := time.Duration(1); scale <= mostScale; scale *= 2 {
		if r = p.runOnce(scale, stores); !r.void {
			return r
		}
	}
	return r
}

func (p program) runOnce(scale time.Duration, stores [2]func() opener) result {
	r := &runner{scale: scale, sides: [2]*player{newPlayer(scale, stores[0]()), newPlayer(scale, stores[1]())}}
	defer r.both(func(pl *player) (string, time.Time) { pl.closeAll(); return "", time.Time{} })
	for i, s := range p {
		if !r.step(i+1, s) {
			break
		}
	}
	return r.result
}

// step runs one step on both sides at once, and says whether to go on.
func (r *runner) step(n int, s step) bool {
	line := fmt.Sprintf("%3d  %s", n, strings.Join(s.fields(), ", "))
	if s.do == doPass {
		r.pass()
		r.result.lines = append(r.result.lines, line)
		return true
	}
	from := time.Now()
	outcomes, needed := r.both(func(pl *player) (string, time.Time) { return pl.play(s) })
	to := time.Now()

	if s.ttl == shortTTL {
		r.pending = append(r.pending, pending{from, to})
	}
	for _, p := range r.pending {
		if needed.After(p.from.Add(r.scale * (shortTTL - margin))) {
			r.result.void = true
			return false
		}
	}
	if s.do == doAwait || s.do == doHandOver {
		r.pass()
	}
	if outcomes[0] == outcomes[1] {
		if outcomes[0] != "" {
			r.result.lines = append(r.result.lines, line+"  →  "+outcomes[0])
		}
		return true
	}
	if (s.do == doAwait || s.do == doHandOver) && r.scale < mostScale && to.Sub(from) >= r.scale*patience*3/4 {
		r.result.void = true // one side's patience may have ended while the machine stood still
		return false
	}
	r.result.differ = n
	r.result.lines = append(r.result.lines, fmt.Sprintf("%s  →  they differ:\n       %s\n       %s", line, outcomes[0], outcomes[1]))
	return false
}

// both runs fn on both sides at once, so that the same time passes on both. needed is the
// later of the instants at which the outcomes were certain.
func (r *runner) both(fn func(*player) (string, time.Time)) (outcomes [2]string, needed time.Time) {
	var wg sync.WaitGroup
	var at [2]time.Time
	for i, pl := range r.sides {
		wg.Add(1)
		go func() {
			defer wg.Done()
			outcomes[i], at[i] = fn(pl)
		}()
	}
	wg.Wait()
	if at[0].After(at[1]) {
		return outcomes, at[0]
	}
	return outcomes, at[1]
}

// pass lets the time of all short leases run out. It must be a sleep: nothing tells when a
// lease is over at the store.
func (r *runner) pass() {
	for _, p := range r.pending {
		time.Sleep(time.Until(p.to.Add(r.scale*shortTTL + margin)))
	}
	r.pending = nil
}

// player is one side of a run: what clients of one store do and see.
type player struct {
	scale   time.Duration
	open    opener
	lockers [clients + 1]*locker.Locker // the last one looks on
	closed  [clients + 1]bool
	holds   map[string]*locker.Lease
	tokens  map[string]uint64 // the last of each key
}

func newPlayer(scale time.Duration, open opener) *player {
	return &player{scale: scale, open: open, holds: map[string]*locker.Lease{}, tokens: map[string]uint64{}}
}

// callLimit bounds what does not end by itself.
const callLimit = 20 * time.Second

func (pl *player) client(i int) (*locker.Locker, error) {
	if pl.lockers[i] != nil {
		return pl.lockers[i], nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	b, err := pl.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("client %d could not be opened: %w", i, err)
	}
	l, err := locker.New(b, locker.Config{})
	if err != nil {
		return nil, fmt.Errorf("locker.New: %w", err)
	}
	pl.lockers[i], pl.closed[i] = l, false
	return l, nil
}

func (pl *player) closeAll() {
	for _, l := range pl.lockers {
		if l != nil {
			ctx, cancel := context.WithTimeout(context.Background(), callLimit)
			_ = l.Close(ctx)
			cancel()
		}
	}
}

// play does s and says what came of it, in words that the other side must find too, and
// when that was certain. Without an outcome the step was left out.
func (pl *player) play(s step) (outcome string, certain time.Time) {
	defer func() {
		if certain.IsZero() {
			certain = time.Now()
		}
	}()
	l, err := pl.client(s.by)
	if err != nil {
		return err.Error(), certain
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	switch s.ctx {
	case "canceled":
		cancel()
	case "nil":
		ctx = nil
	}
	hold := pl.holds[s.of]
	if s.of != "" && hold == nil {
		return "", certain
	}

	switch s.do {
	case doTry:
		return pl.granted(s, s.key)(l.TryLock(ctx, s.key, pl.options(s)...)) + pl.then(s.key), certain
	case doLock:
		quick := locker.WithRetry(locker.Retry{Attempts: 2, Delay: 4 * time.Millisecond, Jitter: locker.NoJitter})
		return pl.granted(s, s.key)(l.Lock(ctx, s.key, pl.options(s, quick)...)) + pl.then(s.key), certain
	case doAwait:
		certain = time.Now()
		return pl.await(ctx, l, s, s.key), certain
	case doHandOver:
		waited := make(chan string, 1)
		go func() { waited <- pl.await(ctx, l, s, hold.Key()) }()
		unlocked := class(hold.Unlock(ctx))
		certain = time.Now()
		return "unlock: " + unlocked + "; lock: " + <-waited, certain
	case doExtend:
		return class(hold.Extend(ctx, pl.time(s.ttl))) + pl.then(hold.Key()), certain
	case doUnlock:
		return class(hold.Unlock(ctx)) + pl.then(hold.Key()), certain
	case doInspect:
		return pl.inspect(ctx, l, s.key), certain
	case doLook:
		return look(hold), certain
	case doClose:
		pl.closed[s.by] = true
		return class(l.Close(ctx)), certain
	case doOpen:
		if !pl.closed[s.by] {
			return "", certain
		}
		pl.lockers[s.by] = nil
		_, err := pl.client(s.by)
		return class(err), certain
	}
	return "", certain
}

// time is a ttl of the program as it is in this run.
func (pl *player) time(ttl time.Duration) time.Duration {
	if ttl == shortTTL {
		return pl.scale * shortTTL
	}
	return ttl
}

func (pl *player) options(s step, more ...locker.Option) []locker.Option {
	if s.ttl != 0 {
		more = append(more, locker.WithTTL(pl.time(s.ttl)))
	}
	return more
}

func (pl *player) await(ctx context.Context, l *locker.Locker, s step, key string) string {
	if ctx != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pl.scale*patience)
		defer cancel()
	}
	return pl.granted(s, key)(l.Lock(ctx, key, pl.options(s, locker.WithRetry(locker.Retry{Attempts: locker.Forever, Delay: 10 * time.Millisecond, Jitter: locker.NoJitter}))...))
}

// granted keeps a new hold under its name.
func (pl *player) granted(s step, key string) func(*locker.Lease, error) string {
	return func(h *locker.Lease, err error) string {
		if err != nil {
			return class(err)
		}
		pl.holds[s.as] = h
		before := pl.tokens[key]
		pl.tokens[key] = h.Token()
		switch {
		case h.Key() != key:
			return fmt.Sprintf("granted for %q", h.Key())
		case h.Session() != (s.ttl == 0):
			return fmt.Sprintf("granted with Session() = %v", h.Session())
		case h.Token() <= before:
			return "granted, with a token that does not rise"
		case h.Token() > driver.MaxToken:
			return "granted, with a token above MaxToken"
		}
		return "granted"
	}
}

// then is what somebody else sees of key after a step that may have changed it: a wrong
// change shows at once, rather than when a later step happens to meet it.
func (pl *player) then(key string) string {
	l, err := pl.client(clients)
	if err != nil {
		return "; " + err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	return "; " + pl.inspect(ctx, l, key)
}

func (pl *player) inspect(ctx context.Context, l *locker.Locker, key string) string {
	info, held, err := l.Inspect(ctx, key)
	switch {
	case err != nil:
		return class(err)
	case !held:
		return "free"
	}
	kind := "a session"
	if !info.Session {
		switch {
		case info.Remaining <= pl.scale*shortTTL:
			kind = "a short lease"
		case info.Remaining <= longTTL:
			kind = "a long lease"
		case info.Remaining <= longerTTL:
			kind = "a longer lease"
		default:
			kind = "an endless lease"
		}
	}
	if info.Token != pl.tokens[key] {
		return "held by " + kind + ", with a token that is not that of the last grant"
	}
	return "held by " + kind
}

// look is what a holder sees of its hold.
func look(h *locker.Lease) string {
	err := h.Err()
	done := false
	select {
	case <-h.Done():
		done = true
	default:
	}
	ctx, cancel := h.Context(context.Background())
	defer cancel()
	switch cause := context.Cause(ctx); {
	case done != (err != nil):
		return fmt.Sprintf("Done is closed: %v, but Err is %s", done, class(err))
	case class(cause) != class(err):
		return fmt.Sprintf("Err is %s, but the cause of its Context is %s", class(err), class(cause))
	}
	return class(err)
}

// class is what of an error must be the same everywhere.
func class(err error) string {
	if err == nil {
		return "ok"
	}
	var e *locker.Error
	if !errors.As(err, &e) {
		return "an error that is no *locker.Error: " + err.Error()
	}
	text := e.Code.String()
	if e.Reason != 0 {
		text += ", " + e.Reason.String()
	}
	for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, end) {
			text += ", " + end.Error()
		}
	}
	return text
}
