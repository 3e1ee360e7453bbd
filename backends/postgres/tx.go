package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"

	"github.com/jackc/pgx/v5/pgconn"
)

// Tx is what TxLock needs of a transaction. pgx.Tx has it.
type Tx interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// TxLock waits until the transaction tx has the lock key for itself; tx keeps it until it ends,
// in whatever way. It is for work that is all in one transaction: there is nothing to unlock and
// nothing to expire, and it works through a pooler in transaction mode.
//
// It is not a Lockstep lock, and does not exclude one of that name: it is Postgres's own advisory
// lock, on a 63-bit hash of the key. It lacks a fencing token, so that nothing outside of the
// transaction can tell a late holder; a ttl, so that a holder that is stopped keeps it for as
// long as its connection lasts; a signal of loss; and an order among the waiters. It may deadlock
// with other locks of the two transactions (SQLSTATE 40P01). ctx bounds the waiting, and when it
// ends, tx has failed.
func TxLock(ctx context.Context, tx Tx, key string) error {
	_, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1::bigint)", txLockID(key))
	return err
}

// TryTxLock is TxLock without the waiting. It reports whether tx has the lock.
func TryTxLock(ctx context.Context, tx Tx, key string) (bool, error) {
	// A row only if it was had, so that Exec, which every kind of transaction has, is enough.
	tag, err := tx.Exec(ctx, "SELECT WHERE pg_try_advisory_xact_lock($1::bigint)", txLockID(key))
	return tag.RowsAffected() == 1, err
}

// txLockID is positive: other programs' advisory locks, made of two small numbers or of a
// table's oid, lie elsewhere, and 63 bits of a good hash do not meet by chance.
func txLockID(key string) int64 {
	hash := sha256.Sum256([]byte("lockstep transaction lock\x00" + key))
	return int64(binary.BigEndian.Uint64(hash[:8]) >> 1)
}
