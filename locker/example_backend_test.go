package locker_test

import (
	"context"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// The examples use the type "memory" as a user's program does. This module requires no
// other, so that a small stand-in takes the place of the real one here.
func init() {
	type config struct {
		Store string `json:"store"`
	}
	driver.Register("memory", func(context.Context, config) (driver.Backend, error) {
		return openBackend(), nil
	}, driver.Names{Aliases: []string{"inMemory"}})
}

func openBackend() driver.Backend {
	return notifying{&fake{caps: driver.Capabilities{Name: "memory"}}}
}
