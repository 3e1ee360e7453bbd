// Package locker is named locks behind one contract, whatever keeps them: this
// process's memory, one Redis, a Cluster, or a backend of your own. Changing the
// backend is a change of configuration.
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
// With a ttl a hold is a lease: it ends at the ttl unless it is extended or unlocked,
// whether its process lives or not. Without one it is a session: it lasts until
// Unlock or Close, is kept alive by the backend, and frees itself within the
// backend's stated validity after a crash. Both exclude each other on one key. Take
// a lease when you know how long the work may take at most, a session otherwise.
//
// # What a lock of this kind can promise
//
// One live hold per key at any instant, as long as clocks run at about the same speed.
// But a process can be stopped (a long GC pause, a suspended machine) between its last
// look at the clock and its next write, and a lock service cannot reach into it. That
// is what the fencing token is for: Lease.Token rises with every grant of a key, and a
// store that refuses tokens smaller than the greatest it has seen turns a late write
// into an error. See Martin Kleppmann, "How to do distributed locking" (2016).
//
// The contract, clause by clause, is in docs/contract.md of the repository; the ids in
// these comments (MX-001, TTL-002, …) are its. Package conformance proves that a
// backend keeps it.
package locker
