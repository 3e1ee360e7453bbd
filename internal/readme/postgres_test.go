package readme

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/locker"
)

// setInvoice is the example of a fence in docs/postgres.md.
func setInvoice(ctx context.Context, tx pgx.Tx, lease *locker.Lease, id int, state string) error {
	tag, err := tx.Exec(ctx, `UPDATE invoices SET state = $1, fence = $2 WHERE id = $3 AND fence <= $2`, state, int64(lease.Token()), id)
	if err := postgres.Fence(tag, err); err != nil {
		return err // ErrStaleToken: the lock was lost, and somebody else has written since
	}
	return nil
}

func TestFenceExample(t *testing.T) {
	srv := pgtest.Single(t)
	db := srv.Database(t)
	srv.DoIn(t, db, "CREATE TABLE invoices (id int PRIMARY KEY, state text, fence bigint NOT NULL DEFAULT 0); INSERT INTO invoices VALUES (42, 'open')")
	cfg, err := locker.LoadConfig(srv.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	l, err := locker.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	conn := srv.Admin(t, db)
	set := func(lease *locker.Lease, state string) error {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Commit(t.Context()) }()
		return setInvoice(t.Context(), tx, lease, 42, state)
	}
	stopped, err := l.Lock(t.Context(), "invoice:42", locker.WithTTL(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	next, err := l.Lock(t.Context(), "invoice:42", locker.WithTTL(time.Minute)) // when its time is up
	if err != nil {
		t.Fatal(err)
	}
	if err := set(next, "paid"); err != nil {
		t.Error(err)
	}
	if err := set(stopped, "cancelled"); !errors.Is(err, postgres.ErrStaleToken) {
		t.Errorf("a holder that stood still writes: %v", err)
	}
}
