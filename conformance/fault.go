package conformance

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// Inject is what a test can break: the way to a store, the store itself, what stands in
// it, its clock, and the processes of its clients. The FLT cases need it. Every field is
// optional; a case that needs a missing one is skipped and names it.
//
// All faults are about one store, which the case may kill. Where other cases use the target's
// store at the same time, make another store for the case when the first of these functions is
// called: then [Target.Inject] costs nothing in the cases that do not ask for it.
type Inject struct {
	// Open opens a client of the store by a way that no fault affects. nil if Target.Peer does that.
	Open func(tb testing.TB) driver.Backend

	// Client opens a client of the store all of whose connections lead through a line of
	// its own.
	Client func(tb testing.TB) (driver.Backend, Line)

	// Pause makes the store hang: its connections stay open, and nothing is answered.
	// Resume ends that, and returns when the store answers.
	Pause, Resume func(tb testing.TB)

	// Silence is how long the store must not answer until every client has given up its connection,
	// and an attempt to make another: the sum of all its timeouts. Calls may end with their ctx
	// while the connection lasts, and no longer do so after it has timed out: to find that, FLT-005
	// hangs the store for longer than this. 0: a client has no timeouts.
	Silence time.Duration

	// Kill ends the store at once, as a crash does. Restart starts it again at the same
	// address, with none of its data, and returns when it answers.
	Kill, Restart func(tb testing.TB)

	// Refuse makes the store refuse to grant, as one does that has become read-only, or full: it
	// answers each attempt at a key that is free with an error, which is to be told as
	// driver.ErrRefused. It may refuse all other changes, too. What stands in it stays, and can be
	// read. Accept ends that. Both have taken effect when they return. ERR-002/refusing, ERR-004/store
	// and SES-001/refused need them.
	Refuse, Accept func(tb testing.TB)

	// RefusesUnseen says that a Ping cannot know of Refuse, because it shows only when something is written, as
	// that a disk is full. Otherwise INS-002 asks that Ping fails then.
	RefusesUnseen bool

	// Disconnect makes the store close the connections of all its clients, which may
	// connect again.
	Disconnect func(tb testing.TB)

	// Delete, Overwrite and Wipe are mistakes of an administrator, of which nobody is told: Delete
	// removes the hold on key, Overwrite puts something that is no hold in its place, and Wipe
	// removes everything that is in the store. What Overwrite put there stays until Delete removes it.
	// Overwrite is atomic: were the key free for a moment, as between a deletion and a write, a
	// waiter would get it. What it puts there may be another thing each time. All have taken effect when they return.
	Delete, Overwrite func(tb testing.TB, key string)
	Wipe              func(tb testing.TB)

	// Skew sets the store's clock ahead of that of its clients (behind, if by is negative).
	// It is called before anything else; by TOK-001/clock again, at any time, while clients are at
	// work. Clock reads the store's clock, to show that it is so.
	Skew  func(tb testing.TB, by time.Duration)
	Clock func(tb testing.TB) time.Time

	// Process starts a process that opens a client of the store and hands it to [Holder]. Most often
	// that is the test binary again, told by an environment variable to do so:
	//
	//	cmd := exec.Command(os.Args[0], "-test.run=^TestHolder$")
	//	cmd.Env = append(os.Environ(), "HOLDER_STORE="+store.Addr)
	//	return conformance.Command(tb, cmd)
	Process func(tb testing.TB) Process
}

// Line is one client's way to the store. Its functions act on connections that are open
// as well as on later ones, and have taken effect when they return. Every field but Heal is
// optional.
type Line struct {
	// Latency makes each way take d.
	Latency func(d time.Duration)
	// BlackHole swallows what goes up, to the store, or what comes down, or both. Neither side is
	// told: connections stay open.
	BlackHole func(up, down bool)
	// LoseReplies lets the next n requests through and loses their replies. What the client sends by
	// itself to keep a connection alive does not count. LoseRequests loses the requests. The client
	// cannot tell the two apart.
	LoseReplies, LoseRequests func(n int)
	// Cut closes all connections. New ones may be made.
	Cut func()
	// Sever closes them for the client alone: what it has sent, and what has not arrived, comes to
	// the store late after it was sent. That is what a kernel does that goes on retransmitting.
	Sever func(late time.Duration)
	// Heal ends all of that.
	Heal func()
}

func needFault(field string, met func(*Inject) bool) Need {
	return Need{
		name: "Target.Inject." + field,
		why:  "the target has no Inject." + field,
		met:  func(t *Target) bool { return t.Inject != nil && met(t.Inject) },
	}
}

var (
	needsLine       = needFault("Client", func(i *Inject) bool { return i.Client != nil })
	needsPause      = needFault("Pause", func(i *Inject) bool { return i.Pause != nil && i.Resume != nil })
	needsKill       = needFault("Kill", func(i *Inject) bool { return i.Kill != nil && i.Restart != nil })
	needsRefuse     = needFault("Refuse", func(i *Inject) bool { return i.Refuse != nil && i.Accept != nil })
	needsDisconnect = needFault("Disconnect", func(i *Inject) bool { return i.Disconnect != nil })
	needsRemove     = needFault("Delete", func(i *Inject) bool { return i.Delete != nil })
	needsOverwrite  = needFault("Overwrite", func(i *Inject) bool { return i.Overwrite != nil && i.Delete != nil })
	needsFlush      = needFault("Wipe", func(i *Inject) bool { return i.Wipe != nil })
	needsSkew       = needFault("Skew", func(i *Inject) bool { return i.Skew != nil && i.Clock != nil })
	needsProcess    = needFault("Process", func(i *Inject) bool { return i.Process != nil })
)

// faultCases keep apart what the core does about a fault (part core: the suite's tap stands
// between it and the backend, on every target) and what happens to connections (part line).
var faultCases = []Case{
	{ID: "FLT-001", Kinds: both, Clause: "lost reply to Acquire: no self-lock-out, no second holder", Parts: []Part{
		{Name: "core", fn: replyLostInCore},
		{Name: "repeat-ttl", Kinds: []Kind{Lease}, fn: repeatLease},
		{Name: "repeat-heard", Needs: []Need{needsDelete}, fn: repeatHeard},
		{Name: "repeat-renewed", Kinds: []Kind{Session}, fn: repeatRenewed},
		{Name: "repeat-late", fn: repeatFirst},
		{Name: "line", Needs: []Need{needsLine}, fn: replyLostOnLine},
	}},
	{ID: "FLT-002", Kinds: both, Clause: "latency far above any internal timeout: still works", Parts: []Part{
		{Name: "core", fn: slowCore},
		{Name: "line", Needs: []Need{needsLine}, fn: slowOnLine},
	}},
	{ID: "FLT-003", Kinds: both, Clause: "partition (black hole): the holder's Done closes before anyone else can hold", Parts: []Part{
		{Name: "line", Needs: []Need{needsLine}, fn: partition},
		{Name: "afar", Kinds: []Kind{Session}, Needs: []Need{needsLine}, fn: func(c *trial) { grantedAfar(c, 0) }},
		{Name: "reconnected", Kinds: []Kind{Session}, Needs: []Need{needsLine}, fn: reconnectedBefore},
		{Name: "stall", Kinds: []Kind{Session}, Needs: []Need{needsPause}, fn: stallsLong},
	}},
	{ID: "FLT-004", Kinds: both, Clause: "server killed and restarted, empty: holders learn, waiters proceed", Needs: []Need{needsKill}, Parts: []Part{
		{Name: "short", fn: func(c *trial) { restartEmpty(c, false) }},
		{Name: "long", fn: func(c *trial) { restartEmpty(c, true) }},
		{Name: "alone", fn: restartAlone},
	}},
	{ID: "FLT-005", Kinds: both, Clause: "server hung: calls end with their ctx", Parts: []Part{
		{Name: "core", fn: hungCore},
		{Name: "store", Needs: []Need{needsPause}, fn: hungStore},
		{Name: "patience", Needs: []Need{needsPause}, fn: hungForLong},
	}},
	{ID: "FLT-006", Kinds: both, Clause: "client clock ±10 s off the server's: no double hold", Needs: []Need{needsLine, needsSkew}, Parts: []Part{
		{Name: "ahead", fn: func(c *trial) { clockOff(c, 10*time.Second) }},
		{Name: "behind", fn: func(c *trial) { clockOff(c, -10*time.Second) }},
	}},
	{ID: "FLT-007", Kinds: both, Clause: "key deleted or overwritten by an administrator: the holder learns", Parts: []Part{
		{Name: "deleted", Needs: []Need{needsRemove}, fn: func(c *trial) { spoiled(c, c.inject().Delete) }},
		{Name: "overwritten", Needs: []Need{needsOverwrite}, fn: func(c *trial) { spoiled(c, c.inject().Overwrite) }},
		{Name: "deleted-unwanted", Needs: []Need{needsRemove}, fn: func(c *trial) { spoiledUnwanted(c, c.inject().Delete) }},
		{Name: "overwritten-unwanted", Needs: []Need{needsOverwrite}, fn: func(c *trial) { spoiledUnwanted(c, c.inject().Overwrite) }},
		{Name: "foreign", Needs: []Need{needsOverwrite}, fn: foreignStays},
		{Name: "wiped", Needs: []Need{needsFlush}, fn: func(c *trial) { spoiled(c, func(tb testing.TB, _ string) { c.inject().Wipe(tb) }) }},
	}},
	{ID: "FLT-008", Kinds: both, Clause: "connection killed: an intact hold survives", Needs: []Need{needsRemove}, Parts: []Part{
		{Name: "line", Needs: []Need{needsLine}, fn: cutOnLine},
		{Name: "patient", Needs: []Need{needsLine, needCapability(driver.PromptLoss)}, fn: releasedMeanwhile},
		{Name: "store", Needs: []Need{needsDisconnect}, fn: cutByStore},
	}},
	{ID: "FLT-009", Kinds: both, Clause: "client process killed: the key frees as declared; one that slept past its deadline is caught by its token", Needs: []Need{needsProcess}, Parts: []Part{
		{Name: "killed", fn: processKilled},
		{Name: "stopped", fn: processStopped},
	}},
}

func (c *trial) inject() *Inject { return c.target.Inject }

// stalls has the store stand still until goOn is called, or the case ends.
func (c *trial) stalls() (goOn func()) {
	return c.breaks(c.inject().Pause, c.inject().Resume, "stands still", "goes on")
}

// refuses has it grant nothing until accept is called, or the case ends.
func (c *trial) refuses() (accept func()) {
	return c.breaks(c.inject().Refuse, c.inject().Accept, "grants nothing any more", "grants again")
}

// dies kills it. restart brings it back, empty, and so does the end of the case.
func (c *trial) dies() (restart func()) {
	return c.breaks(c.inject().Kill, c.inject().Restart, "is killed", "is back, empty")
}

func (c *trial) breaks(begin, end func(testing.TB), broken, whole string) func() {
	begin(c.T)
	c.Hist.Add("   (the store %s)", broken)
	over := sync.OnceFunc(func() {
		end(c.T)
		c.Hist.Add("   (the store %s)", whole)
	})
	c.OnClose(func(context.Context) { over() }) // before the clients are closed
	return over
}

// overwrite is an administrator who puts something that is no hold in the place of one.
func (c *trial) overwrite(key string) {
	c.inject().Overwrite(c.T, key)
	c.Hist.Add("   (an administrator overwrites %s)", c.Short(key))
}

// near opens a client of the store that faults happen to, by a way that is in order. A
// case calls it before it does anything else.
func (c *trial) near() *client {
	if c.inject() == nil || c.inject().Open == nil {
		return c.client()
	}
	b := c.inject().Open(c.T)
	c.injected.Do(func() { c.Caps = b.Capabilities() })
	return c.clientOf(b)
}

// distant opens a client behind a line.
func (c *trial) distant() (*client, Line) {
	b, line := c.inject().Client(c.T)
	cl := c.clientOf(b)
	c.OnClose(func(context.Context) { line.Heal() }) // before the client is closed
	return cl, line
}

func (c *trial) clientOf(b driver.Backend) *client {
	name := c.NextName()
	t, shown := c.Tap(name, b)
	l, err := locker.New(shown, locker.Config{})
	c.OK(err, "locker.New")
	c.OnClose(func(ctx context.Context) { t.All(nil); t.Restore(); _ = l.Close(ctx) })
	return &client{c, name, l, t}
}

// can skips a case for which a line is not enough.
func (c *trial) can(ok bool, field string) {
	if !ok {
		c.Skip("the target's Line has no " + field)
	}
}

// life is how long a hold of the case's kind lasts when nothing is heard of its client:
// the ttl of the lease that a case asks for, or the validity of a session. Some stores
// keep a session for as long as there is a client; life is then only a time.
func (c *trial) life() time.Duration {
	if c.leaf.kind == Lease {
		return c.Life()
	}
	return cmp.Or(c.Caps.SessionValidity, c.Life())
}

// living is the options for a hold that lasts for life.
func (c *trial) living() []locker.Option {
	if c.leaf.kind == Lease {
		return []locker.Option{locker.WithTTL(c.life())}
	}
	return nil
}

// recovery is how late a client may be after an outage: it connects again, and tries again.
func (c *trial) recovery() time.Duration { return 3*c.Unit() + c.Prompt() }

// keep extends a lease from time to time, as whoever wants to keep it would, until it is
// over. A session keeps itself.
func (h *hold) keep() {
	c := h.cl.c
	if h.Session() {
		return
	}
	done := h.Done()
	c.Spawn(func() {
		for !harness.IsClosed(done) && c.Ctx.Err() == nil {
			c.pause(c.life()/3, done)
			if !harness.IsClosed(done) {
				_ = h.extendCtx(c.CtxFor(c.life()/3), c.life()) // in vain, in a partition
			}
		}
	})
}

// free waits for each of keys to be free, and says how long that took at most. One that is
// not free in time is an orphan.
func (c *trial) free(cl *client, within time.Duration, keys ...string) (last time.Duration) {
	began := time.Now()
	for _, key := range keys {
		p := cl.goLock(key, append(c.hold(), c.Polling())...)
		p.grantedBy(c.Claim("CTX-004"), max(0, within-time.Since(began))+c.HandOver(), "everything that used it has ended, so that there is no orphan").mustUnlock()
	}
	return time.Since(began)
}

// overtaken is how long old was still believed in by its holder when next, somebody
// else's, was known to be held; below zero if the belief had ended before. It must not be
// above, but for what this process slept itself.
func (c *trial) overtaken(old *hold, end *harness.Moment, next *hold, p *pulse) time.Duration {
	return c.believed(old, old.cl.name, end, next, p)
}

// believer is what tells how long its holder believes in it: a Lease, or Leases.
type believer interface {
	Err() error
	Deadline() (time.Time, bool)
	Done() <-chan struct{}
}

// believed is overtaken of old, which is name's.
func (c *trial) believed(old believer, name string, end *harness.Moment, next *hold, p *pulse) time.Duration {
	err := old.Err()
	c.Await(end.Seen, c.Limit(), "Done closes when somebody else has the key")
	until := end.At
	if d, ok := old.Deadline(); ok && d.Before(until) {
		until = d // whoever looks knows, though the news may come to the suite a little later
	}
	late := until.Sub(next.at)
	if err != nil {
		late = min(late, 0) // the same
	}
	slept := p.longest()
	c.Must(late <= slept, name+" has stopped believing in its hold when "+next.cl.name+" gets the key", "it believed for %s longer (and nothing in this process was late by more than %s)", late, slept)
	return late
}

// survives makes sure that h goes on through a fault that it ought to bear. A process
// that slept for a good part of its life may have lost it by that: then nothing is proven.
func (h *hold) survives(what string, p *pulse) {
	c := h.cl.c
	err := h.Err()
	if slept := p.longest(); err != nil && slept > c.life()/8 {
		c.Skip(fmt.Sprintf("this machine is too busy: its process slept for %s, and a hold that lasts %s was lost", slept.Round(time.Millisecond), c.life()))
	}
	c.OK(err, "%s: Err", what)
}

// pulse is the longest of some delays: of the timers of this process, which on a busy machine sleeps now
// and then, or of a store's answers (trips).
type pulse struct {
	mu    sync.Mutex
	max   time.Duration
	since time.Time // of a delay that has not ended, if it is not zero
	less  time.Duration
}

func (c *trial) pulse() *pulse {
	p := &pulse{}
	if c.Virtual {
		return p // nothing is ever late
	}
	c.Spawn(func() {
		const beat = time.Millisecond
		for c.Ctx.Err() == nil {
			before := time.Now()
			time.Sleep(beat)
			p.add(time.Since(before) - beat)
		}
	})
	return p
}

// begin is for a delay that counts before it has ended, by as much as it is above less.
func (p *pulse) begin(less time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since, p.less = time.Now(), less
}

func (p *pulse) add(late time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.max, p.since = max(p.max, late), time.Time{}
}

func (p *pulse) longest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		return p.max
	}
	return max(p.max, time.Since(p.since)-p.less)
}

// figures are what a case measures, for the test's log: the greatest of each.
type figures struct {
	mu    sync.Mutex
	names []string
	worst map[string]time.Duration
	n     map[string]int
}

func (c *trial) figures() *figures {
	return &figures{worst: map[string]time.Duration{}, n: map[string]int{}}
}

func (f *figures) add(name string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n[name]++; f.n[name] == 1 {
		f.names = append(f.names, name)
		f.worst[name] = d
	}
	f.worst[name] = max(f.worst[name], d)
}

// What most cases measure, in the same words.
const (
	believed  = "believed after somebody else held"
	noticed   = "holder noticed after"
	proceeded = "waiter proceeded after"
)

func (f *figures) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []string
	for _, name := range f.names {
		d := f.worst[name]
		parts = append(parts, fmt.Sprintf("%s at most %s (%d times)", name, d.Round(10*time.Microsecond), f.n[name]))
	}
	return strings.Join(parts, "; ")
}

// tell writes the figures into the test's log. A case comes so far only without orphans.
func (c *trial) tell(f *figures) {
	if c.Result().Skipped != "" { // by one of its goroutines
		return
	}
	c.Note("%s %s: %s; orphans 0", c.leaf.ID, c.leaf.kind, f)
}
