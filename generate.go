// Package lockstep is the workshop of Lockstep: what generates, tests and measures the
// published modules. It is never tagged and never imported.
//
// Everything that is generated from the sources of several modules is listed here; go
// generate . writes it. Of the tables of configuration, go run ./gen/cmd/lockgen check
// generate.go says whether they are stale; of the catalogue, a test in internal/mutants.
package lockstep

//go:generate go run ./gen/cmd/lockgen table -dir locker -type Config -into docs/configuration.md -mark locker
//go:generate go run ./gen/cmd/lockgen table -dir backends/memory -type Config -into docs/configuration.md -mark memory
//go:generate go run ./gen/cmd/lockgen table -dir backends/redis -type Config -into docs/configuration.md -mark redis
//go:generate go run ./internal/mutants -catalogue docs/catalogue.md
