package postgres

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// Config says which Postgres, and how. The zero value is what the environment of libpq says
// (PGHOST, PGUSER, PGSERVICE, …), or else a server on this machine. SetDefaults lists the
// defaults, Validate what is allowed, LoadEnv the environment variables.
//
// As a URL: postgres://user:password@host:5432/database?sslmode=verify-full, with several hosts
// as postgres://host1,host2:5433/database, or a unix socket as
// postgres:///database?host=/run/postgresql. Fields with the names of libpq's parameters mean
// what they mean there.
//
//lockgen:together sslcert sslkey
//lockgen:check checkHost
//lockgen:check checkListen
type Config struct {
	// Host are the servers, each a host, host:port, or the directory of a unix socket, which
	// begins with /. The first one that TargetSessionAttrs accepts is taken.
	Host []string `json:"host" lockstep:"connection"`

	// User and Password are those of the role.
	User     string        `json:"user" lockstep:"connection"`
	Password driver.Secret `json:"password" lockstep:"connection"`

	// Database is the name of the database.
	Database string `json:"dbname" lockstep:"connection"`

	//lockgen:pattern ^(disable|allow|prefer|require|verify-ca|verify-full)?$ -- is not one of disable, allow, prefer, require, verify-ca, verify-full

	// SSLMode is how the connection is encrypted: disable, allow, prefer, require, verify-ca or
	// verify-full. Empty: what PGSSLMODE or the service says, or else prefer.
	SSLMode string `json:"sslmode" lockstep:"connection"`

	// SSLRootCert is a PEM file with the authorities to trust.
	SSLRootCert string `json:"sslrootcert" lockstep:"connection"`
	// SSLCert and SSLKey are PEM files with the client's own certificate and key, SSLPassword
	// is the key's.
	SSLCert     string        `json:"sslcert" lockstep:"connection"`
	SSLKey      string        `json:"sslkey" lockstep:"connection"`
	SSLPassword driver.Secret `json:"sslpassword" lockstep:"connection"`

	//lockgen:default read-write
	//lockgen:enum read-write primary any

	// TargetSessionAttrs is what a server must be: "read-write" refuses a standby, and the next host
	// is tried.
	TargetSessionAttrs string `json:"target_session_attrs" lockstep:"connection"`

	//lockgen:default lockstep
	//lockgen:maxlen 63
	//lockgen:pattern ^[ -~]*$ -- holds a character that Postgres does not keep

	// ApplicationName is shown by pg_stat_activity.
	ApplicationName string `json:"application_name"`

	//lockgen:default 5
	//lockgen:min 1
	//lockgen:max 300

	// ConnectTimeout bounds one attempt to connect, in seconds.
	ConnectTimeout int `json:"connect_timeout"`

	// Options are command line options for the server, such as "-c statement_timeout=10s".
	Options string `json:"options" lockstep:"connection"`

	// Service is a section of the file ServiceFile, or of libpq's usual one, that holds more of
	// these parameters.
	Service     string `json:"service" lockstep:"connection"`
	ServiceFile string `json:"servicefile" lockstep:"connection"`

	// PassFile is a file of passwords instead of libpq's usual one.
	PassFile string `json:"passfile" lockstep:"connection"`

	//lockgen:default 8
	//lockgen:min 1
	//lockgen:max 1000

	// MaxConns is how many connections the pool has at most, beside the one that listens.
	MaxConns int `json:"pool_max_conns"`

	//lockgen:default lockstep
	//lockgen:maxlen 63
	//lockgen:not \x00 -- holds a NUL byte
	//lockgen:not \$lockstep\$ -- holds what ends the body of a function in the script

	// Schema is the schema of the table. Clients exclude each other only if they use the same Schema
	// and Table.
	Schema string `json:"schema"`

	//lockgen:default locks
	//lockgen:maxlen 40
	//lockgen:not \x00 -- holds a NUL byte
	//lockgen:not \$lockstep\$ -- holds what ends the body of a function in the script

	// Table is the table's name. The names of all else that the backend creates in Schema begin with
	// it.
	Table string `json:"table"`

	//lockgen:default MigrateAuto
	//lockgen:enum MigrateAuto MigrateOff

	// Migrate says who creates the schema: "auto", this backend, where it is not there or of an
	// older version; "off", somebody else, with what Script returns.
	Migrate string `json:"migrate"`

	// Unlogged creates the table without a write-ahead log: faster, and empty after a crash of
	// the server, when all that was held is lost. A table that is there stays as it is.
	Unlogged bool `json:"unlogged"`

	//lockgen:default 10s
	//lockgen:min 500ms
	//lockgen:max 1h

	// Validity is how long a session's key outlives its process: it is renewed three times
	// within it. A process that cannot reach Postgres for so long loses its sessions.
	Validity time.Duration `json:"validity"`

	//lockgen:default 5s
	//lockgen:min 10ms
	//lockgen:max 5m

	// Timeout bounds one operation: the waiting for a connection, and for the reply.
	Timeout time.Duration `json:"timeout"`

	//lockgen:default ListenAuto
	//lockgen:enum ListenAuto ListenOn ListenOff

	// Listen is how waiters and holders hear of changes: "on", by LISTEN and NOTIFY; "off", by
	// polling; "auto", by polling where a pooler stands in between and ListenHost is empty.
	Listen string `json:"listen"`

	// ListenHost is Host for the one connection that listens, where the others lead through
	// PgBouncer or another pooler, which does not pass notifications on.
	ListenHost []string `json:"listenHost"`

	//lockgen:default PoolerAuto
	//lockgen:enum PoolerAuto PoolerOn PoolerOff

	// Pooler says whether a pooler stands in between that gives each transaction another
	// connection, so that no statement may be prepared. "auto" finds out.
	Pooler string `json:"pooler"`

	// ConnConfig, where it is not nil, has the last word on the options of each connection,
	// for what the fields above do not cover (a dialer, rotating credentials, a tls.Config). The
	// connection that listens keeps its own OnNotification and BuildContextWatcherHandler.
	ConnConfig func(*pgx.ConnConfig) `json:"-"`
}

// The values that Migrate takes.
const (
	MigrateAuto = "auto"
	MigrateOff  = "off"
)

// The values that Listen takes.
const (
	ListenAuto = "auto"
	ListenOn   = "on"
	ListenOff  = "off"
)

// The values that Pooler takes.
const (
	PoolerAuto = "auto"
	PoolerOn   = "on"
	PoolerOff  = "off"
)

// UnmarshalURL implements driver.URLConfig.
func (c *Config) UnmarshalURL(u *url.URL) error {
	if u.User != nil {
		c.User = u.User.Username()
		password, _ := u.User.Password()
		c.Password = driver.NewSecret(password)
	}
	if u.Host != "" {
		c.Host = strings.Split(u.Host, ",")
	}
	if db := strings.TrimPrefix(u.Path, "/"); db != "" {
		c.Database = db
	}
	return nil
}

// address takes a host apart. Neither part need be given.
func address(s string) (host, port string, err error) {
	if strings.HasPrefix(s, "/") { // a directory; what follows the last colon may be the port
		if i := strings.LastIndexByte(s, ':'); i >= 0 {
			return s[:i], s[i+1:], nil
		}
		return s, "", nil
	}
	if !strings.Contains(s, ":") || strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		return strings.Trim(s, "[]"), "", nil
	}
	return net.SplitHostPort(s)
}

func checkHosts(field string, hosts []string) error {
	for i, h := range hosts {
		field := fmt.Sprintf("%s[%d]", field, i)
		if strings.ContainsAny(h, "@, ") || strings.Contains(h, "//") {
			return driver.Invalid(field, "want a host, host:port or the directory of a socket; user and password have fields of their own (not shown: it may hold a secret)")
		}
		_, port, err := address(h)
		n, bad := strconv.Atoi(port)
		if err != nil || port != "" && (bad != nil || n < 1 || n > 65535) {
			return driver.Invalid(field, "%v is not a host, or host:port with a port from 1 to 65535, or the directory of a socket", h)
		}
	}
	return nil
}

func (c *Config) checkHost() error { return checkHosts("host", c.Host) }

func (c *Config) checkListen() error {
	if err := checkHosts("listenHost", c.ListenHost); err != nil {
		return err
	}
	if c.Listen == ListenOff && len(c.ListenHost) > 0 {
		return driver.Invalid("listen", "%v, but listenHost is %v", c.Listen, c.ListenHost[0]).With("listenHost")
	}
	return nil
}

// poolConfig is what c means to pgx.
func (c Config) poolConfig(hosts []string) (*pgxpool.Config, error) {
	var b strings.Builder
	set := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s='%s' ", name, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value))
		}
	}
	var names, ports []string
	for _, h := range hosts {
		host, port, err := address(h)
		if err != nil {
			return nil, fmt.Errorf("%w: host: %w", driver.ErrInvalidConfig, err)
		}
		names, ports = append(names, host), append(ports, port)
	}
	if len(hosts) > 0 {
		// Also where it is empty: the ports of PGPORT are not those of these hosts.
		fmt.Fprintf(&b, "host='%s' port='%s' ", strings.Join(names, ","), strings.Join(ports, ","))
	}
	set("user", c.User)
	set("dbname", c.Database)
	set("sslmode", c.SSLMode)
	set("sslrootcert", c.SSLRootCert)
	set("sslcert", c.SSLCert)
	set("sslkey", c.SSLKey)
	set("target_session_attrs", c.TargetSessionAttrs)
	set("application_name", c.ApplicationName)
	set("connect_timeout", strconv.Itoa(c.ConnectTimeout))
	set("options", c.Options)
	set("service", c.Service)
	set("servicefile", c.ServiceFile)
	set("passfile", c.PassFile)
	set("pool_max_conns", strconv.Itoa(c.MaxConns))
	pc, err := parse(b.String(), c.SSLPassword)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", driver.ErrInvalidConfig, err)
	}
	if c.Password != (driver.Secret{}) { // not in the text, which pgx repeats in errors
		pc.ConnConfig.Password = c.Password.Reveal()
	}
	return pc, nil
}

// parse never has the password of the key in the text: pgx's errors hold all of it, and what they
// show of it is masked up to the first space only.
func parse(text string, sslPassword driver.Secret) (*pgxpool.Config, error) {
	if sslPassword == (driver.Secret{}) {
		return pgxpool.ParseConfig(text)
	}
	// pgxpool cannot be told a password. So it leaves the key alone, and pgx reads that.
	conn, err := pgx.ParseConfigWithOptions(text+"sslpassword='' ", pgx.ParseConfigOptions{ParseConfigOptions: pgconn.ParseConfigOptions{
		GetSSLPassword: func(context.Context) string { return sslPassword.Reveal() },
	}})
	if err != nil {
		return nil, err
	}
	pc, err := pgxpool.ParseConfig(text + "sslcertmode='disable' ")
	if err != nil {
		return nil, err
	}
	conn.RuntimeParams = pc.ConnConfig.RuntimeParams // those of conn include the pool's
	pc.ConnConfig = conn
	return pc, nil
}
