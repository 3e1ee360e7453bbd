package proof

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/locker"
)

// A database of version 1 gets what it lacks, while its clients go on: their functions change the
// owner and leave the words of the one before, which must not be told as the new one's.
func TestPostgresOlderSchema(t *testing.T) {
	w := newPGWorld(t)
	first := w.open(nil)
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.do("ALTER TABLE lockstep.locks DROP COLUMN identity, DROP COLUMN note, DROP COLUMN said_by")
	w.do("ALTER TABLE lockstep.locks_undone DROP COLUMN broken")
	w.do("DROP FUNCTION lockstep.locks_acquire_2, lockstep.locks_break_2")
	w.do("COMMENT ON TABLE lockstep.locks IS 'lockstep 1'")

	l := w.open(nil)
	ctx := t.Context()
	lease, err := l.Lock(ctx, "k", minute, locker.WithNote("mine"))
	if err != nil {
		t.Fatal(err)
	}
	if info, _, err := l.Inspect(ctx, "k"); err != nil || info.Note != "mine" || info.Identity == "" {
		t.Errorf("%+v, %v", info, err)
	}
	if err := lease.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	// As version 1 grants.
	w.do(`UPDATE lockstep.locks SET owner = decode(repeat('ab', 24), 'hex'), token = token + 1, session = false,
		until = clock_timestamp() + interval '1 minute', rev = (rev + 1) & 32767`)
	info, held, err := l.Inspect(ctx, "k")
	if err != nil || !held || info.Note != "" || info.Identity != "" || info.Token != lease.Token()+1 {
		t.Errorf("%+v, %v, %v", info, held, err)
	}
	for info, err := range l.List(ctx, "") {
		if err != nil || info.Note != "" || info.Token != lease.Token()+1 {
			t.Errorf("%+v, %v", info, err)
		}
	}
}

// To break takes a right that nobody has by itself.
func TestPostgresBreakNeedsItsGrant(t *testing.T) {
	w := newPGWorld(t)
	owner := w.open(nil)
	role := "operator_" + w.db
	w.do("CREATE ROLE " + role + " LOGIN")
	t.Cleanup(func() { w.do("DROP OWNED BY " + role); w.do("DROP ROLE " + role) })
	for _, g := range []string{"USAGE ON SCHEMA lockstep", "SELECT, INSERT, UPDATE, DELETE ON lockstep.locks", "SELECT, INSERT, UPDATE, DELETE ON lockstep.locks_undone"} {
		w.do("GRANT " + g + " TO " + role)
	}
	l := w.open(func(c *postgres.Config) { c.User, c.Migrate = role, postgres.MigrateOff })
	ctx := t.Context()
	lease, err := owner.Lock(ctx, "k", minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Break(ctx, "k", lease.Token()); !errors.Is(err, locker.ErrUnavailable) || !strings.Contains(err.Error(), "permission denied for function") {
		t.Errorf("without the grant: %v", err)
	}
	if lease.Err() != nil {
		t.Error(lease.Err())
	}
	w.do("GRANT EXECUTE ON FUNCTION lockstep.locks_break_2 TO " + role)
	if err := l.Break(ctx, "k", lease.Token()); err != nil {
		t.Errorf("with the grant: %v", err)
	}
	select {
	case <-lease.Done():
	case <-time.After(promptly):
		t.Error("the holder does not hear of it")
	}
	var e *locker.Error
	if errors.As(lease.Err(), &e); e == nil || e.Reason != locker.ReasonBroken {
		t.Error(lease.Err())
	}
	// A script that is run again leaves the grant.
	w.do(postgres.Script(postgresConfig(w.srv.Addr(), w.db)))
	again, err := owner.Lock(ctx, "k", minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Break(ctx, "k", again.Token()); err != nil {
		t.Errorf("after the script was run again: %v", err)
	}
}

// A List passes over what was released, of which there may be much more, page by page.
func TestPostgresListAmongReleased(t *testing.T) {
	w := newPGWorld(t)
	l := w.open(nil)
	ctx := t.Context()
	for i := range 5 {
		if _, err := l.Lock(ctx, fmt.Sprint("k", i*1000), minute); err != nil {
			t.Fatal(err)
		}
	}
	w.do(`INSERT INTO lockstep.locks (key, owner, token, session, until, rev)
		SELECT convert_to('k' || n, 'UTF8'), '', 1, false, '-infinity', 0 FROM generate_series(1, 5000) n ON CONFLICT DO NOTHING`)
	n := 0
	for info, err := range l.List(ctx, "k") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(info.Key, "000") && info.Key != "k0" {
			t.Errorf("%+v", info)
		}
		n++
	}
	if n != 5 {
		t.Errorf("%d are held", n)
	}
	if rows := pgtest.Value[int](t, w.srv, w.db, "SELECT count(*)::int FROM lockstep.locks"); rows < 5000 {
		t.Errorf("only %d rows", rows)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range l.List(ctx, "k") {
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
