package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/redis/rueidis"
)

// An administrator is somebody with direct access to the store and no respect for
// locks. No program that uses Lockstep does what this file does.
type administrator struct {
	option  rueidis.ClientOption // how the backend connects to a Redis
	connect *pgx.ConnConfig      // how it does to a Postgres
}

// config reads the configuration and, where it is of a Redis or a Postgres, looks over the backend's
// shoulder for the address and the credentials. What source says is laid over what the
// program gives, so the hook stays whatever the source is.
func (a *administrator) config(source string) (locker.Config, error) {
	cfg, err := locker.LoadConfig(source)
	if err != nil {
		return cfg, err
	}
	switch cfg.Type {
	case "redis":
		look := func(option *rueidis.ClientOption) { a.option = *option }
		return locker.Config{Type: cfg.Type, Backend: redis.Config{ClientOption: look}}.Load(source)
	case "postgres", "postgresql", "pgx":
		look := func(config *pgx.ConnConfig) { a.connect = config.Copy() }
		return locker.Config{Type: cfg.Type, Backend: postgres.Config{ConnConfig: look}}.Load(source)
	}
	return cfg, nil
}

// place says where the store is. Addresses are no secret; everything else may be.
func (a *administrator) place() string {
	if a.connect != nil {
		return " at " + net.JoinHostPort(a.connect.Host, strconv.Itoa(int(a.connect.Port)))
	}
	if len(a.option.InitAddress) == 0 {
		return ""
	}
	return " at " + strings.Join(a.option.InitAddress, ", ")
}

// found is a lock that an administrator can delete.
type found interface {
	delete(ctx context.Context) error
	forget()
}

// find searches for the lock.
func (a *administrator) find(ctx context.Context, key string) (found, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if a.connect != nil {
		return a.findRow(ctx, key)
	}
	return a.findKey(ctx, key)
}

// row is a lock's row in Postgres, found by an administrator.
type row struct {
	conn  *pgx.Conn
	table string
	key   []byte
}

// findRow looks into all tables of the package backends/postgres, which it marks by a comment.
func (a *administrator) findRow(ctx context.Context, key string) (found, error) {
	conn, err := pgx.ConnectConfig(ctx, a.connect)
	if err != nil {
		return nil, err
	}
	r := &row{conn: conn, key: []byte(key)}
	rows, err := conn.Query(ctx, "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "+
		"WHERE c.relkind = 'r' AND obj_description(c.oid, 'pg_class') LIKE 'lockstep %'", pgx.QueryExecModeExec)
	var tables []string
	if err == nil {
		tables, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	for _, table := range tables {
		tag, err := conn.Exec(ctx, "SELECT FROM "+table+" WHERE key = $1", pgx.QueryExecModeExec, r.key)
		if err == nil && tag.RowsAffected() == 1 {
			r.table = table
			return r, nil
		}
	}
	r.forget()
	return nil, errors.Join(errors.New("no table of locks has it"), err)
}

func (r *row) delete(ctx context.Context) error {
	_, err := r.conn.Exec(ctx, "DELETE FROM "+r.table+" WHERE key = $1", pgx.QueryExecModeExec, r.key)
	return err
}

func (r *row) forget() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = r.conn.Close(ctx)
}

// redisKey is a lock's key in Redis, found by an administrator.
type redisKey struct {
	client rueidis.Client
	name   string
}

// findKey searches for the lock's key as redis-cli --scan does. The package
// backends/redis documents the layout: prefix, ":0:", and the key as a hash tag.
func (a *administrator) findKey(ctx context.Context, key string) (found, error) {
	option := a.option
	option.DisableCache = true
	client, err := rueidis.NewClient(option)
	if err != nil {
		return nil, err
	}
	pattern := "*:0:{:" + strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(key) + "}"
	for _, node := range client.Nodes() {
		for cursor := uint64(0); ; {
			page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(pattern).Count(1000).Build()).AsScanEntry()
			if err != nil {
				client.Close()
				return nil, fmt.Errorf("SCAN: %w", err)
			}
			if len(page.Elements) > 0 {
				return &redisKey{client, page.Elements[0]}, nil
			}
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	client.Close()
	return nil, errors.New("SCAN did not find it")
}

func (k *redisKey) delete(ctx context.Context) error {
	return k.client.Do(ctx, k.client.B().Del().Key(k.name).Build()).Error()
}

func (k *redisKey) forget() { k.client.Close() }
