// Command serve starts a Postgres, prints its URL, and ends it with the end of its standard
// input. It is for the tests of modules that must not require this one, such as the examples of
// backends/postgres.
package main

import (
	"fmt"
	"os"

	"github.com/lockstep-go/lockstep/internal/pgtest"
)

func main() {
	if err := pgtest.Serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
