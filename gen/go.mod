module github.com/lockstep-go/lockstep/gen

go 1.25.0
