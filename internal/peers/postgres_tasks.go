package peers

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

var postgresTasks = map[string]task{
	"refused": typed(refusedLatency),
	"sent":    typed(sentSoFar),
	"listen":  typed(listen),
	"notify":  typed(notify),
}

// refusedLatency is how long attempts at a key take that another client holds.
func refusedLatency(c *childState, a Pairs) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	key := "held:" + strconv.Itoa(os.Getpid())
	if len(c.keys) == 0 { // the first round
		holder, err := openLocks(ctx, c.order.Locks, c.order.Server)
		if err != nil {
			return nil, err
		}
		if holder.lease != nil {
			_, err = holder.lease(key, time.Hour)
		} else {
			_, err = holder.lock(ctx, key)
		}
		if err != nil {
			return nil, err
		}
		c.keys = []string{key}
	}
	return latencyOf(a, func(ctx context.Context, _ int) error { return l.refused(ctx, key) })
}

// Sent is what a client has sent so far.
type Sent struct{ Statements, Trips int64 }

func sentSoFar(c *childState, _ struct{}) (any, error) {
	l, err := c.open()
	if err != nil {
		return nil, err
	}
	var s Sent
	s.Statements, s.Trips = l.sent()
	return s, nil
}

// Told is what a bare hand-off writes besides.
type Told struct{ Writes bool }

// channelOf is one of its own: who listens must not hear what an earlier scenario has sent.
func (t Told) channelOf() string {
	if t.Writes {
		return channel + "_writes"
	}
	return channel
}

// notify sends a notification, and returns when it began to.
func notify(c *childState, a Told) (any, error) {
	conn, err := c.bare(a)
	if err != nil {
		return nil, err
	}
	text := "SELECT pg_notify($1, 'x')"
	if a.Writes {
		text = "WITH u AS (UPDATE bare SET n = n + 1 WHERE key = 'from') " + text
	}
	at := time.Now()
	_, err = conn.Exec(context.Background(), text, a.channelOf())
	return at, err
}

// listen waits for the next notification, writes if it is to, and returns when that is done.
func listen(c *childState, a Told) (any, error) {
	conn, err := c.bare(a)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if _, err := conn.Exec(ctx, "LISTEN "+a.channelOf()); err != nil {
		return nil, err
	}
	if _, err := conn.WaitForNotification(ctx); err != nil {
		return nil, err
	}
	if a.Writes {
		_, err = conn.Exec(ctx, "UPDATE bare SET n = n + 1 WHERE key = 'to'")
	}
	return time.Now(), err
}

const (
	bareTable = `CREATE TABLE IF NOT EXISTS bare (key text PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 70)`
	bareRows  = `DO $$ BEGIN PERFORM pg_advisory_xact_lock(1); ` + bareTable + `; INSERT INTO bare VALUES ('from', 0), ('to', 0) ON CONFLICT DO NOTHING; END $$`
)

// bare is a connection to the order's server, which has what a hand-off writes.
func (c *childState) bare(a Told) (*pgx.Conn, error) {
	if c.conn != nil {
		return c.conn, nil
	}
	conn, err := pgx.Connect(context.Background(), postgresURL(c.order.Server))
	if err == nil && a.Writes {
		_, err = conn.Exec(context.Background(), bareRows)
	}
	c.conn = conn
	return conn, err
}
