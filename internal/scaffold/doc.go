// Package scaffold proves what lockgen backend writes, as an author meets it who has a
// released lockgen: the new module resolves through a module proxy, builds, and fails
// exactly those cases of the suite that lockgen says it does.
//
// It also makes that list. A small store is at hand, and one step after the other is written
// in a new module, as an author would; the list says which cases pass from each on. It is on
// record in gen/internal/scaffold/unwritten.txt, which is written with
//
//	go test ./internal/scaffold -run TestSteps -update && go test ./gen/cmd/lockgen -run TestBackend -update
package scaffold
