// Package lockstep is empty. Lockstep's named locks are in package locker, and each of its
// backends is a module of its own:
//
//	go get github.com/lockstep-go/lockstep/locker
//	go get github.com/lockstep-go/lockstep/backends/redis    # or backends/postgres, backends/memory
//
//	l, err := locker.Open(ctx, locker.Config{Type: "redis"})
//
// See https://pkg.go.dev/github.com/lockstep-go/lockstep/locker.
//
// This module is the workshop: what generates, tests and measures the published modules. It
// is never tagged and never imported.
package lockstep
