module github.com/lockstep-go/lockstep/locker

go 1.23
