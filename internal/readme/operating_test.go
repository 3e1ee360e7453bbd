package readme

import (
	"context"
	"fmt"

	"github.com/lockstep-go/lockstep/locker"
)

// docs/operating.md: who holds what, and the end of a hold that nobody will end.
func Example_operating() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	for _, key := range []string{"invoice:1", "report"} {
		lease, _ := l.Lock(ctx, key, locker.WithNote("nightly run"))
		defer lease.Unlock(ctx)
	}

	for info, err := range l.List(ctx, "invoice:") {
		if err != nil {
			fmt.Println(err) // the last that comes
			break
		}
		fmt.Printf("%q is held for %q\n", info.Key, info.Note)
	}

	info, held, _ := l.Inspect(ctx, "report")
	if held { // a person has looked at info, and decided
		fmt.Println(l.Break(ctx, "report", info.Token)) // ErrLost: somebody else has it by now
	}

	// Output:
	// "invoice:1" is held for "nightly run"
	// <nil>
}
