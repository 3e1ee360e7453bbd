// Package lockstep is the workshop of Lockstep: what generates, tests and measures the
// published modules. It is never tagged and never imported.
//
// Everything that is generated from the sources of several modules is listed here; make
// generate writes it, and make generate-check says whether it is stale. What lockgen writes
// needs nothing that is generated: go run ./gen/cmd/lockgen check generate.go looks at that
// alone, and works while the rest does not compile.
package lockstep

//go:generate go run ./gen/cmd/lockgen config -dir locker -type Config -env LOCKSTEP -schema locker/config.schema.json -into docs/configuration.md -mark locker
//go:generate go run ./gen/cmd/lockgen config -dir backends/memory -type Config -env LOCKSTEP_MEMORY -schema backends/memory/config.schema.json -into docs/configuration.md -mark memory
//go:generate go run ./gen/cmd/lockgen config -dir backends/redis -type Config -env LOCKSTEP_REDIS -schema backends/redis/config.schema.json -into docs/configuration.md -mark redis
//go:generate go run ./gen/cmd/lockgen schema -core locker/config.schema.json -backend memory,inMemory=backends/memory/config.schema.json -backend redis=backends/redis/config.schema.json -out docs/lockstep.schema.json
//go:generate go run ./gen/cmd/lockgen config -dir internal/config/sample -type Config -env LOCKSTEP_SAMPLE -schema internal/config/sample/config.schema.json
//go:generate go run ./internal/mutants -catalogue docs/catalogue.md
