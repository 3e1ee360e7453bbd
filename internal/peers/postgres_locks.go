package peers

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cirello "cirello.io/pglock"
	allisson "github.com/allisson/go-pglock/v3"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/lib/pq" // cirello.io/pglock works with no other driver
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/locker"
)

var postgresLocks = map[string]opener{
	lockstepPostgres: openLockstepPostgres,
	twoUpdates:       openTwoUpdates,
	selectOne:        openSelectOne,
	advisorySession:  openAdvisorySession,
	advisoryTx:       openAdvisoryTx,
	cirelloPglock:    func(_ context.Context, server string) (*locks, error) { return openCirello(server, leaseTTL) },
	cirelloQuick:     func(_ context.Context, server string) (*locks, error) { return openCirello(server, cirelloPoll) },
	allissonPglock:   openAllisson,
}

// postgresConns is how many connections each subject's pool may have.
const postgresConns = 16

// cirelloPoll: it polls once a lease, so that where several want a key the lease is the pace. No
// statement of it may take longer, which rules out a lease that is much shorter.
const cirelloPoll = time.Second

func postgresURL(server string) string {
	return "postgres://postgres@" + server + "/postgres?sslmode=disable"
}

func openLockstepPostgres(ctx context.Context, server string) (*locks, error) {
	var sent messages
	l, err := postgres.New(ctx, postgres.Config{
		Host: []string{server}, User: "postgres", Database: "postgres", SSLMode: "disable",
		MaxConns: postgresConns, Validity: validity,
		ConnConfig: func(cc *pgx.ConnConfig) { cc.DialFunc = sent.dial(cc.DialFunc) },
	}, locker.Config{})
	if err != nil {
		return nil, err
	}
	all := lockstepLocks(l)
	all.refused = func(ctx context.Context, key string) error {
		_, err := l.TryLock(ctx, key, locker.WithTTL(leaseTTL))
		return refusedBy(err, errors.Is(err, locker.ErrHeld))
	}
	all.sent = func() (statements, trips int64) { return sent.statements.Load(), sent.trips.Load() }
	return all, nil
}

var errGranted = errors.New("a key that is held was granted")

// refusedBy is nil for an attempt that was refused as it must be.
func refusedBy(err error, refused bool) error {
	switch {
	case refused:
		return nil
	case err == nil:
		return errGranted
	}
	return err
}

// openPool is the bare client of the floors and of what one writes oneself.
func openPool(ctx context.Context, server string) (*pgxpool.Pool, error) {
	c, err := pgxpool.ParseConfig(postgresURL(server))
	if err != nil {
		return nil, err
	}
	c.MaxConns = postgresConns
	return pgxpool.NewWithConfig(ctx, c)
}

// openTwoUpdates is the least that a lock in a row with an end can cost: nobody looks who holds it.
func openTwoUpdates(ctx context.Context, server string) (*locks, error) {
	pool, err := openPool(ctx, server)
	if err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, bareTable); err != nil {
		pool.Close()
		return nil, err
	}
	var there sync.Map
	update := func(ctx context.Context, key string) error {
		_, err := pool.Exec(ctx, `UPDATE bare SET n = n + 1 WHERE key = $1`, key)
		return err
	}
	return &locks{
		pair: func(ctx context.Context, key string) error {
			if _, ok := there.Load(key); !ok {
				if _, err := pool.Exec(ctx, `INSERT INTO bare VALUES ($1, 0) ON CONFLICT DO NOTHING`, key); err != nil {
					return err
				}
				there.Store(key, nil)
			}
			if err := update(ctx, key); err != nil {
				return err
			}
			return update(ctx, key)
		},
		close: pool.Close,
	}, nil
}

// openSelectOne is a round trip.
func openSelectOne(ctx context.Context, server string) (*locks, error) {
	pool, err := openPool(ctx, server)
	if err != nil {
		return nil, err
	}
	return &locks{
		lock: func(context.Context, string) (any, error) { return nil, nil },
		refused: func(ctx context.Context, _ string) error {
			var one int
			return pool.QueryRow(ctx, `SELECT 1`).Scan(&one)
		},
		close: pool.Close,
	}, nil
}

// advisoryID is the number of a key.
func advisoryID(key string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return int64(h.Sum64())
}

// openAdvisorySession holds a connection of the pool for as long as the lock. No ttl, no token, no
// notice of a loss.
func openAdvisorySession(ctx context.Context, server string) (*locks, error) {
	pool, err := openPool(ctx, server)
	if err != nil {
		return nil, err
	}
	lock := func(ctx context.Context, key string) (any, error) {
		conn, err := pool.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, advisoryID(key)); err != nil {
			conn.Release()
			return nil, err
		}
		return conn, nil
	}
	unlock := func(ctx context.Context, key string, held any) error {
		conn := held.(*pgxpool.Conn)
		defer conn.Release()
		_, err := conn.Exec(ctx, `SELECT pg_advisory_unlock($1)`, advisoryID(key))
		return err
	}
	return &locks{
		pair: pairOf(lock, unlock),
		lock: lock, unlock: unlock,
		refused: func(ctx context.Context, key string) error {
			var granted bool
			err := pool.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, advisoryID(key)).Scan(&granted)
			return refusedBy(err, err == nil && !granted)
		},
		close: pool.Close,
	}, nil
}

// openAdvisoryTx is a transaction around the lock, which is what unlocks it.
func openAdvisoryTx(ctx context.Context, server string) (*locks, error) {
	pool, err := openPool(ctx, server)
	if err != nil {
		return nil, err
	}
	lock := func(ctx context.Context, key string) (any, error) {
		tx, err := pool.Begin(ctx)
		if err != nil {
			return nil, err
		}
		if err := postgres.TxLock(ctx, tx, key); err != nil {
			return nil, errors.Join(err, tx.Rollback(ctx))
		}
		return tx, nil
	}
	unlock := func(ctx context.Context, _ string, held any) error { return held.(pgx.Tx).Commit(ctx) }
	return &locks{
		pair: pairOf(lock, unlock),
		lock: lock, unlock: unlock,
		close: pool.Close,
	}, nil
}

// pairOf locks and unlocks.
func pairOf(lock func(context.Context, string) (any, error), unlock func(context.Context, string, any) error) func(context.Context, string) error {
	return func(ctx context.Context, key string) error {
		held, err := lock(ctx, key)
		if err != nil {
			return err
		}
		return unlock(ctx, key, held)
	}
}

func openSQL(server string) (*sql.DB, error) {
	db, err := sql.Open("postgres", postgresURL(server))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(postgresConns)
	db.SetMaxIdleConns(postgresConns)
	return db, nil
}

// openCirello: without heartbeats, which would be two statements more for each lock.
func openCirello(server string, lease time.Duration) (*locks, error) {
	db, err := openSQL(server)
	if err != nil {
		return nil, err
	}
	client, err := cirello.New(db, cirello.WithLeaseDuration(lease), cirello.WithHeartbeatFrequency(0))
	if err == nil {
		err = client.TryCreateTable()
	}
	for tries := 0; client != nil && err != nil && tries < 3; tries++ {
		err = client.TryCreateTable() // processes that create it at once fail, each of its parts once
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	lock := func(ctx context.Context, key string) (any, error) { return client.AcquireContext(ctx, key) }
	unlock := func(ctx context.Context, _ string, held any) error {
		return client.ReleaseContext(ctx, held.(*cirello.Lock))
	}
	return &locks{
		pair: pairOf(lock, unlock),
		lock: lock, unlock: unlock,
		refused: func(ctx context.Context, key string) error {
			_, err := client.AcquireContext(ctx, key, cirello.FailIfLocked())
			return refusedBy(err, errors.Is(err, cirello.ErrNotAcquired))
		},
		close: func() { db.Close() },
	}, nil
}

func openAllisson(ctx context.Context, server string) (*locks, error) {
	db, err := openSQL(server)
	if err != nil {
		return nil, err
	}
	lock := func(ctx context.Context, key string) (any, error) {
		l, err := allisson.NewLock(ctx, advisoryID(key), db)
		if err != nil {
			return nil, err
		}
		if err := l.WaitAndLock(ctx); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		return &l, nil
	}
	unlock := func(ctx context.Context, _ string, held any) error {
		l := held.(*allisson.Lock)
		return errors.Join(l.Unlock(ctx), l.Close())
	}
	return &locks{
		pair: pairOf(lock, unlock),
		lock: lock, unlock: unlock,
		refused: func(ctx context.Context, key string) error {
			l, err := allisson.NewLock(ctx, advisoryID(key), db)
			if err != nil {
				return err
			}
			defer l.Close()
			granted, err := l.Lock(ctx)
			return refusedBy(err, err == nil && !granted)
		},
		close: func() { db.Close() },
	}, nil
}

// messages counts what the connections of one client send.
type messages struct {
	statements atomic.Int64 // Execute and Query
	trips      atomic.Int64 // Sync and Query: an answer is waited for
}

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

func (m *messages) dial(dial dialer) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: conn, all: m, starting: true}, nil
	}
}

// countedConn is one of them. Only one goroutine writes at a time.
type countedConn struct {
	net.Conn
	all      *messages
	starting bool // the first message has no type
	pending  []byte
	skip     int // of the message that has begun
}

func (c *countedConn) Write(data []byte) (int, error) {
	c.count(data)
	return c.Conn.Write(data)
}

func (c *countedConn) count(data []byte) {
	for len(data) > 0 {
		if c.skip > 0 {
			n := min(c.skip, len(data))
			c.skip, data = c.skip-n, data[n:]
			continue
		}
		head := 5
		if c.starting {
			head = 4
		}
		n := min(head-len(c.pending), len(data))
		c.pending, data = append(c.pending, data[:n]...), data[n:]
		if len(c.pending) < head {
			return
		}
		if !c.starting {
			switch c.pending[0] {
			case 'E':
				c.all.statements.Add(1)
			case 'S':
				c.all.trips.Add(1)
			case 'Q':
				c.all.statements.Add(1)
				c.all.trips.Add(1)
			}
		}
		c.skip = int(binary.BigEndian.Uint32(c.pending[head-4:])) - 4
		c.starting, c.pending = false, c.pending[:0]
	}
}

// NetConn lets the backend find the socket.
func (c *countedConn) NetConn() net.Conn { return c.Conn }

// versionOf is the first word of what a server calls its version.
func versionOf(text string) string {
	version, _, _ := strings.Cut(text, " ")
	if _, err := strconv.ParseFloat(version, 64); err != nil {
		return "unknown"
	}
	return version
}
