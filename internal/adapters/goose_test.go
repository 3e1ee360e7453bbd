package adapters

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"github.com/pressly/goose/v3/lock/locktesting"
	_ "modernc.org/sqlite"

	gooselock "github.com/lockstep-go/lockstep/adapters/goose"
	"github.com/lockstep-go/lockstep/locker"
)

var _ lock.Locker = (*gooselock.Locker)(nil)

func migrations() fstest.MapFS {
	all := fstest.MapFS{}
	for i := 1; i <= 4; i++ {
		all[fmt.Sprintf("%05d_table.sql", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "-- +goose Up\nCREATE TABLE t%d (a INT);\n", i)}
	}
	return all
}

func database(t *testing.T) *sql.DB {
	t.Helper()
	// The lock is what is tested, not how SQLite refuses two writers: one waits for the other, also
	// where a transaction begins by reading.
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	// Once, and not with each connection: a change of the mode does not wait for writers.
	if _, err := db.Exec("PRAGMA journal_mode=WAL"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// goose's own suite: of five providers one migrates, and the others find it done.
func TestGoose(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		for _, shared := range []bool{false, true} {
			t.Run(fmt.Sprintf("shared=%t", shared), func(t *testing.T) {
				db, one := database(t), gooselock.New(f.open(nil), gooselock.Options{})
				locktesting.TestProviderLocking(t, func(t *testing.T) *goose.Provider {
					k := one
					if !shared {
						k = gooselock.New(f.open(nil), gooselock.Options{})
					}
					p, err := goose.NewProvider(goose.DialectSQLite3, db, migrations(), goose.WithLocker(k))
					if err != nil {
						t.Fatal(err)
					}
					return p
				})
			})
		}
		t.Run("concurrent", func(t *testing.T) {
			locktesting.TestConcurrentLocking(t, database(t), func(*testing.T) lock.Locker {
				return gooselock.New(f.open(nil), gooselock.Options{Key: "concurrent"})
			}, time.Second)
		})
	})
}

// goose hears of a loss when the migrations have ended.
func TestGooseLoss(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		if f.lose == nil {
			return // nobody can take a lock in memory away
		}
		lost := make(chan struct{})
		l := f.open(locker.ObserverFunc(func(_ context.Context, e locker.Event) {
			if e.Kind == locker.EventLost {
				close(lost)
			}
		}))
		p, err := goose.NewProvider(goose.DialectSQLite3, database(t), nil,
			goose.WithGoMigrations(goose.NewGoMigration(1, &goose.GoFunc{RunTx: func(ctx context.Context, _ *sql.Tx) error {
				f.lose("goose")
				<-lost
				return nil
			}}, nil)), goose.WithLocker(gooselock.New(l, gooselock.Options{})))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Up(t.Context()); !errors.Is(err, locker.ErrLost) {
			t.Errorf("Up after the loss: %v", err)
		}
	})
}

func TestGooseUnlock(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		k := gooselock.New(f.open(nil), gooselock.Options{TTL: time.Minute})
		if err := k.Unlock(t.Context(), nil); !errors.Is(err, locker.ErrReleased) {
			t.Errorf("Unlock before Lock: %v", err)
		}
		if err := k.Lock(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		dead, cancel := context.WithCancel(t.Context())
		cancel()
		if err := k.Unlock(dead, nil); err != nil {
			t.Errorf("Unlock with a ctx that has ended: %v", err)
		}
		other := gooselock.New(f.open(nil), gooselock.Options{})
		if err := other.Lock(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		waits, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := k.Lock(waits, nil); !errors.Is(err, locker.ErrHeld) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock of a lock that is held: %v", err)
		}
		if err := other.Unlock(t.Context(), nil); err != nil {
			t.Error(err)
		}
		// Each Unlock is of a Lock of its own.
		if err := k.Lock(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if err := k.Unlock(t.Context(), nil); err != nil {
			t.Errorf("Unlock of the second Lock: %v", err)
		}
		if err := k.Unlock(t.Context(), nil); !errors.Is(err, locker.ErrReleased) {
			t.Errorf("one Unlock more than there were Locks: %v", err)
		}
	})
}
