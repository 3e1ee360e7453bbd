package conformance

import (
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Target is what one trial of one case runs against: a backend, and what the test can
// do to its store. Run asks for a new one each time.
//
// The suite closes every backend that it gets, once. Register other cleanup with t.Cleanup; it
// runs afterwards.
type Target struct {
	// Backend is the first client of the store. Required.
	Backend driver.Backend

	// Peer opens one more client of the same store, as another process would. Required;
	// called several times.
	Peer func(tb testing.TB) driver.Backend

	// Advance moves the clock of the store forward, for a store whose clock does not run by itself.
	// The suite then calls it all the time, in small steps together with its own clock. nil for a
	// store whose clock runs.
	Advance func(d time.Duration)

	// Delete removes the hold on key from the store without telling its holder, as an administrator
	// would. If there is no such hold, nothing happens. nil if nobody can do that. LOSS-003 needs
	// it.
	Delete func(tb testing.TB, key string)

	// Crash ends a client as the death of its process would: its connections are gone, and it
	// releases nothing. What it held stays in the store unchanged, until its time is up, and nobody
	// renews it. Its methods may still be called, and return errors; Close is called once more.
	// Where Close releases nothing, which is allowed, Crash is Close. TTL-004 needs it.
	Crash func(tb testing.TB, b driver.Backend)

	// Restart stops the store and starts it again with its data, and returns when it answers.
	// TOK-005/restart needs it.
	Restart func(tb testing.TB)

	// Wipe makes the store lose all its data, as a restart without a disk would. Only
	// for a store that nobody else uses. TOK-005/wipe needs it, or Inject.Wipe.
	Wipe func(tb testing.TB)

	// Keys lists what is in the store at this moment, by the names that the store itself uses. It
	// may include keys of others. nil if it cannot be seen: then CLO-004 and CLO-005 cannot see a leaked key,
	// and KEY-003 can only guess at internal names.
	Keys func(tb testing.TB) []StoreKey

	// Connections is how many connections this target's clients have to the store at this moment.
	// nil where there are none, or they cannot be counted: then CLO-004 cannot see a leaked one.
	Connections func(tb testing.TB) int

	// Inject is the faults that the test can bring about, or nil. Without it the FLT cases prove no
	// more than what the core does about faults.
	Inject *Inject
}

// StoreKey is one name in the store.
type StoreKey struct {
	// Name is the store's own name of the entry. The suite counts an entry as its own if the key
	// that it locked is a part of Name. Prefixes and suffixes do no harm, but a store whose names
	// are hashes has to append the key to the hash, or leaks are not seen.
	Name string
	// Expires says that the store will remove the entry by itself, such as a token counter that
	// outlives its lock. It does not count as a leak.
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
	name: "driver.Handoff",
	why:  "the backend is no driver.Handoff: no hold is passed on",
	met: func(t *Target) bool {
		_, ok := driver.As[driver.Handoff](t.Backend)
		return ok
	},
}

var (
	needsDelete  = needAbility("Delete", func(t *Target) bool { return t.Delete != nil })
	needsCrash   = needAbility("Crash", func(t *Target) bool { return t.Crash != nil })
	needsRestart = needAbility("Restart", func(t *Target) bool { return t.Restart != nil })
	needsWipe    = Need{name: "Target.Wipe", why: "the target has neither Wipe nor Inject.Wipe", met: func(t *Target) bool { return t.Wipe != nil || needsFlush.met(t) }}
)
