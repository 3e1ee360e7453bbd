// Program backends-postgres looks for a Postgres where there is none.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"

	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/locker"
)

func main() {
	// A port that was free a moment ago.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()

	_, err = locker.Open(context.Background(), locker.Config{
		Type:    "postgres",
		Backend: postgres.Config{Host: []string{addr}},
	})
	fmt.Println("unavailable:", errors.Is(err, locker.ErrUnavailable))
}
