module github.com/lockstep-go/lockstep/cmd/lockstep

go 1.25.0

require (
	github.com/jackc/pgx/v5 v5.12.0
	github.com/lockstep-go/lockstep/backends/memory v0.0.0
	github.com/lockstep-go/lockstep/backends/postgres v0.0.0
	github.com/lockstep-go/lockstep/backends/redis v0.0.0
	github.com/lockstep-go/lockstep/conformance v0.0.0
	github.com/lockstep-go/lockstep/locker v0.0.0
	github.com/redis/rueidis v1.0.79
	github.com/spf13/cobra v1.10.2
	golang.org/x/sys v0.47.0
)

require (
	github.com/anishathalye/porcupine v1.3.1 // indirect
	github.com/cpuguy83/go-md2man/v2 v2.0.6 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/russross/blackfriday/v2 v2.1.0 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)

replace (
	github.com/lockstep-go/lockstep/backends/memory => ../../backends/memory
	github.com/lockstep-go/lockstep/backends/postgres => ../../backends/postgres
	github.com/lockstep-go/lockstep/backends/redis => ../../backends/redis
	github.com/lockstep-go/lockstep/conformance => ../../conformance
	github.com/lockstep-go/lockstep/locker => ../../locker
)
