package lockstep

// Everything that is generated from the sources of several modules is listed here; make
// generate writes it, and make generate-check says whether it is stale.

//go:generate go run ./gen/cmd/lockgen config -dir locker -type Config -methods config -env LOCKSTEP -into docs/configuration.md -mark locker
//go:generate go run ./gen/cmd/lockgen config -dir backends/memory -type Config -env LOCKSTEP_MEMORY -into docs/configuration.md -mark memory
//go:generate go run ./gen/cmd/lockgen config -dir backends/postgres -type Config -env LOCKSTEP_POSTGRES -into docs/configuration.md -mark postgres
//go:generate go run ./gen/cmd/lockgen config -dir backends/redis -type Config -env LOCKSTEP_REDIS -into docs/configuration.md -mark redis
//go:generate go run ./gen/cmd/lockgen schema -core locker -backend memory,inMemory=backends/memory -backend postgres,postgresql,pgx=backends/postgres -backend redis=backends/redis -out docs/lockstep.schema.json
//go:generate go run ./gen/cmd/lockgen config -dir internal/config/sample -type Config -env LOCKSTEP_SAMPLE -schema internal/config/sample/config.schema.json
//go:generate go run ./internal/mutants -catalogue docs/catalogue.md
//go:generate go run ./adapters/otel/internal/generate -table docs/observing.md -dashboard adapters/otel/dashboard.json -alerts adapters/otel/alerts.yml
//go:generate go run ./cmd/lockstep man docs/man
