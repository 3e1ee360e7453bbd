package driver

import "time"

// Capabilities is what a backend says of itself. The conformance suite chooses
// its cases by it and fails a backend that promises what it does not keep.
type Capabilities struct {
	// Name is the backend's name in errors, events and logs: "memory", "redis".
	Name string
	// Has is the set of capabilities.
	Has Set
	// SessionValidity is the longest time for which a session's key stays taken
	// after its process has died (FLT-009). 0 when it ends with the process.
	SessionValidity time.Duration
	// MinTTL is the shortest ttl that the store can keep; 0 for a millisecond, which is the
	// unit of the contract. The core refuses a shorter one as ErrInvalidTTL (TTL-003).
	MinTTL time.Duration
	// Granularity is how late, in a healthy system, a key may become free after its
	// ttl, and a waiter be woken. The suite takes its time limits from it.
	Granularity time.Duration
}

// Capability is one thing that a backend may or may not be able to do.
type Capability uint8

//go:generate go tool stringer -type=Capability
const (
	// LocalClock says that holds are timed by this process's own monotonic clock, and the
	// backend calls Listener.Lost itself at the instant of expiry. There is then no
	// drift to allow for, and the core keeps no timer of its own.
	LocalClock Capability = iota
	// LeaseOutlivesProcess says that a lease lasts for its ttl even when its process dies (TTL-004).
	LeaseOutlivesProcess
	// PromptLoss says that a hold that is deleted, overwritten or taken over in the store is reported
	// through Listener.Lost within Granularity rather than at its deadline (LOSS-003).
	PromptLoss
	// TokensSurviveRestart says that tokens keep rising although the store was restarted with
	// its data (TOK-005).
	TokensSurviveRestart
	// TokensSurviveDataLoss says that tokens keep rising although the store lost all its data
	// (TOK-005).
	TokensSurviveDataLoss
	// SharedStore says that other processes can hold locks in the same store.
	SharedStore
	// Notes says that the identity and the note of a [Request] are kept with the hold and come
	// back from Inspect (ADM-001).
	Notes
	// Listing says that the backend is a [Lister].
	Listing
	// Breaking says that the backend is a [Breaker].
	Breaking

	// A new one also needs a name in locker/alias.go, a row in docs/contract.md, and a case that
	// fails a backend which declares it and does not have it (conformance, needCapability).

	capabilities // the number of them
)

// All lists the capabilities, in order.
func All() []Capability {
	all := make([]Capability, capabilities)
	for i := range all {
		all[i] = Capability(i)
	}
	return all
}

// Set is a set of capabilities.
type Set uint64

// NewSet is the set of cs.
func NewSet(cs ...Capability) Set {
	var s Set
	for _, c := range cs {
		s |= 1 << c
	}
	return s
}

// Has says whether c is in the set.
func (s Set) Has(c Capability) bool { return s&(1<<c) != 0 }
