// Package locker provides named locks behind one contract, whatever keeps them: this process's
// memory, Redis, PostgreSQL, or a backend of your own. Changing the backend is a change of
// configuration.
//
//	l, err := locker.Open(ctx, locker.Config{Type: "memory"})
//	...
//	lease, err := l.Lock(ctx, "invoice:42", locker.WithTTL(30*time.Second))
//	if err != nil {
//		return err
//	}
//	defer lease.Unlock(ctx)
//	db.Write(row, lease.Token())
//
// # Lease or session
//
// With a ttl a hold is a lease: it ends at the ttl unless it is extended or unlocked, whether its
// process lives or not. Without one it is a session: it lasts until Unlock or Close, the backend
// keeps it alive, and after a crash it ends within the backend's stated validity. A lease and a
// session exclude each other on one key. Take a lease when you know the longest time that the
// work may take, a session otherwise.
//
// # How the end of a hold is reported
//
// Done is closed as soon as the lock can no longer be considered held, before anybody else can
// have it, and also when the store does not answer any more. Err, the context.Cause of
// Lease.Context, and the error of Unlock say why. Of the errors of Lock, [ErrHeld] means that
// another owner has the lock, and nothing is wrong; [ErrUnavailable] means that the store does
// not answer, or refuses.
//
// # What a lock of this kind can promise
//
// One live hold per key at any instant, as long as clocks run at about the same speed and
// the store keeps its data. But a process can be stopped (a long GC pause, a suspended
// machine) between its last look at the clock and its next write, and no lock service can
// prevent that. The fencing token can: Lease.Token rises with every grant of a key, and a
// store that refuses tokens smaller than the greatest it has seen turns a late write
// into an error. See Martin Kleppmann, "How to do distributed locking" (2016).
//
// The contract is in docs/contract.md of the repository, clause by clause; the ids in these
// comments (MX-001, TTL-002, …) refer to it. Package conformance proves that a backend keeps
// it. docs/guide.md is the place to start, docs/operating.md what an operator has to know.
package locker
