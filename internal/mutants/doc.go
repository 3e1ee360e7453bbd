// Command mutants tests the conformance suite: every clause must be failed by at least one
// mutant, and every mutant by the clause that it breaks.
//
//	go run ./internal/mutants                    the report: clause × mutant
//	go run ./internal/mutants -catalogue FILE    writes the catalogue of the clauses, runs no mutant
//
// There are two kinds. Broken backends live in the tests of package conformance, a few lines
// each over a healthy reference. Broken cores are one-place changes to the text of package
// locker (table core), for the clauses that the core keeps whatever the backend does. Text
// that is no longer there exactly once is an error, so that no mutant dies in silence.
//
// All the broken cores are in one test binary, built with go build's -overlay, and an
// environment variable chooses one of them: a build for each would take minutes. With
// none chosen that binary must pass everything, which shows that the overlay breaks nothing.
//
// Exit code 0: every clause is proven and every mutant caught. 1: something is not. 2: the
// report could not be made.
package main
