// Program adapters-certmagic locks a name for certmagic.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/caddyserver/certmagic"

	certlock "github.com/lockstep-go/lockstep/adapters/certmagic"
	_ "github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/locker"
)

func main() {
	ctx := context.Background()
	l, err := locker.Open(ctx, locker.Config{Type: "memory"})
	if err != nil {
		log.Fatal(err)
	}
	s, err := certlock.New(&certmagic.FileStorage{Path: "data"}, l, certlock.Options{})
	if err != nil {
		log.Fatal(err)
	}
	certmagic.Default.Storage = s
	fmt.Println(s.TryLock(ctx, "issue_cert_example.com"))
	fmt.Println(s.TryLock(ctx, "issue_cert_example.com"))
}
