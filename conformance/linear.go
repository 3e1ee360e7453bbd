package conformance

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// linearizable lets several clients do at random what clients do, and asks porcupine
// whether the outcomes can be put into one order, in which each operation takes effect
// at one instant between its call and its return, and which a sequential lock would have
// produced (Herlihy and Wing, "Linearizability", TOPLAS 1990; Athalye, "Testing
// distributed systems for linearizability", 2017).
//
// What is not known forks: an attempt whose reply was lost may have happened or not, and
// a lease that nobody unlocked ends at some instant from its local deadline on.
func linearizable(c *trial) {
	const clients, workers = 3, 9
	rounds := c.Rounds(30, 12)
	log := &linearLog{c: c}
	all := make([]*client, clients)
	for i := range all {
		all[i] = c.client()
	}
	keys := []string{c.Key("x"), c.Key("y")}
	rngs := make([]*rand.Rand, workers)
	for i := range rngs {
		rngs[i] = c.Rand()
	}
	c.Together(workers, func(i int) {
		w := &linearWorker{c: c, log: log, cl: all[i%clients], id: i, r: rngs[i], faulty: i%clients == 0}
		for range rounds {
			if c.Ctx.Err() != nil {
				return
			}
			w.round(keys[w.r.IntN(len(keys))])
		}
	})
	log.check()
}

// linearWorker is one caller of one client. The first client's backend loses requests
// and replies.
type linearWorker struct {
	c      *trial
	log    *linearLog
	cl     *client
	id     int
	r      *rand.Rand
	faulty bool
}

func (w *linearWorker) round(key string) {
	w.disturb()
	if w.c.target.Delete != nil && w.r.IntN(12) == 0 {
		op := w.log.begin(w.id, linearOp{kind: linearDelete, key: key})
		w.c.target.Delete(w.c.T, key)
		w.log.end(op, linearDone, 0)
		return
	}
	if t := w.take(key); t != nil {
		w.use(t)
	}
}

// disturb makes one of the next calls fail, now and then.
func (w *linearWorker) disturb() {
	r := w.r
	if w.faulty && r.IntN(15) == 0 {
		f := harness.Lose
		if r.IntN(2) == 0 {
			f = harness.Refuse
		}
		w.cl.tap.Next([]string{harness.OpAcquire, harness.OpExtend, harness.OpRelease}[r.IntN(3)], f)
	}
}

// taken is a hold that a worker got.
type taken struct {
	*hold
	id      int
	granted int64
	lapses  bool // it is short, and may be left to expire
}

// take asks for key, and returns nil if it does not get it.
func (w *linearWorker) take(key string) *taken {
	c, r := w.c, w.r
	var opts []locker.Option
	lapses := false
	if c.leaf.kind == Lease {
		ttl := far
		if lapses = r.IntN(3) == 0; lapses {
			ttl = c.Unit()
		}
		opts = append(opts, locker.WithTTL(ttl))
	}
	opts = append(opts, c.Polling())

	id := w.log.hold()
	op := w.log.begin(w.id, linearOp{kind: linearTake, key: key, hold: id})
	var h *hold
	var err error
	doubts, waits := w.cl.tap.Doubted(), r.IntN(2) == 0
	if waits {
		ctx, cancel := context.WithTimeout(c.Ctx, c.Unit()+time.Duration(r.Int64N(int64(2*c.Unit()))))
		h, err = w.cl.lock(ctx, key, opts...)
		cancel()
	} else {
		h, err = w.cl.try(key, opts...)
	}
	doubtful := w.cl.tap.Doubted() != doubts
	switch {
	case err != nil && (doubtful || errors.Is(err, locker.ErrLost)):
		// It may have been granted at the store for a while. (Or another worker's of this
		// client was; to take that for doubt makes the check weaker, never wrong.) ErrLost
		// says that it was, and that the answer came too late.
		w.log.pending(op)
		w.log.ends(w.id, key, id, op.call)
		return nil
	case err != nil && !waits && errors.Is(err, locker.ErrHeld):
		w.log.end(op, linearHeld, 0)
		return nil
	case err != nil:
		return nil // a waiter's patience ended; that says nothing of any one instant
	}
	w.log.end(op, linearGranted, h.Token())
	if doubtful {
		w.log.phantom(op)
	}
	return &taken{h, id, op.ret, lapses}
}

// use extends a hold, maybe, and ends it in one way or another.
func (w *linearWorker) use(t *taken) {
	c, r := w.c, w.r
	h, id, key, lapses, granted := t.hold, t.id, t.Key(), t.lapses, t.granted
	if d := r.Int64N(int64(c.Unit())); r.IntN(2) == 0 {
		c.Sleep(time.Duration(d / 4))
	}
	if c.leaf.kind == Lease && r.IntN(3) == 0 {
		ttl := far
		if lapses = r.IntN(2) == 0; lapses {
			ttl = c.Unit()
		}
		op := w.log.begin(w.id, linearOp{kind: linearExtend, key: key, hold: id})
		switch err := h.extend(ttl); { // an error says nothing of the store: the local deadline may have been first
		case err == nil:
			w.log.end(op, linearDone, 0)
		case !errors.Is(err, locker.ErrUnavailable), errors.Is(err, driver.ErrRefused):
			lapses = false // nothing has changed: the end may be far
		}
	}
	if lapses && r.IntN(2) == 0 {
		select {
		case <-h.Done():
		case <-c.Ctx.Done():
			return
		}
		w.log.lapses(w.id, key, id, h, granted)
		return
	}
	op := w.log.begin(w.id, linearOp{kind: linearUnlock, key: key, hold: id})
	switch err := h.unlock(); {
	case err == nil:
		w.log.end(op, linearDone, 0)
	case errors.Is(err, locker.ErrUnavailable):
		w.log.ends(w.id, key, id, op.call) // soon, in the background
	default:
		w.log.lapses(w.id, key, id, h, granted)
	}
}

// --- the history --------------------------------------------------------------------

type linearKind uint8

const (
	linearTake linearKind = iota
	linearExtend
	linearUnlock
	linearEnd // a hold ends without its holder's doing, or the backend's clean-up of it
	linearDelete
)

type linearOutcome uint8

const (
	linearUnknown linearOutcome = iota
	linearGranted
	linearHeld
	linearDone
)

type linearOp struct {
	kind linearKind
	key  string
	hold int // which hold it is about
}

type linearResult struct {
	outcome linearOutcome
	token   uint64
}

// recorded is one operation with the instants between which it took effect.
type recorded struct {
	worker    int
	in        linearOp
	out       linearResult
	call, ret int64
}

// linearLog is the history of all workers.
type linearLog struct {
	c     *trial
	mu    sync.Mutex
	ops   []*recorded
	holds int
	seq   int64
}

// stamp is an instant: nanoseconds, and below them a number that tells events apart that
// happen at the same nanosecond, as most do in virtual time.
func (l *linearLog) stamp() int64 {
	l.seq++
	return int64(time.Since(l.c.Hist.Start))<<seqBits | l.seq&(1<<seqBits-1)
}

const seqBits = 20 // a million events; the rest counts nanoseconds for two hours

func (l *linearLog) hold() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holds++
	return l.holds
}

func (l *linearLog) begin(worker int, op linearOp) *recorded {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &recorded{worker: worker, in: op, call: l.stamp()}
}

func (l *linearLog) end(op *recorded, o linearOutcome, token uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	op.out, op.ret = linearResult{o, token}, l.stamp()
	l.ops = append(l.ops, op)
}

// pending: nobody knows whether or when op took effect.
func (l *linearLog) pending(op *recorded) {
	l.mu.Lock()
	defer l.mu.Unlock()
	op.ret = math.MaxInt64
	l.ops = append(l.ops, op)
}

// phantom: op was granted, but not by its first attempt, and an earlier one may have been
// granted too, and have ended at the store before the one that was heard of.
func (l *linearLog) phantom(op *recorded) {
	id := l.hold()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, kind := range []linearKind{linearTake, linearEnd} {
		l.ops = append(l.ops, &recorded{worker: op.worker, in: linearOp{kind: kind, key: op.in.key, hold: id}, call: op.call, ret: op.ret})
	}
}

// ends: hold is over at some instant from call on, if it ever was.
func (l *linearLog) ends(worker int, key string, hold int, call int64) {
	l.pending(&recorded{worker: worker, in: linearOp{kind: linearEnd, key: key, hold: hold}, call: call})
}

// lapses: h was not unlocked. A lease may end from its local deadline on, and no earlier;
// that of a session, or of a hold that was deleted, at any time.
func (l *linearLog) lapses(worker int, key string, hold int, h *hold, granted int64) {
	call := granted
	if deadline, ok := h.Deadline(); ok {
		call = int64(deadline.Sub(l.c.Hist.Start)) << seqBits
	}
	l.ends(worker, key, hold, call)
}

// --- the model ----------------------------------------------------------------------

// lockState is a sequential lock: who holds it, and the greatest token known to have
// been handed out.
type lockState struct {
	holder int // 0: free
	token  uint64
}

var lockModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{lockState{}} },
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		var keys []string
		for _, op := range history {
			k := op.Input.(linearOp).key
			if byKey[k] == nil {
				keys = append(keys, k)
			}
			byKey[k] = append(byKey[k], op)
		}
		var parts [][]porcupine.Operation
		for _, k := range keys {
			parts = append(parts, byKey[k])
		}
		return parts
	},
	Step: func(state, input, output any) []any {
		s, in, out := state.(lockState), input.(linearOp), output.(linearResult)
		free := s
		free.holder = 0
		switch in.kind {
		case linearTake:
			taken := s
			taken.holder = in.hold
			switch {
			case out.outcome == linearHeld && s.holder != 0:
				return []any{s}
			case out.outcome == linearGranted && s.holder == 0 && out.token > s.token:
				taken.token = out.token
				return []any{taken}
			case out.outcome == linearUnknown && s.holder == 0:
				return []any{s, taken}
			case out.outcome == linearUnknown:
				return []any{s}
			}
			return nil
		case linearExtend:
			if s.holder == in.hold {
				return []any{s}
			}
			return nil
		case linearUnlock:
			if s.holder == in.hold {
				return []any{free}
			}
			return nil
		case linearEnd:
			if s.holder == in.hold {
				return []any{free}
			}
			return []any{s}
		case linearDelete:
			return []any{free}
		}
		return nil
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(linearOp), output.(linearResult)
		verb := [...]string{"take", "extend", "unlock", "end of", "delete"}[in.kind]
		outcome := [...]string{"?", "granted", "held by others", "done"}[out.outcome]
		if out.token != 0 {
			outcome += fmt.Sprint(", token ", out.token)
		}
		if in.kind == linearDelete {
			return "delete → " + outcome
		}
		return fmt.Sprintf("%s #%d → %s", verb, in.hold, outcome)
	},
	DescribeState: func(state any) string {
		s := state.(lockState)
		if s.holder == 0 {
			return fmt.Sprintf("free, last token %d", s.token)
		}
		return fmt.Sprintf("held by #%d, last token %d", s.holder, s.token)
	},
}

func (l *linearLog) check() {
	c := l.c
	l.bound()
	history := make([]porcupine.Operation, len(l.ops))
	for i, op := range l.ops {
		history[i] = porcupine.Operation{ClientId: op.worker, Input: op.in, Output: op.out, Call: op.call, Return: op.ret}
	}
	model := lockModel.ToModel()
	result, info := porcupine.CheckOperationsVerbose(model, history, linearTimeout(c))
	granted := slices.ContainsFunc(l.ops, func(op *recorded) bool { return op.out.outcome == linearGranted })
	c.Must(granted, "somebody gets a lock", "nobody does, which makes these %d operations prove nothing", len(history))
	switch result {
	case porcupine.Ok:
		return
	case porcupine.Unknown:
		c.Skip(fmt.Sprintf("the checker did not finish in %s; this history of %d operations proves nothing", linearTimeout(c), len(history)))
	}
	path := filepath.Join(artifactDir(c), regexp.MustCompile(`[^A-Za-z0-9.-]+`).ReplaceAllString(c.T.Name(), "_")+".html")
	picture := "its picture is " + path
	if err := porcupine.VisualizePath(model, info, path); err != nil {
		picture = fmt.Sprintf("its picture could not be written: %v", err)
	}
	c.Fatal("the outcomes are those of one lock, in some order", "no order of these %d operations explains them; %s", len(history), picture)
}

// bound says of an end with no return when it must have come: before the next grant of
// the key. Without it each of them would double the number of orders to be tried.
func (l *linearLog) bound() {
	granted := map[string][]*recorded{}
	tokens := map[int]uint64{}
	for _, op := range l.ops {
		if op.out.outcome == linearGranted {
			granted[op.in.key] = append(granted[op.in.key], op)
			tokens[op.in.hold] = op.out.token
		}
	}
	for _, all := range granted {
		slices.SortFunc(all, func(a, b *recorded) int { return cmp.Compare(a.out.token, b.out.token) })
	}
	for _, op := range l.ops {
		token, known := tokens[op.in.hold]
		if op.in.kind != linearEnd || !known {
			continue
		}
		for _, next := range granted[op.in.key] {
			if next.out.token > token && next.ret > op.call {
				op.ret = next.ret
				break
			}
		}
	}
}

func linearTimeout(c *trial) time.Duration {
	if c.Virtual {
		return 0 // for ever, as the bubble's clock stands still meanwhile
	}
	return 20 * time.Second
}

// artifactDir is where a failure leaves what does not fit into text: the directory that go
// test -artifacts gives, else one that outlives the test.
func artifactDir(c *trial) string {
	if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
		if t, ok := any(c.T).(interface{ ArtifactDir() string }); ok { // from Go 1.26 on
			return t.ArtifactDir()
		}
	}
	dir, err := os.MkdirTemp("", "lockstep-conformance-")
	if err != nil {
		return os.TempDir()
	}
	return dir
}
