// Program locker is what a user has who imports no backend.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-go/lockstep/locker"
)

func main() {
	_, err := locker.Open(context.Background(), locker.Config{Type: "memory"})
	fmt.Println("no backend:", errors.Is(err, locker.ErrUnknownBackend))
}
