package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/locker"
)

// postgresStore is the PostgreSQL that is examined.
type postgresStore struct {
	*examination
	conn     *pgx.Conn
	config   postgresConfig
	settings map[string]string // of pg_settings
}

// postgresConfig are the fields of postgres.Config that the doctor needs to know.
type postgresConfig struct {
	Schema     string   `json:"schema"`
	Table      string   `json:"table"`
	Migrate    string   `json:"migrate"`
	Validity   string   `json:"validity"`
	ListenHost []string `json:"listenHost"`
}

// examinePostgres looks at everything over a connection of its own: a store that the backend
// refuses to open is the one that most needs a doctor.
func examinePostgres(ctx context.Context, s *store) (*examination, error) {
	p := &postgresStore{examination: &examination{Store: "PostgreSQL", Verdict: note}}
	var to *pgx.ConnConfig
	cfg, err := s.load(locker.Config{Type: "postgres", Backend: postgres.Config{ConnConfig: func(c *pgx.ConnConfig) {
		if to == nil { // the pool's; the other one is that which listens
			to = c.Copy()
		}
	}}})
	if err != nil {
		return nil, err
	}
	p.config = postgresConfig{Schema: "lockstep", Table: "locks", Migrate: postgres.MigrateAuto, Validity: "10s"}
	if err := shown(cfg, &p.config); err != nil {
		return nil, err
	}
	l, openErr := locker.Open(ctx, cfg)
	if openErr == nil {
		defer closeLocker(l)
	}
	if to == nil {
		return nil, openErr
	}
	to.ValidateConnect = nil // a standby is to be looked at, too
	to.DefaultQueryExecMode = pgx.QueryExecModeExec
	ctx, cancel := context.WithTimeout(ctx, 3*doctorTimeout)
	defer cancel()
	if p.conn, err = pgx.ConnectConfig(ctx, to); err != nil {
		if openErr == nil {
			openErr = err
		}
		return nil, openErr
	}
	defer p.conn.Close(ctx)
	if openErr != nil {
		p.add(finding{Severity: critical, Check: "open", Found: wordsOf(openErr), Means: "programs with this configuration do not start", Do: "see the other findings"})
	} else {
		p.tryLock(ctx, l)
	}
	return p.examination, p.look(ctx)
}

func (p *postgresStore) look(ctx context.Context) error {
	first, clockErr := p.readClock(ctx)
	began := time.Now()
	if err := p.readSettings(ctx); err != nil {
		return &exitError{exitUnavailable, err}
	}
	p.version()
	p.durability(ctx)
	p.standby(ctx)
	p.pooler(ctx)
	p.limits(ctx)
	if p.table(ctx) {
		p.rights(ctx)
		p.bloat(ctx)
	}
	p.ways(ctx)
	const apart = time.Second
	select {
	case <-time.After(apart - time.Since(began)):
	case <-ctx.Done():
	}
	second, err := p.readClock(ctx)
	if err = errors.Join(clockErr, err); err != nil {
		p.unseen("clock", "", "its clock's offset", err)
	} else {
		p.clock("", first, second)
	}
	return nil
}

// ask is one row of one question.
func (p *postgresStore) ask(ctx context.Context, sql string, args []any, to ...any) error {
	return p.conn.QueryRow(ctx, sql, args...).Scan(to...)
}

func (p *postgresStore) readClock(ctx context.Context) (clockReading, error) {
	return readClock(func() (now time.Time, err error) {
		err = p.ask(ctx, "SELECT clock_timestamp()", nil, &now)
		return now, err
	})
}

// readSettings reads what holds for this user in this database: ALTER ROLE may have changed it.
func (p *postgresStore) readSettings(ctx context.Context) error {
	p.settings = map[string]string{}
	rows, err := p.conn.Query(ctx, "SELECT name, setting FROM pg_settings")
	if err != nil {
		return err
	}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		p.settings[name] = value
		return nil
	})
	return err
}

func (p *postgresStore) version() {
	f := finding{Severity: fine, Check: "version", Found: "PostgreSQL " + p.settings["server_version"]}
	var n int
	if _, err := fmt.Sscan(p.settings["server_version_num"], &n); err == nil && n < 120000 {
		f.Severity = critical
		f.Means = "the backend's statements need PostgreSQL 12"
		f.Do = "upgrade"
	}
	p.add(f)
}

func (p *postgresStore) durability(ctx context.Context) {
	clauses := []string{"FLT-004", "MX-001"}
	before := len(p.Findings)
	if p.settings["fsync"] == "off" {
		p.add(finding{Severity: critical, Check: "durability", Found: "fsync is off", Clauses: clauses,
			Means: "a crash of the machine may destroy the database, and with it every lock", Do: "fsync = on; off is for tests"})
	}
	if p.settings["synchronous_commit"] == "off" {
		p.add(finding{Severity: warning, Check: "durability", Found: "synchronous_commit is off for this user", Clauses: clauses,
			Means: "a crash of the server loses the last operations: a lock that was granted then is free, and its holder hears of it only at its next word", Do: "ALTER ROLE … SET synchronous_commit = on; or fencing tokens"})
	}
	if p.settings["full_page_writes"] == "off" {
		p.add(finding{Severity: warning, Check: "durability", Found: "full_page_writes is off", Clauses: clauses,
			Means: "a crash of the machine may leave torn pages", Do: "full_page_writes = on, unless the file system writes pages whole"})
	}
	var kind string
	err := p.ask(ctx, "SELECT relpersistence::text FROM pg_class WHERE oid = to_regclass($1)", []any{p.part("")}, &kind)
	if err == nil && kind == "u" {
		p.add(finding{Severity: warning, Check: "durability", Found: "the table is unlogged", Clauses: clauses,
			Means: "a crash of the server empties it: all holds are lost, and a standby has no table to be promoted with",
			Do:    "ALTER TABLE " + p.part("") + " SET LOGGED; or fencing tokens"})
	}
	if len(p.Findings) == before {
		p.add(finding{Severity: fine, Check: "durability", Found: "every grant is on disk before it is answered"})
	}
}

func (p *postgresStore) standby(ctx context.Context) {
	var recovering bool
	if err := p.ask(ctx, "SELECT pg_is_in_recovery()", nil, &recovering); err != nil {
		p.unseen("standby", "", "whether this is a standby", err)
		return
	}
	if recovering {
		p.add(finding{Severity: critical, Check: "standby", Found: "this is a standby", Clauses: []string{"ERR-002"},
			Means: "it refuses writes: no lock can be taken", Do: "configure the primary, or all hosts: the first that takes writes is used"})
		return
	}
	if p.settings["default_transaction_read_only"] == "on" {
		p.add(finding{Severity: critical, Check: "standby", Found: "default_transaction_read_only is on for this user", Clauses: []string{"ERR-002"},
			Means: "every operation writes: no lock can be taken", Do: "ALTER ROLE … SET default_transaction_read_only = off"})
	}
	var all, synchronous int
	err := p.ask(ctx, "SELECT count(*), count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) FROM pg_stat_replication", nil, &all, &synchronous)
	f := finding{Severity: fine, Check: "failover", Found: fmt.Sprintf("%d standbys, %d of them synchronous", all, synchronous)}
	switch {
	case err != nil:
		p.unseen("failover", "", "the standbys", err)
		return
	case p.settings["synchronous_standby_names"] != "" && synchronous == 0:
		f.Severity = critical
		f.Found = "synchronous_standby_names is set, and no synchronous standby is connected"
		f.Means = "every operation waits for one, until its timeout"
		f.Clauses = []string{"ERR-002"}
		f.Do = "bring the standby back"
	case all == 0:
		f.Found = "no standby is connected: there is no failover, and nothing that one could lose"
	case synchronous == 0:
		f.Severity = warning
		f.Means = "a standby that is promoted may lack the newest grants, so that there are two holders, and the newest releases"
		f.Clauses = []string{"MX-001", "TOK-001"}
		f.Do = "make a standby synchronous (synchronous_standby_names); or fencing tokens"
	case p.settings["synchronous_commit"] == "local" || p.settings["synchronous_commit"] == "off":
		f.Severity = warning
		f.Found += ", but synchronous_commit is " + p.settings["synchronous_commit"] + " for this user"
		f.Means = "nobody waits for the synchronous standby: promoted, it may lack the newest grants"
		f.Clauses = []string{"MX-001", "TOK-001"}
		f.Do = "ALTER ROLE … SET synchronous_commit = on"
	}
	p.add(f)
}

// pooler: a pooler cannot tell its clients which server process they will have.
func (p *postgresStore) pooler(ctx context.Context) {
	var pid uint32
	if err := p.ask(ctx, "SELECT pg_backend_pid()", nil, &pid); err != nil {
		return
	}
	switch {
	case pid == p.conn.PgConn().PID():
		p.add(finding{Severity: fine, Check: "pooler", Found: "no pooler stands in between"})
	case len(p.config.ListenHost) > 0:
		p.add(finding{Severity: fine, Check: "pooler", Found: "a pooler stands in between, and listenHost leads past it"})
	default:
		p.add(finding{Severity: warning, Check: "pooler", Found: "a pooler in transaction mode stands in between, and listenHost is empty", Clauses: []string{"LOSS-003", "WAIT-001"},
			Means: "notifications do not come through: waiters look every 20 ms, and a loss is noticed at the next renewal or the deadline", Do: "listenHost = the server itself, for the one connection that listens"})
	}
}

// limits are settings that end what must not be ended.
func (p *postgresStore) limits(ctx context.Context) {
	for _, name := range []string{"statement_timeout", "idle_session_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} {
		var ms int
		if _, err := fmt.Sscan(p.settings[name], &ms); err != nil || ms == 0 {
			continue
		}
		d := time.Duration(ms) * time.Millisecond
		f := finding{Severity: note, Check: "limits", Found: fmt.Sprintf("%s is %s for this user", name, short(d))}
		if name == "statement_timeout" && d < time.Second || name == "idle_session_timeout" {
			f.Severity = warning
			f.Means = "operations, or the connection that listens, are cut short: losses and releases are heard of late"
			f.Clauses = []string{"LOSS-003", "WAIT-001"}
			f.Do = "ALTER ROLE … SET " + name + " = 0"
		}
		p.add(f)
	}
	var used, most int
	err := p.ask(ctx, "SELECT count(*), current_setting('max_connections')::int FROM pg_stat_activity WHERE backend_type = 'client backend'", nil, &used, &most)
	if err == nil && used*10 > most*9 {
		p.add(finding{Severity: warning, Check: "connections", Found: fmt.Sprintf("%d of %d connections are taken", used, most),
			Means: "a client that cannot connect renews nothing, and loses its sessions", Clauses: []string{"LOSS-001"}, Do: "raise max_connections, or put a pooler in between"})
	}
}

// part is the quoted name of the table, or of what begins with its name.
func (p *postgresStore) part(suffix string) string {
	return pgx.Identifier{p.config.Schema, p.config.Table + suffix}.Sanitize()
}

// table says whether the table is there, or may be made.
func (p *postgresStore) table(ctx context.Context) bool {
	var there, mayUse, mayCreate bool
	err := p.ask(ctx, `SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2),
		coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1), true),
		has_database_privilege(current_database(), 'CREATE')`, []any{p.config.Schema, p.config.Table}, &there, &mayUse, &mayCreate)
	switch {
	case err != nil:
		p.unseen("table", "", "the table "+p.part(""), err)
	case there && !mayUse:
		p.lacks("USAGE ON SCHEMA " + pgx.Identifier{p.config.Schema}.Sanitize())
	case there:
		p.add(finding{Severity: fine, Check: "table", Found: p.part("") + " is there"})
		return true
	case p.config.Migrate != postgres.MigrateAuto:
		p.add(finding{Severity: critical, Check: "table", Found: p.part("") + " is not there, and migrate is " + p.config.Migrate,
			Means: "programs do not start", Do: "run what postgres.Script returns"})
	case !mayCreate:
		p.add(finding{Severity: critical, Check: "table", Found: p.part("") + " is not there, and the user may not create it",
			Means: "programs do not start", Do: "GRANT CREATE ON DATABASE, the first time; or run what postgres.Script returns"})
	}
	return false
}

func (p *postgresStore) lacks(right string) {
	p.add(finding{Severity: critical, Check: "rights", Found: "the user lacks " + right, Means: "locks are refused (SQLSTATE 42501)",
		Clauses: []string{"ERR-002"}, Do: "GRANT " + right + " TO " + pgx.Identifier{p.conn.Config().User}.Sanitize()})
}

// rights looks at each right of docs/postgres.md.
func (p *postgresStore) rights(ctx context.Context) {
	before := len(p.Findings)
	for _, want := range []struct{ suffix, rights string }{
		{"", "SELECT INSERT UPDATE DELETE"}, {"_undone", "SELECT INSERT UPDATE DELETE"}, {"_swept", "SELECT UPDATE"},
	} {
		for _, right := range strings.Fields(want.rights) {
			var has *bool // null: there is no such table
			err := p.ask(ctx, "SELECT has_table_privilege(to_regclass($1), $2)", []any{p.part(want.suffix), right}, &has)
			switch {
			case err != nil:
				p.unseen("rights", "", right+" ON "+p.part(want.suffix), err)
			case has == nil:
				p.add(finding{Severity: critical, Check: "table", Found: p.part(want.suffix) + " is not there", Means: "locks are refused", Do: "run what postgres.Script returns"})
			case !*has && want.suffix == "_swept":
				p.add(finding{Severity: note, Check: "rights", Found: "the user lacks " + right + " ON " + p.part(want.suffix),
					Means: "this role does not sweep: another one has to, or the table grows"})
			case !*has:
				p.lacks(right + " ON " + p.part(want.suffix))
			}
		}
	}
	rows, err := p.conn.Query(ctx, `SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
		WHERE n.nspname = $1 AND left(p.proname, length($2)) = $2 AND NOT has_function_privilege(p.oid, 'EXECUTE')`, p.config.Schema, p.config.Table+"_")
	if err == nil {
		var name string
		_, err = pgx.ForEachRow(rows, []any{&name}, func() error {
			if strings.Contains(name, "_break_") {
				p.add(finding{Severity: fine, Check: "rights", Found: "the user can break no hold, which is for operators: " + name})
			} else {
				p.lacks("EXECUTE ON FUNCTION " + name)
			}
			return nil
		})
	}
	if err != nil {
		p.unseen("rights", "", "the rights to functions", err)
	}
	if len(p.Findings) == before {
		p.add(finding{Severity: fine, Check: "rights", Found: "the user has each right that it needs"})
	}
}

// bloat is what the table is full of beside locks.
func (p *postgresStore) bloat(ctx context.Context) {
	var live, dead, bytes int64
	var horizon *float64
	err := p.ask(ctx, `SELECT s.n_live_tup, s.n_dead_tup, pg_total_relation_size(s.relid),
		(SELECT max(extract(epoch FROM now() - xact_start))::float8 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend')
		FROM pg_stat_all_tables s WHERE s.relid = to_regclass($1)`, []any{p.part("")}, &live, &dead, &bytes, &horizon)
	if err != nil {
		p.unseen("bloat", "", "the table's size", err)
		return
	}
	f := finding{Severity: fine, Check: "bloat", Found: fmt.Sprintf("%d rows, %d dead ones, %s", live, dead, mib(bytes))}
	if dead > 10_000 && dead > 5*live {
		f.Severity = warning
		f.Means = "every operation reads past dead rows; vacuum does not keep up"
		f.Do = "VACUUM " + p.part("") + ", and see what keeps it from working: long transactions, autovacuum off"
	}
	p.add(f)
	var options *string
	if err := p.ask(ctx, "SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = to_regclass($1)", []any{p.part("")}, &options); err == nil &&
		(p.settings["autovacuum"] == "off" || options != nil && strings.Contains(*options, "autovacuum_enabled=false")) {
		p.add(finding{Severity: warning, Check: "bloat", Found: "autovacuum is off", Means: "the table grows with every operation", Do: "autovacuum = on"})
	}
	if horizon != nil && *horizon > 600 {
		p.add(finding{Severity: warning, Check: "bloat", Found: fmt.Sprintf("a transaction has been open for %s", short(time.Duration(*horizon*float64(time.Second)))),
			Means: "while it lasts no dead row can be removed: the table of locks grows, and each operation gets slower", Do: "find it in pg_stat_activity, and end it"})
	}
}

// ways measures a round trip.
func (p *postgresStore) ways(ctx context.Context) {
	const times = 200
	validity, _ := time.ParseDuration(p.config.Validity)
	var all latencies
	for range times {
		began := time.Now()
		if _, err := p.conn.Exec(ctx, "SELECT 1"); err != nil {
			return
		}
		all = append(all, time.Since(began))
	}
	p.latency("latency", "", all, validity/3)
}
