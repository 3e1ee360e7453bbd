package main

import (
	"context"
	"fmt"
)

// The program runs as it is printed.
func Example() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// a second one gets ErrHeld: true
	// holding nightly-report as a session: true
}
