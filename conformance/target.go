package conformance

import (
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Target is what one trial of one case runs against: a backend, and what the test can
// do to its store. Run asks for a new one each time.
//
// The suite closes every backend that it gets, once. What else the target needs
// to have cleared away belongs into t.Cleanup, which runs after that.
type Target struct {
	// Backend is the first client of the store. Required.
	Backend driver.Backend

	// Peer opens one more client of the same store, as another process would. Required;
	// called several times.
	Peer func(tb testing.TB) driver.Backend

	// Advance moves the clock of the store forward, for a store whose clock does not run
	// by itself. The suite then calls it all the time, in small steps, and in step with
	// its own clock. nil for a store whose clock runs.
	Advance func(d time.Duration)

	// Delete removes the hold on key from the store behind everybody's back, as an
	// administrator would; it need not exist. nil if nobody can. LOSS-003 needs it.
	Delete func(tb testing.TB, key string)

	// Crash ends a client as the death of its process would: its connections are gone,
	// it releases nothing and says nothing. What it held stays in the store as it is, until
	// its time is over, and nobody renews it. Its methods may go on to be called, and
	// return errors; Close is called once more. Where Close releases nothing, as it need not,
	// Crash is Close. TTL-004 needs it.
	Crash func(tb testing.TB, b driver.Backend)

	// Restart stops the store and starts it again with its data. Returns when it answers.
	// TOK-005/restart needs it.
	Restart func(tb testing.TB)

	// Wipe makes the store lose all its data, as a restart without a disk would. Only
	// for a store that nobody else uses. TOK-005/wipe needs it.
	Wipe func(tb testing.TB)

	// Keys lists what is in the store at this moment, in the names that the store itself
	// uses. It may include what is not of this target. nil if it cannot be seen. CLO-004
	// then cannot see a leaked key, and KEY-003 can only guess at internal names.
	Keys func(tb testing.TB) []StoreKey

	// Connections is how many connections this target's clients have to the store at
	// this moment. nil where there are none. CLO-004 then cannot see a leaked one.
	Connections func(tb testing.TB) int

	// Inject is the faults that the test can bring about. nil where it can bring about
	// none; the FLT cases then prove no more than what the core does about faults.
	Inject *Inject
}

// StoreKey is one name in the store.
type StoreKey struct {
	// Name is the store's own name of the entry. The suite takes an entry for one of its
	// own if the key that it locked is a part of Name: prefixes and suffixes do no harm, but
	// a store whose names are hashes adds the key behind the hash, or leaks are not seen.
	Name string
	// Expires says that the store will remove it by itself. CLO-004 does not count it
	// as a leak; a token counter that outlives its lock, for example.
	Expires bool
}

// Need is a capability of the backend or an ability of the target without which a case
// cannot run.
type Need struct {
	name string
	why  string
	met  func(*Target) bool
}

// String is the capability's name, such as "PromptLoss", or the field's, such as
// "Target.Delete".
func (n Need) String() string { return n.name }

func needCapability(c driver.Capability) Need {
	return Need{
		name: c.String(),
		why:  "the backend does not declare the capability " + c.String(),
		met:  func(t *Target) bool { return t.Backend.Capabilities().Has.Has(c) },
	}
}

func needAbility(field string, met func(*Target) bool) Need {
	return Need{name: "Target." + field, why: "the target has no " + field, met: met}
}

// needsPasser: the core passes holds on.
var needsPasser = Need{
	name: "driver.Passer",
	why:  "the backend is no driver.Passer: no hold is passed on",
	met: func(t *Target) bool {
		_, ok := driver.As[driver.Passer](t.Backend)
		return ok
	},
}

var (
	needsDelete  = needAbility("Delete", func(t *Target) bool { return t.Delete != nil })
	needsCrash   = needAbility("Crash", func(t *Target) bool { return t.Crash != nil })
	needsRestart = needAbility("Restart", func(t *Target) bool { return t.Restart != nil })
	needsWipe    = needAbility("Wipe", func(t *Target) bool { return t.Wipe != nil })
)
