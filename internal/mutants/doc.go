// Command mutants tests the conformance suite: every clause must be failed by at least one
// mutant, and every mutant by the clause that it breaks.
//
//	go run ./internal/mutants                    the report: clause × mutant
//	go run ./internal/mutants -of Redis          only those of one base; -name narrows it further
//	go run ./internal/mutants -catalogue FILE    writes the catalogue of the clauses, runs no mutant
//
// There are two kinds. Broken backends live in the tests of package conformance, a few lines
// each over a healthy reference. The others are one-place changes to a source: of package locker, for
// the clauses that the core keeps whatever the backend does, and of each backend here (table
// bases). Text that is no longer there exactly once is an error, so that no mutant dies in silence.
//
// All the broken sources are in one test binary for each folder of tests, built with go build's
// -overlay, and an environment variable chooses one of them: a build for each would take
// minutes. With none chosen that binary must pass everything, which shows that the overlay
// breaks nothing.
//
// Each mutant runs over the whole suite, in its order, up to the first clause that fails. That
// failure is what an author reads first: it must name the clause that is broken, or one that
// is as right (table equallyRight), for at least 95 of 100. If it names another, the mutant's own
// clause is run alone, to see whether it is caught at all. With a real store the cases run side by side:
// there the suite is run in stages of a few clauses, up to the first in which one fails.
//
// Exit code 0: every clause is proven, every mutant caught, and enough of them by the right clause
// first. 1: something is not. 2: the report could not be made.
package main
