package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// Tx is what TxLock needs of a transaction. pgx.Tx has it. Rollback is never called: what has no
// Rollback, such as a connection or a pool, is no transaction, and would lose the lock as soon as
// it has it.
type Tx interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Rollback(ctx context.Context) error
}

// TxLock waits until the transaction tx has the lock key for itself; tx keeps it until it ends,
// in whatever way. It is for work that is all in one transaction: there is nothing to unlock and
// nothing to expire, and it works through a pooler in transaction mode. A rollback to a savepoint
// that was made before (of a pgx.Tx that another one's Begin has made, for instance) ends it too.
//
// tx must be READ COMMITTED, Postgres's default. In REPEATABLE READ and SERIALIZABLE it would go on
// seeing the database as it was before the waiting, without what the holder before it has committed:
// driver.ErrUnsupported, at once and without the lock. Where the database's default is another one,
// begin with pgx.TxOptions{IsoLevel: pgx.ReadCommitted}.
//
// It is not a Lockstep lock, and does not exclude one of that name: it is Postgres's own advisory
// lock, on a 63-bit hash of the key. It lacks a fencing token, so that nothing outside of the
// transaction can tell a late holder; a ttl, so that a holder that is stopped keeps it for as
// long as its connection lasts; a signal of loss; and an order among the waiters. It may deadlock
// with other locks of the two transactions (SQLSTATE 40P01). ctx bounds the waiting, and when it
// ends, tx has failed.
func TxLock(ctx context.Context, tx Tx, key string) error {
	_, err := txLock(ctx, tx, "pg_advisory_xact_lock($1::bigint) IS NOT NULL", key)
	return err
}

// TryTxLock is TxLock without the waiting. It reports whether tx has the lock.
func TryTxLock(ctx context.Context, tx Tx, key string) (bool, error) {
	return txLock(ctx, tx, "pg_try_advisory_xact_lock($1::bigint)", key)
}

// txLock evaluates lock only in an isolation that sees what was committed meanwhile. The answer is
// the number of rows, so that Exec, which every kind of transaction has, is enough, and one round
// trip.
func txLock(ctx context.Context, tx Tx, lock, key string) (bool, error) {
	tag, err := tx.Exec(ctx, "SELECT FROM generate_series(1, CASE current_setting('transaction_isolation') "+
		"WHEN 'repeatable read' THEN 2 WHEN 'serializable' THEN 3 ELSE CASE WHEN "+lock+" THEN 1 ELSE 0 END END)", txLockID(key))
	if err != nil {
		return false, err
	}
	level := "REPEATABLE READ"
	switch tag.RowsAffected() {
	case 0:
		return false, nil
	case 1:
		return true, nil
	case 3:
		level = "SERIALIZABLE"
	}
	return false, fmt.Errorf("%w: the transaction is %s, and would not see what the holder before it has committed; make it READ COMMITTED", driver.ErrUnsupported, level)
}

// txLockID is positive: other programs' advisory locks, made of two small numbers or of a
// table's oid, lie elsewhere, and 63 bits of a good hash do not meet by chance.
func txLockID(key string) int64 {
	hash := sha256.Sum256([]byte("lockstep transaction lock\x00" + key))
	return int64(binary.BigEndian.Uint64(hash[:8]) >> 1)
}
