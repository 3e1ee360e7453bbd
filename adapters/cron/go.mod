module github.com/lockstep-go/lockstep/adapters/cron

go 1.23

require (
	github.com/lockstep-go/lockstep/locker v0.0.0
	github.com/robfig/cron/v3 v3.0.1
)

replace github.com/lockstep-go/lockstep/locker => ../../locker
