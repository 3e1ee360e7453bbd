package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// statement is one call of a server-side function.
type statement struct {
	sql      string
	prepared string   // "": as sql
	params   []uint32 // their types
	function string   // "": it calls none
}

// statements are all that is asked on behalf of locks.
//
// They are calls of functions, rather than the statements within: a function's plans are
// cached by the session whether or not the call was prepared, so that behind a pooler, where
// it must not be, an attempt costs the server half as much.
func (n names) statements() map[string]statement {
	call := func(function, args string, params ...uint32) statement {
		return statement{sql: fmt.Sprintf("SELECT %s(%s)", n.function(function), args), params: params, function: function}
	}
	acquire := call("acquire", "$1, $2, $3, $4, $5, $6, $7, $8", oidBytea, oidBytea, oidInt8, oidBool, oidBool, oidInt8, oidBytea, oidBytea)
	// Prepared, a look before the call refuses for half of what the function costs (ADR 16). Not
	// prepared, to plan it would cost four times as much as the function.
	acquire.prepared = "SELECT coalesce((SELECT CASE WHEN isfinite(l.until) THEN " +
		"-1 - greatest(0, ceil(date_part('epoch', l.until - clock_timestamp()) * 1000000))::bigint ELSE 0 END FROM " + n.part("") +
		" l WHERE l.key = $1 AND l.owner <> $2 AND l.until > clock_timestamp() AND (l.wanted OR NOT $5)), " +
		strings.TrimPrefix(acquire.sql, "SELECT ") + ")"
	all := map[string]statement{
		"lockstep_acquire": acquire,
		"lockstep_acquire_all": call("acquire_all", "$1, $2, $3, $4, $5, $6, $7",
			oidByteas, oidByteas, oidInt8, oidBool, oidInt8, oidBytea, oidByteas),
		"lockstep_extend":   call("extend", "$1, $2, $3, $4, $5", oidBytea, oidBytea, oidInt8, oidInt8, oidInt8),
		"lockstep_release":  call("release", "$1, $2, $3", oidBytea, oidBytea, oidInt8),
		"lockstep_takeback": call("takeback", "$1, $2, $3", oidBytea, oidBytea, oidInt8),
		"lockstep_renew":    call("renew", "$1, $2, $3", oidByteas, oidByteas, oidInt8),
		"lockstep_check":    call("check", "$1, $2", oidByteas, oidByteas),
		"lockstep_free":     call("free", "$1, $2", oidByteas, oidBool),
		"lockstep_sweep":    call("sweep", "$1, $2, $3", oidInt8, oidInt8, oidInt4),
		"lockstep_break":    call("break", "$1, $2, $3", oidBytea, oidInt8, oidInt8),
		"lockstep_broken": {sql: "SELECT array_agg(EXISTS (SELECT FROM " + n.part("_undone") + " u WHERE u.owner = o.owner AND u.broken) ORDER BY o.i) " +
			"FROM unnest($1::bytea[]) WITH ORDINALITY AS o(owner, i)", params: []uint32{oidByteas}},
		"lockstep_inspect": {sql: "SELECT " + described + " FROM " + n.part("") + " l WHERE l.key = $1 AND l.until > clock_timestamp()", params: []uint32{oidBytea}},
		// A page is so many rows, held or not, so that none takes long. Its last one comes in any
		// case: the next page begins there.
		"lockstep_list": {sql: "WITH page AS MATERIALIZED (SELECT * FROM " + n.part("") + " l WHERE l.key > $1 AND l.key >= $2 " +
			"AND ($3::bytea IS NULL OR l.key < $3) ORDER BY l.key LIMIT $4) " +
			"SELECT " + described + ", l.key, l.until > clock_timestamp() FROM page l " +
			"WHERE l.until > clock_timestamp() OR l.key = (SELECT p.key FROM page p ORDER BY p.key DESC LIMIT 1) ORDER BY l.key",
			params: []uint32{oidBytea, oidBytea, oidBytea, oidInt8}},
	}
	all["lockstep_ping"] = statement{sql: n.ping(all)}
	return all
}

// ping inserts, updates and selects what a lock does, and calls the functions, of and for no row: the
// server refuses what is not there, what the role may not do, and to write at all, as it would to a
// lock. To call them for one row would leave a trace, and to ask the catalogue about each is more to
// get wrong.
func (n names) ping(all map[string]statement) string {
	types := map[uint32]string{oidBool: "bool", oidBytea: "bytea", oidInt8: "bigint", oidInt4: "int", oidByteas: "bytea[]"}
	calls := []string{n.function("next") + "(NULL::bigint)", n.function("micros") + "(NULL::bigint)"}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		// A role need not be allowed to break, and one that sweeps is enough.
		if name == "lockstep_break" || name == "lockstep_sweep" || all[name].function == "" {
			continue
		}
		var args []string
		for _, p := range all[name].params {
			args = append(args, "NULL::"+types[p])
		}
		calls = append(calls, fmt.Sprintf("%s(%s)", n.function(all[name].function), strings.Join(args, ", ")))
	}
	return "WITH i AS (INSERT INTO " + n.part("") + " (key, owner, token, session, until, rev) SELECT '', '', 0, false, '-infinity', 0 WHERE false), " +
		"u AS (UPDATE " + n.part("") + " SET wanted = wanted WHERE false) " +
		"SELECT " + strings.Join(calls, ", ") + " FROM " + n.part("_undone") + " WHERE false"
}

// described is what there is to say of a hold. A token is the server's clock at the grant, unless
// that was behind an earlier token.
const described = "l.owner, l.token, l.session, " +
	"CASE WHEN isfinite(l.until) THEN ceil(extract(epoch FROM l.until - clock_timestamp()) * 1000000)::bigint END, " +
	"CASE WHEN l.said_by = l.owner THEN l.identity END, CASE WHEN l.said_by = l.owner THEN l.note END, " +
	"floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint - l.token"

// exec runs one statement on a connection, in one round trip, and returns its row; nil if
// there is none.
func (b *backend) exec(ctx context.Context, conn *pgconn.PgConn, name string, params [][]byte) ([][]byte, error) {
	rows, err := b.execAll(ctx, conn, name, params)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0], nil
}

func (b *backend) execAll(ctx context.Context, conn *pgconn.PgConn, name string, params [][]byte) ([][][]byte, error) {
	s := b.statements[name]
	var rr *pgconn.ResultReader
	if prepared, ok := conn.CustomData()[preparedKey].(map[string]*pgconn.StatementDescription); ok {
		rr = conn.ExecStatement(ctx, prepared[name], params, binaryFormat, binaryFormat)
	} else {
		rr = conn.ExecParams(ctx, s.sql, params, s.params, binaryFormat, binaryFormat)
	}
	result := rr.Read()
	return result.Rows, result.Err
}

var binaryFormat = []int16{pgx.BinaryFormatCode}

// errTimeout is why a call ended that had waited for Config.Timeout.
var errTimeout = errors.New("no answer in time")

// call asks once, on a connection of the pool, and returns the row, or nil. params gets the time that
// is left.
func (b *backend) call(ctx context.Context, name string, params func(left time.Duration) [][]byte) ([][]byte, error) {
	rows, err := b.callAll(ctx, b.config.Timeout, name, params)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0], nil
}

// callAll is call for several rows, with a timeout of its own.
//
// What the server rolled back because transactions met is asked again: with isolation
// serializable as the default, that happens whenever two clients want one key.
func (b *backend) callAll(ctx context.Context, timeout time.Duration, name string, params func(left time.Duration) [][]byte) ([][][]byte, error) {
	if b.ctx.Err() != nil {
		return nil, driver.ErrClosed
	}
	deadline := time.Now().Add(timeout)
	within, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d // and ctx's own timer ends the call: one of ours could be early
	}
	defer context.AfterFunc(b.ctx, cancel)()
	repaired := false
	for again := 1; ; again++ {
		conn, err := b.connection(within)
		if err != nil {
			return nil, b.classify(ctx, &notSent{err})
		}
		left := time.Until(deadline)
		if left <= 0 {
			conn.Release()
			return nil, b.classify(ctx, &notSent{context.DeadlineExceeded})
		}
		rows, err := b.execAll(within, conn.Conn().PgConn(), name, params(left))
		if wrongPeer(err) {
			b.moved(conn)
		}
		conn.Release()
		switch {
		case err == nil:
			return rows, nil
		case transient(err) && within.Err() == nil:
			pause(within, again)
		case missing(err) && b.config.Migrate == MigrateAuto && !repaired && within.Err() == nil:
			// The database was put back to a state without the schema, or is a new one.
			repaired = true
			if err := b.repair(within); err != nil {
				return nil, b.classify(ctx, &notSent{err})
			}
		default:
			return nil, b.classify(ctx, err)
		}
	}
}

// transient: the transaction was rolled back because of another one, and may succeed now.
func transient(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01")
}

// pause is the backoff before the nth repetition.
func pause(ctx context.Context, n int) {
	timer := time.NewTimer(rand.N(time.Duration(min(n, 16)) * time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// connection takes a connection that the server has not closed.
func (b *backend) connection(ctx context.Context) (*pgxpool.Conn, error) {
	for {
		conn, err := b.pool.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		if alive(conn.Conn().PgConn().Conn()) {
			return conn, nil
		}
		closeConn(conn.Conn()) // Release then drops it
		conn.Release()
	}
}

// moved gives up the connections to a server that does not take writes: the next ones are made
// anew, to one that does.
func (b *backend) moved(conn *pgxpool.Conn) {
	closeConn(conn.Conn())
	if b.ours {
		b.pool.Reset()
	}
	b.attendant.reconnect()
}

// repair creates the schema anew.
func (b *backend) repair(ctx context.Context) error {
	b.repairing.Lock()
	defer b.repairing.Unlock()
	conn, err := b.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if ok, err := b.names.installed(ctx, conn.Conn()); err != nil || ok {
		return err // somebody else has
	}
	return b.migrate(ctx, conn.Conn())
}
