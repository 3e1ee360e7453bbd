package locker_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// ledger is a store that checks the fencing token: with each row it keeps the greatest
// token that it has seen, and refuses a smaller one. In SQL:
//
//	UPDATE ledger SET balance = $1, token = $2 WHERE id = $3 AND token <= $2
type ledger struct {
	mu      sync.Mutex
	balance int
	token   uint64
}

func (s *ledger) write(balance int, token uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token < s.token {
		return fmt.Errorf("refused: a later holder has written")
	}
	s.balance, s.token = balance, token
	return nil
}

// A process that was stopped for longer than its lease wakes up and writes. No lock can
// keep it from that, but the store can.
func ExampleLease_Token() {
	ctx := context.Background()
	l, _ := locker.Open(ctx, locker.Config{Type: "memory"})
	defer l.Close(ctx)
	var account ledger

	sleepy, _ := l.Lock(ctx, "account:7", locker.WithTTL(5*time.Millisecond))
	// … here its process is stopped; the lease ends, and the next one gets the lock:
	next, _ := l.Lock(ctx, "account:7", locker.WithTTL(time.Minute))
	defer next.Unlock(ctx)
	fmt.Println("next:", account.write(200, next.Token()))
	fmt.Println("sleepy:", account.write(100, sleepy.Token()))
	fmt.Println("balance:", account.balance)
	// Output:
	// next: <nil>
	// sleepy: refused: a later holder has written
	// balance: 200
}
