package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
)

// configured is a backend that has connected to nothing yet.
func configured(t *testing.T, c Config, given *pgxpool.Pool) *backend {
	t.Helper()
	c.SetDefaults()
	b := &backend{config: c, pool: given, ours: given == nil}
	b.lines.conns = map[net.Conn]bool{}
	if err := b.configure(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.closePool)
	return b
}

// pool is a program's own, with the options that its text has, and connected to nothing.
func pool(t *testing.T, text string, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	pc, err := pgxpool.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(pc)
	}
	p, err := pgxpool.NewWithConfig(context.Background(), pc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func cancels(conn *pgconn.PgConn) ctxwatch.Handler {
	return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, CancelRequestDelay: time.Second, DeadlineDelay: time.Minute}
}

// ConnConfig has the last word, but the waiting for notifications is ended in the backend's own way,
// whatever the pool does.
func TestConnConfig(t *testing.T) {
	mine := errors.New("mine")
	own := configured(t, Config{Host: []string{"h"}, ConnConfig: func(cc *pgx.ConnConfig) {
		cc.ValidateConnect = func(context.Context, *pgconn.PgConn) error { return mine }
		cc.BuildContextWatcherHandler = cancels
	}}, nil)
	pooled := own.pool.Config().ConnConfig
	for name, cc := range map[string]*pgx.ConnConfig{"the pool": pooled, "the listener": own.dial} {
		if err := cc.ValidateConnect(t.Context(), nil); err != mine {
			t.Errorf("ValidateConnect of %s: %v", name, err)
		}
	}
	if h, ok := pooled.BuildContextWatcherHandler(&pgconn.PgConn{}).(*pgconn.CancelRequestContextWatcherHandler); !ok {
		t.Errorf("a context of the pool's ends by %T", h)
	}
	given := configured(t, Config{}, pool(t, "host=h", func(pc *pgxpool.Config) { pc.ConnConfig.BuildContextWatcherHandler = cancels }))
	for name, b := range map[string]*backend{"own": own, "given": given} {
		if h, ok := b.dial.BuildContextWatcherHandler(&pgconn.PgConn{}).(*pgconn.DeadlineContextWatcherHandler); !ok || h.DeadlineDelay != 0 {
			t.Errorf("%s pool: waiting for notifications ends by %#v", name, h)
		}
	}
	plain := configured(t, Config{Host: []string{"h"}}, nil).pool.Config().ConnConfig
	if h, ok := plain.BuildContextWatcherHandler(&pgconn.PgConn{}).(*pgconn.DeadlineContextWatcherHandler); !ok || h.DeadlineDelay != grace {
		t.Errorf("a context of the pool's ends by %#v", h)
	}
	if err := plain.ValidateConnect(t.Context(), nil); err != nil { // which asks the server, of which there is none here
		t.Error(err)
	}
	if configured(t, Config{Host: []string{"h", "i"}, TargetSessionAttrs: "any"}, nil).dial.ValidateConnect != nil {
		t.Error("any server is asked what it is")
	}
}

// The listener's hosts are spoken to as the given pool speaks to its own.
func TestGivenListenHost(t *testing.T) {
	for _, v := range []string{"PGHOST", "PGPORT", "PGSERVICE", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY", "PGTARGETSESSIONATTRS"} {
		t.Setenv(v, "")
	}
	to := []string{"db1:1", "db2:2"}
	for text, want := range map[string][]string{
		"host=pooler":                                              {"db1:1 any db1", "db1:1 plain", "db2:2 any db2", "db2:2 plain"}, // prefer
		"host=pooler sslmode=allow":                                {"db1:1 plain", "db1:1 any db1", "db2:2 plain", "db2:2 any db2"},
		"host=pooler sslmode=require":                              {"db1:1 any db1", "db2:2 any db2"},
		"host=pooler sslmode=verify-full":                          {"db1:1 verified db1", "db2:2 verified db2"},
		"host=10.0.0.1 sslmode=verify-full":                        {"db1:1 verified db1", "db2:2 verified db2"},
		"host=10.0.0.1 sslmode=require":                            {"db1:1 any ", "db2:2 any "},
		"host=pooler sslmode=disable":                              {"db1:1 plain", "db2:2 plain"},
		"host=pooler,pooler2 port=6432,6433 sslmode=verify-full":   {"db1:1 verified db1", "db2:2 verified db2"},
		"host=/run/pooler,pooler port=6432,6433 sslmode=verify-ca": {"db1:1 any db1", "db2:2 any db2"},
		"host=/run/pooler sslmode=disable":                         {"db1:1 any db1", "db1:1 plain", "db2:2 any db2", "db2:2 plain"},
	} {
		b := configured(t, Config{ListenHost: to}, pool(t, text, nil))
		if got := ways(b.dial); !slices.Equal(got, want) {
			t.Errorf("%s:\n%q, want\n%q", text, got, want)
		}
		if b.dial.ValidateConnect == nil {
			t.Errorf("%s: it takes a standby", text)
		}
	}
	for text, want := range map[string][]string{
		"host=pooler sslmode=verify-full": {"/run/db:5432 plain"},
		"host=/run/pooler":                {"/run/db:5432 plain"},
	} {
		b := configured(t, Config{ListenHost: []string{"/run/db"}}, pool(t, text, nil))
		if got := ways(b.dial); !slices.Equal(got, want) {
			t.Errorf("%s:\n%q, want\n%q", text, got, want)
		}
	}
	// A name that the program has set stays, and so does the pool's own configuration.
	own := pool(t, "host=pooler sslmode=verify-full", func(pc *pgxpool.Config) { pc.ConnConfig.TLSConfig.ServerName = "cert" })
	if got := ways(configured(t, Config{ListenHost: to}, own).dial); !slices.Equal(got, []string{"db1:1 verified cert", "db2:2 verified cert"}) {
		t.Errorf("%q", got)
	}
	if got := ways(own.Config().ConnConfig); !slices.Equal(got, []string{"pooler:5432 verified cert"}) {
		t.Errorf("the pool leads to %q", got)
	}
}

// ways are where cc leads, in order, and how.
func ways(cc *pgx.ConnConfig) (all []string) {
	for _, s := range servers(cc) {
		how := "plain"
		if conf := s.TLSConfig; conf != nil {
			how = "verified " + conf.ServerName
			if conf.InsecureSkipVerify {
				how = "any " + conf.ServerName
			}
		}
		all = append(all, fmt.Sprintf("%s:%d %s", s.Host, s.Port, how))
	}
	return all
}
