// Package harness is what the cases of package conformance run in: a trial with its clock,
// random choices, failures and goroutines ([Trial]), a tap between the core and a backend that
// records, counts and fails the calls ([Tap]), the history that a failure shows ([History]), and
// the hub that wakes waiters over backends that give no hints ([Hub]).
//
// It knows no clause. What a case does stands in package conformance.
package harness
