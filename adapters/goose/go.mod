module github.com/lockstep-go/lockstep/adapters/goose

go 1.23

require github.com/lockstep-go/lockstep/locker v0.0.0

replace github.com/lockstep-go/lockstep/locker => ../../locker
