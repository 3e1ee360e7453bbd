package redis

import (
	"context"
	"errors"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// A call ends with its ctx (CTX-001, FLT-005), and rueidis alone does not see to that. It looks at the
// ctx of a command that has been written; before that, it dials in the goroutine of whoever comes first,
// with that caller's ctx, while the others wait for it whatever their own ctx says; and it waits for one
// of the 1,024 places of a connection's ring as deafly.
//
// So commands go one of two ways. Where nothing speaks against the connection, up to maxDirect of them
// go straight to rueidis, in the caller's goroutine: there are places in the ring, and nothing is dialled,
// because the dialler refuses to (conn.go). All others are queued. A few workers take them from there and
// wait in the caller's stead, who leaves with its ctx: from the queue without a trace, and afterwards with
// an unknown outcome. A goroutine for each command would do as well, and is too dear for a pair of lock and
// unlock on loopback. The queue is the runtime's, of those who send on a channel: with a list and a mutex,
// thousands of callers that leave at about the same time waited up to 0.4 s for the mutex.
//
// Trust is lost with the first command that is not answered, and with each dial; it comes back with the
// first answer to a worker's command. Commands that rueidis is still waiting for after their callers have
// left are therefore at most maxDirect, one for each worker, and those of maxExtra that were in flight.
//
// Invariants:
//   - A caller never dials. A dial begins when no direct command is in flight any more that began in
//     trust, because such a one may be waiting for it (drained); but for one to a Sentinel, and for a
//     client of a List's own (ofOne), for which no command of another caller waits.
//   - No error of one caller's ctx reaches another: dials have a ctx of their own.
//   - What was not sent is refused (driver.ErrRefused) and not unknown.
const (
	// maxDirect is how many commands may be with rueidis in their callers' goroutines. After a
	// hang, each leaves one goroutine until the connection's timeout.
	maxDirect = 16
	// maxExtra is how many more there may be, as long as so many are answered: each that is makes
	// room for one, and takes one away when there are fewer. With 16 alone, 64 callers use a tenth
	// more processor time; with 64 from the beginning, calls that come after the server has begun to
	// hang would fill them.
	maxExtra = 48
	// maxWorkers is how many wait for rueidis on behalf of callers, and maxBatch how many
	// commands one of them sends at once, where the connection is trusted.
	maxWorkers = 4
	maxBatch   = 64
	// clusterLanes is into how many parts the slots of a Cluster are divided, so that a node
	// that hangs holds up the workers of its own slots alone. The nodes' shares are contiguous.
	clusterLanes = 16
	slots        = 1 << 14
	// maxUnanswered is how many answers a connection may owe, beyond which it is not trusted.
	maxUnanswered = 512
)

// seam stands between the backend and rueidis.
type seam struct {
	life     context.Context // ends when Close begins
	inFlight atomic.Int64    // direct commands, and those of workers
	spread   bool            // over the lanes: the server is a Cluster
	lanes    [clusterLanes]lane
	node     lane // for commands to a certain node
	working  sync.WaitGroup
	connections
}

// lane is the queue of commands that have to wait for the same connection.
type lane struct {
	trust   trust
	direct  atomic.Int64
	extra   atomic.Int64 // see maxExtra
	workers atomic.Int64
	queue   atomic.Pointer[chan *call] // unbuffered: those who wait are the runtime's queue
}

// calls is the queue, made when it is first needed.
func (l *lane) calls() chan *call {
	if q := l.queue.Load(); q != nil {
		return *q
	}
	q := make(chan *call)
	l.queue.CompareAndSwap(nil, &q)
	return *l.queue.Load()
}

// trust is whether a connection is trusted: an even number. Each loss makes it another odd one.
type trust struct{ n atomic.Uint64 }

func (t *trust) ok() bool { return t.n.Load()&1 == 0 }

func (t *trust) lose() {
	for {
		n := t.n.Load()
		if t.n.CompareAndSwap(n, n+1+n&1) {
			return
		}
	}
}

// regain makes it trusted, unless trust was lost again since it was as in seen.
func (t *trust) regain(seen uint64) {
	if seen&1 == 1 {
		t.n.CompareAndSwap(seen, seen+1)
	}
}

// seamClient is a client whose commands pass the seam.
type seamClient struct {
	rueidis.Client
	seam *seam
	node bool // the client of one node
}

// Do implements rueidis.Client. It returns when ctx ends.
func (c seamClient) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	l := &c.seam.node
	if !c.node {
		l = c.seam.lane(cmd)
		if r, sent := c.seam.try(ctx, l, c.Client, cmd); sent {
			return r
		}
	}
	return c.seam.wait(l, &call{ctx: ctx, client: c.Client, cmd: cmd})[0]
}

// DoMulti implements rueidis.Client. It is not for the hot path.
func (c seamClient) DoMulti(ctx context.Context, cmds ...rueidis.Completed) []rueidis.RedisResult {
	if len(cmds) == 0 {
		return nil
	}
	return c.seam.wait(c.laneOfAll(cmds), &call{ctx: ctx, client: c.Client, multi: cmds})
}

// laneOfAll is the lane of commands that are all of one, so that only masters of that lane hold them up.
func (c seamClient) laneOfAll(cmds []rueidis.Completed) *lane {
	l := &c.seam.node
	if !c.node && c.seam.spread {
		l = c.seam.lane(cmds[0])
		for _, cmd := range cmds {
			if c.seam.lane(cmd) != l {
				return &c.seam.node
			}
		}
	}
	return l
}

// Nodes implements rueidis.Client.
func (c seamClient) Nodes() map[string]rueidis.Client {
	nodes := c.Client.Nodes()
	for addr, n := range nodes {
		nodes[addr] = seamClient{n, c.seam, true}
	}
	return nodes
}

func (s *seam) lane(cmd rueidis.Completed) *lane {
	if !s.spread {
		return &s.lanes[0]
	}
	return &s.lanes[laneOf(cmd.Slot()&(slots-1))]
}

func laneOf(slot uint16) int { return int(slot) * clusterLanes / slots }

// try sends cmd, where it will come back when ctx ends.
func (s *seam) try(ctx context.Context, l *lane, client rueidis.Client, cmd rueidis.Completed) (_ rueidis.RedisResult, sent bool) {
	s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	n := l.direct.Add(1) // before looking, because a dialler loses trust before it counts
	defer l.direct.Add(-1)
	extra := l.extra.Load()
	if n > maxDirect+extra || !l.trust.ok() {
		return rueidis.RedisResult{}, false
	}
	if ctx.Done() == nil {
		ctx = s.life // it ends with Close; and rueidis's own dials are known by context.Background()
	}
	r := client.Do(ctx, cmd)
	err := r.NonRedisError()
	if err == nil {
		switch {
		case n == maxDirect+extra && extra < maxExtra:
			l.extra.CompareAndSwap(extra, extra+1)
		case extra > 0 && n < (maxDirect+extra)/2:
			l.extra.CompareAndSwap(extra, extra-1)
		}
		return r, true
	}
	l.trust.lose()
	l.extra.Store(0)
	if errors.Is(err, errNotNow) {
		return r, false
	}
	return rueidis.NewErrorResult(ownError(ctx, err)), true
}

// call is a command, or some, that wait for a worker.
type call struct {
	ctx    context.Context
	client rueidis.Client
	cmd    rueidis.Completed
	multi  []rueidis.Completed // instead of cmd

	done chan []rueidis.RedisResult
}

func (c *call) fail(err error) []rueidis.RedisResult {
	r := make([]rueidis.RedisResult, max(1, len(c.multi)))
	for i := range r {
		r[i] = rueidis.NewErrorResult(err)
	}
	return r
}

// wait has c carried out by a worker.
func (s *seam) wait(l *lane, c *call) []rueidis.RedisResult {
	c.done = make(chan []rueidis.RedisResult, 1)
	queue := l.calls()
	select {
	case queue <- c:
	default:
		s.hire(l)
		select {
		case queue <- c:
		case <-c.ctx.Done():
			return c.fail(&unsentError{s.why(), c.ctx.Err()})
		case <-s.life.Done():
			return c.fail(driver.ErrClosed)
		}
	}
	select {
	case r := <-c.done:
		return r
	case <-c.ctx.Done():
		l.trust.lose()
		return c.fail(c.ctx.Err())
	case <-s.life.Done():
		return c.fail(driver.ErrClosed)
	}
}

// hire starts one more worker, if there may be. It stays until Close.
func (s *seam) hire(l *lane) {
	if l.workers.Load() >= maxWorkers {
		return
	}
	s.mu.Lock() // closeAll waits for those that have been hired before life ended
	defer s.mu.Unlock()
	if s.life.Err() == nil && l.workers.Load() < maxWorkers {
		l.workers.Add(1)
		s.working.Add(1)
		go s.work(l)
	}
}

// work carries out what is queued until Close.
func (s *seam) work(l *lane) {
	defer s.working.Done()
	pprof.SetGoroutineLabels(context.Background()) // it outlives the caller whose labels it was born with
	queue := l.calls()
	var batch []*call
	var next *call // does not go with the others
	for {
		c := next
		next = nil
		if c == nil {
			select {
			case c = <-queue:
			case <-s.life.Done():
				return
			}
		}
		trusted := l.trust.n.Load()
		batch = append(batch[:0], c)
		for more := trusted&1 == 0 && c.multi == nil; more && len(batch) < maxBatch; {
			select {
			case c := <-queue:
				if c.multi != nil || c.client != batch[0].client {
					next, more = c, false
				} else {
					batch = append(batch, c)
				}
			default:
				more = false
			}
		}
		s.carryOut(l, trusted, batch)
		clear(batch)
	}
}

func (s *seam) carryOut(l *lane, trusted uint64, batch []*call) {
	s.inFlight.Add(int64(len(batch)))
	defer s.inFlight.Add(-int64(len(batch)))
	first := batch[0]
	cmds := first.multi
	if cmds == nil {
		cmds = make([]rueidis.Completed, len(batch))
		for i, c := range batch {
			cmds[i] = c.cmd
		}
	}
	ctx := workerContext{s.life, s.life}
	if len(batch) == 1 {
		ctx.caller = first.ctx
	}
	var replies []rueidis.RedisResult
	for range 2 * maxRefusals {
		if len(cmds) == 1 {
			replies = []rueidis.RedisResult{first.client.Do(ctx, cmds[0])}
		} else {
			replies = first.client.DoMulti(ctx, cmds...)
		}
		// With several nodes some may have been sent: those are not sent again.
		if !allNotNow(replies) {
			break
		}
		trusted = l.trust.n.Load()
	}
	answered := true
	for i := range replies {
		if err := replies[i].NonRedisError(); err != nil {
			answered = false
			replies[i] = rueidis.NewErrorResult(ownError(ctx.caller, err))
		}
	}
	if answered && s.quiet() {
		l.trust.regain(trusted)
	}
	if first.multi != nil {
		first.done <- replies
		return
	}
	for i, c := range batch {
		c.done <- replies[i : i+1]
	}
}

func allNotNow(replies []rueidis.RedisResult) bool {
	for _, r := range replies {
		if !errors.Is(r.NonRedisError(), errNotNow) {
			return false
		}
	}
	return true
}

// workerContext is what a worker gives to rueidis: its end is not seen while a connection is dialled or
// an answer awaited, but what has not been sent when the caller leaves is not sent any more.
type workerContext struct {
	context.Context // the seam's life, for its values
	caller          context.Context
}

func (workerContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (workerContext) Done() <-chan struct{}       { return nil }
func (c workerContext) Err() error                { return c.caller.Err() }

func (c workerContext) Value(key any) any {
	if key == (mayDial{}) {
		return true
	}
	return c.Context.Value(key)
}

// mayDial is the key of a value of each ctx with which a connection may be dialled.
type mayDial struct{}

// unsentError is the end of a call that was queued until its ctx ended. It is a refusal in the sense
// that counts: nothing was done, and nothing will be.
type unsentError struct {
	why string
	end error // the caller's
}

func (e *unsentError) Error() string   { return "not sent: " + e.why + ": " + e.end.Error() }
func (e *unsentError) Unwrap() []error { return []error{driver.ErrRefused, e.end} }

// ownError is err without what is not the caller's own: a deadline of rueidis's or of the dialler's must
// not look as if the caller's ctx had ended.
func ownError(ctx context.Context, err error) error {
	if own := ctx.Err(); own != nil && errors.Is(err, own) {
		return err
	}
	return withoutEnd(err)
}

func withoutEnd(err error) error {
	switch {
	case err == context.DeadlineExceeded:
		return errors.New("the server did not answer in time") // a handshake
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return errors.New(err.Error())
	}
	return err
}
