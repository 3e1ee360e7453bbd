// Package peers measures Lockstep beside what a user would pick instead.
//
//	make bench                                  the whole report, into docs/benchmarks.md
//	go run ./internal/peers/cmd/bench -run idle  some rows, to the terminal only
//
// A scenario ([Scenario]) is one row of the report: a piece of work, the subjects that do
// it (Lockstep and its peers) and the goals. Its rounds are interleaved, A B C, B C A, …,
// so that what disturbs the machine disturbs all of them, and a goal looks at the median
// of the ratios within the rounds. Each subject works in a process of its own, started
// once a scenario: one's garbage is not another's pause.
//
// # To add a row
//
//  1. Write what a child does in one round: a task, in memory_tasks.go, redis_tasks.go or postgres_tasks.go,
//     a function that gets the subject's locks and returns a [Sample].
//  2. Add a Scenario that names the task, its subjects and its goals, in memory_rows.go,
//     redis_rows.go or postgres_rows.go. What a reader came for has an Opening, too: a column of the
//     tables with which the page begins.
//
// To add a peer, add it to memoryLocks, redisLocks or postgresLocks, and name it in the scenarios.
//
// Times and ratios are a report. Allocations and the commands that Redis gets are exact,
// and those are tests: see the _test.go files.
package peers
