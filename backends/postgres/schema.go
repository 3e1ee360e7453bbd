package postgres

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// version is that of schema.sql. The names of the functions end with it, so that clients of
// several versions work side by side: a version that changes a function gives it a new name,
// and leaves the old one.
const version = 2

//go:embed schema.sql
var schemaSQL string

// Script is the SQL that creates what the backend needs in a database, for those who do that
// themselves (Config.Migrate "off"). It may be run again, on an older version too. Of c it
// takes Schema, Table and Unlogged.
func Script(c Config) string {
	c.SetDefaults()
	return newNames(c).script(c.Unlogged)
}

// functions are all that schema.sql creates.
var functions = []string{"next", "micros", "acquire", "acquire_all", "extend", "release", "takeback", "renew", "check", "free", "sweep", "changed", "break"}

// names are those of the schema's parts, quoted.
type names struct {
	schema, table string // as in Config
	channel       string // of NOTIFY
}

func newNames(c Config) names {
	// A hash, because a channel's name has at most 63 bytes.
	hash := sha256.Sum256([]byte(c.Schema + "\x00" + c.Table))
	return names{schema: c.Schema, table: c.Table, channel: "lockstep_" + hex.EncodeToString(hash[:12])}
}

// part is the qualified name of table, function or trigger.
func (n names) part(suffix string) string {
	return pgx.Identifier{n.schema, n.table + suffix}.Sanitize()
}

// function is the qualified name of one of this version.
func (n names) function(name string) string { return n.part(fmt.Sprintf("_%s_%d", name, version)) }

func (n names) comment() string { return fmt.Sprintf("lockstep %d", version) }

// literal quotes a string. A backslash is a character like others, with or without
// standard_conforming_strings.
func literal(s string) string {
	if strings.Contains(s, `\`) {
		return "E'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(s) + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

func (n names) script(unlogged bool) string {
	kind := ""
	if unlogged {
		kind = "UNLOGGED "
	}
	mutex := sha256.Sum256([]byte("lockstep schema"))
	pairs := []string{
		"@mutex@", fmt.Sprint(int64(binary.BigEndian.Uint64(mutex[:8]) >> 1)),
		"@schema@", pgx.Identifier{n.schema}.Sanitize(),
		"@schema_text@", literal(pgx.Identifier{n.schema}.Sanitize()),
		"@unlogged@", kind,
		"@locks@", n.part(""),
		"@undone@", n.part("_undone"),
		"@locks_text@", literal(n.part("")),
		"@undone_text@", literal(n.part("_undone")),
		"@undone_name@", strings.ReplaceAll(n.table+"_undone", "\n", " "),
		"@swept@", n.part("_swept"),
		"@channel@", literal(n.channel),
		"@comment@", literal(n.comment()),
	}
	for _, f := range functions {
		pairs = append(pairs, "@"+f+"@", n.function(f))
	}
	for _, trigger := range []string{"on_update", "on_delete", "on_truncate"} {
		pairs = append(pairs, "@"+trigger+"@", pgx.Identifier{n.table + "_" + trigger}.Sanitize())
	}
	return strings.NewReplacer(pairs...).Replace(schemaSQL)
}

// ask is the question for the version of what the database has: NULL also where a part of this
// version is not there. Somebody may have dropped a single function, and who calls it then is not
// helped by all the others.
func (n names) ask() string {
	var all []string
	for _, f := range functions {
		all = append(all, literal(fmt.Sprintf("%s_%s_%d", n.table, f, version)))
	}
	return fmt.Sprintf("SELECT CASE WHEN to_regclass(%s) IS NOT NULL AND to_regclass(%s) IS NOT NULL AND %d = ("+
		"SELECT count(DISTINCT proname) FROM pg_proc WHERE pronamespace = to_regnamespace(%s) AND proname = ANY (ARRAY[%s]::name[])) "+
		"THEN obj_description(to_regclass(%s), 'pg_class') END",
		literal(n.part("_undone")), literal(n.part("_swept")), len(functions),
		literal(pgx.Identifier{n.schema}.Sanitize()), strings.Join(all, ", "), literal(n.part("")))
}

// current says whether comment, which is the answer, is that of this version, or of a later one.
func (n names) current(comment string) bool {
	var found int
	_, err := fmt.Sscanf(comment, "lockstep %d", &found)
	return err == nil && found >= version
}

// installed says whether the database has what this version needs, or more.
func (n names) installed(ctx context.Context, conn *pgx.Conn) (bool, error) {
	results, err := conn.PgConn().Exec(ctx, n.ask()).ReadAll()
	if err != nil || len(results) != 1 || len(results[0].Rows) != 1 {
		return false, err
	}
	return n.current(string(results[0].Rows[0][0])), nil
}

// create creates the schema, or says that it is not there.
func (b *backend) create(ctx context.Context, conn *pgx.Conn) error {
	if b.config.Migrate != MigrateAuto {
		return fmt.Errorf("%w: migrate: %q, but %s, or a part that belongs to it, is not there, or of an older version: run what postgres.Script returns", driver.ErrInvalidConfig, b.config.Migrate, b.names.part(""))
	}
	return b.migrate(ctx, conn)
}

// migrate runs the script.
func (b *backend) migrate(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.PgConn().Exec(ctx, b.names.script(b.config.Unlogged)).ReadAll()
	if err != nil && !conn.IsClosed() {
		if _, ended := conn.PgConn().Exec(ctx, "ROLLBACK").ReadAll(); ended != nil {
			return errors.Join(err, ended)
		}
	}
	return err
}

// missing: the server says that a part of the schema is not there.
func missing(err error) bool {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "42883", "42P01", "3F000": // undefined function, table, schema
		return true
	}
	return false
}
