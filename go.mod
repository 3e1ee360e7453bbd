module github.com/lockstep-go/lockstep

go 1.26

replace (
	github.com/lockstep-go/lockstep/backends/memory => ./backends/memory
	github.com/lockstep-go/lockstep/backends/redis => ./backends/redis
	github.com/lockstep-go/lockstep/conformance => ./conformance
	github.com/lockstep-go/lockstep/gen => ./gen
	github.com/lockstep-go/lockstep/locker => ./locker
)
