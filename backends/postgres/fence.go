package postgres

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrStaleToken is returned by Fence for a write whose token is older than the row's: somebody
// else has had the lock since.
var ErrStaleToken = errors.New("the fencing token is older than the row's: the lock was lost, and has been held by another since")

// Fence is the store's side of a fencing token: it judges the outcome of a statement that writes
// only if its token is not older than the row's.
//
//	tag, err := tx.Exec(ctx, `UPDATE invoices SET state = $1, fence = $2 WHERE id = $3 AND fence <= $2`, state, int64(lease.Token()), id)
//	if err := postgres.Fence(tag, err); err != nil { … }
//
// The row remembers the greatest token that has written to it, so that a holder that was stopped
// until after the end of its hold, and does not know yet, changes nothing. The comparison and the
// write are one statement, and the row's lock makes them one step. Fence returns err if there is
// one, and an error that matches ErrStaleToken if no row was written: make sure that the row
// exists.
func Fence(tag pgconn.CommandTag, err error) error {
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("%w (or there is no such row)", ErrStaleToken)
	}
	return nil
}
