package main

import (
	"context"

	"github.com/lockstep-go/lockstep/locker"
)

// examineMemory is for a store within a process, of which there is not much to say from outside.
func examineMemory(ctx context.Context, s *store) (*examination, error) {
	cfg, err := s.load(locker.Config{})
	if err != nil {
		return nil, err
	}
	l, err := locker.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer closeLocker(l)
	e := &examination{Store: l.Capabilities().Name + " store", Verdict: note}
	e.add(finding{Severity: note, Check: "store", Found: "its locks live within one process, and end with it",
		Means:   "two processes do not exclude each other, and no command can see or break what a process holds",
		Clauses: []string{"MX-001", "TTL-004", "TOK-005"},
		Do:      "where more than one process is to be excluded, configure Redis or PostgreSQL; for one process there is nothing to do"})
	e.tryLock(ctx, l)
	return e, nil
}
