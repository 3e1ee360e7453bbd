package proof

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// rightsValidity is short, since a session that is not renewed has to end, and long enough for the
// others, which have to live through many preparations at a time.
const rightsValidity = 3 * time.Second

// granting: Postgres refuses two changes of one object's rights at the same time.
var granting sync.Mutex

func (w pgWorld) grant(sql string) {
	w.Helper()
	granting.Lock()
	defer granting.Unlock()
	w.do(sql)
}

// A pgRole is a client whose role has only the rights of docs/postgres.md, or one less.
type pgRole struct {
	pgWorld
	name string
	c    postgres.Config
	b    driver.Backend // opened while the role had all of them
	seq  uint64
}

// role makes a role with the rights.
func (w pgWorld) role(t *testing.T, name string, grants []string) *pgRole {
	t.Helper()
	w.T = t
	r := &pgRole{pgWorld: w, name: name + "_" + w.db}
	w.grant("CREATE ROLE " + r.name + " LOGIN")
	t.Cleanup(func() { w.grant("DROP OWNED BY " + r.name + "; DROP ROLE " + r.name) })
	for _, g := range grants {
		w.grant("GRANT " + g + " TO " + r.name)
	}
	r.c = postgresConfig(w.srv.Addr(), w.db)
	r.c.User, r.c.Migrate, r.c.Validity, r.c.MaxConns = r.name, postgres.MigrateOff, rightsValidity, 2
	var err error
	if r.b, err = postgres.Open(t.Context(), r.c); err != nil {
		t.Fatalf("with all rights: %v", err)
	}
	t.Cleanup(func() { _ = r.b.Close(context.Background()) })
	return r
}

// request is one for a key of the role's own.
func (r *pgRole) request(key string, ttl time.Duration, hears driver.Listener) driver.Request {
	r.seq++
	return driver.Request{Key: r.name + " " + key, Owner: driver.Owner{Instance: [16]byte{1}, Seq: r.seq}, TTL: ttl, Hold: hears}
}

func holderOf(q driver.Request, g driver.Grant) driver.Holder {
	return driver.Holder{Key: q.Key, Owner: q.Owner, Token: g.Token, Session: q.TTL == 0}
}

// refusal is heard by a session whose renewals are refused.
type refusal chan error

func (r refusal) Lost(cause error) { r <- cause }

// A pgCall is one thing that a client asks of the database. It is prepared while the role has
// all of its rights.
type pgCall struct {
	name    string
	prepare func(t *testing.T, r *pgRole) (call func() error)
}

var pgCalls = []pgCall{
	{"opening", func(t *testing.T, r *pgRole) func() error {
		return func() error {
			b, err := postgres.Open(t.Context(), r.c)
			if err == nil {
				err = b.Close(context.Background())
			}
			return err
		}
	}},
	{"Lock of a new key", func(t *testing.T, r *pgRole) func() error {
		return func() error { return second(r.b.Acquire(t.Context(), r.request("new", time.Minute, ignore{}))) }
	}},
	{"Lock of a key with a row", func(t *testing.T, r *pgRole) func() error {
		q := r.request("used", time.Minute, ignore{})
		if err := r.b.Release(t.Context(), holderOf(q, r.take(t, q))); err != nil {
			t.Fatal(err)
		}
		return func() error { return second(r.b.Acquire(t.Context(), q)) }
	}},
	{"Lock of a key that is held", func(t *testing.T, r *pgRole) func() error {
		r.take(t, r.request("held", time.Minute, ignore{}))
		return func() error {
			return heldIs(r.b.Acquire(t.Context(), r.request("held", time.Minute, ignore{})))
		}
	}},
	{"waiting", func(t *testing.T, r *pgRole) func() error {
		q := r.request("waited for", time.Minute, ignore{})
		r.take(t, q)
		notifier, _ := driver.As[driver.Notifier](r.b)
		return func() error {
			defer notifier.Notify(q.Key, func() {})()
			return heldIs(r.b.Acquire(t.Context(), r.request("waited for", time.Minute, ignore{})))
		}
	}},
	{"Extend", func(t *testing.T, r *pgRole) func() error {
		q := r.request("extended", time.Minute, ignore{})
		g := r.take(t, q)
		return func() error { return second(r.b.Extend(t.Context(), holderOf(q, g), time.Minute)) }
	}},
	{"Unlock", func(t *testing.T, r *pgRole) func() error {
		q := r.request("unlocked", time.Minute, ignore{})
		g := r.take(t, q)
		return func() error { return r.b.Release(t.Context(), holderOf(q, g)) }
	}},
	{"taking back", func(t *testing.T, r *pgRole) func() error {
		q := r.request("taken back", time.Minute, ignore{})
		r.take(t, q)
		return func() error { return r.b.Release(t.Context(), holderOf(q, driver.Grant{})) }
	}},
	{"taking back what never came", func(t *testing.T, r *pgRole) func() error {
		q := r.request("never came", time.Minute, ignore{})
		return func() error {
			if err := r.b.Release(t.Context(), holderOf(q, driver.Grant{})); !errors.Is(err, driver.ErrLost) {
				return err
			}
			return nil
		}
	}},
	{"renewing", func(t *testing.T, r *pgRole) func() error {
		heard := make(refusal, 1)
		q := r.request("renewed", 0, heard)
		r.take(t, q)
		return func() error {
			select {
			case err := <-heard:
				return err
			case <-time.After(2 * rightsValidity):
				return nil
			}
		}
	}},
	{"Inspect", func(t *testing.T, r *pgRole) func() error {
		inspector, _ := driver.As[driver.Inspector](r.b)
		return func() error {
			_, _, err := inspector.Inspect(t.Context(), "k")
			return err
		}
	}},
	{"Ping", func(t *testing.T, r *pgRole) func() error {
		pinger, _ := driver.As[driver.Pinger](r.b)
		return func() error { return pinger.Ping(t.Context()) }
	}},
	{"sweeping", func(t *testing.T, r *pgRole) func() error {
		// Of which a client tells nobody.
		function := r.function("sweep")
		u := strings.Replace(r.srv.URL(r.db), "postgres@", r.name+"@", 1)
		conn, err := pgx.Connect(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return func() error {
			for {
				var n *int // nil while another role sweeps
				err := conn.QueryRow(t.Context(), "SELECT "+function+"(3600000000, 0, 1)").Scan(&n)
				if err != nil || n != nil {
					return err
				}
			}
		}
	}},
}

func (r *pgRole) take(t *testing.T, q driver.Request) driver.Grant {
	t.Helper()
	g, err := r.b.Acquire(t.Context(), q)
	if err != nil {
		t.Fatalf("with all rights: %v", err)
	}
	return g
}

// heldIs is nil for what somebody else holds.
func heldIs(_ driver.Grant, err error) error {
	if errors.Is(err, driver.ErrHeld) {
		return nil
	}
	return err
}

// rightsPage are the grants of docs/postgres.md and its table of what is refused without each.
func rightsPage(t *testing.T) (grants []string, without map[string][]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/postgres.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^GRANT (.+) TO app;`).FindAllStringSubmatch(string(text), -1) {
		grants = append(grants, m[1])
	}
	all := make([]string, len(pgCalls))
	for i, c := range pgCalls {
		all[i] = c.name
	}
	without = map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z]+)` on `([a-z_ ]+)` \\| (.+) \\|$").FindAllStringSubmatch(string(text), -1) {
		named, but := strings.CutPrefix(m[3], "everything but ")
		names := strings.Split(named, ", ")
		if named == "everything" {
			names, but = nil, true
		}
		for _, n := range names {
			if !slices.Contains(all, n) {
				t.Errorf("docs/postgres.md, without %s on %s: %q is none of %q", m[1], m[2], n, all)
			}
		}
		if but {
			names = slices.DeleteFunc(slices.Clone(all), func(n string) bool { return slices.Contains(names, n) })
		}
		without[m[1]+" ON "+m[2]] = names
	}
	return grants, without
}

// The grants of docs/postgres.md are enough, each single right in them is needed, and what is
// refused without it is what the page says.
func TestPostgresGrants(t *testing.T) {
	w := newPGWorld(t)
	w.open(nil) // installs the schema
	grants, without := rightsPage(t)
	var single []string
	for _, g := range grants {
		rights, on, _ := strings.Cut(g, " ON ")
		for _, right := range strings.Split(rights, ", ") {
			single = append(single, right+" ON "+on)
		}
	}
	if len(single) < 11 || len(without) != len(single) {
		t.Fatalf("docs/postgres.md grants %q, and says of %d what is refused without them", single, len(without))
	}
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		r := w.role(t, "all", grants)
		for _, c := range pgCalls {
			if err := c.prepare(t, r)(); err != nil {
				t.Errorf("%s, with all rights: %v", c.name, err)
			}
		}
	})
	for i, right := range single {
		t.Run(right, func(t *testing.T) {
			t.Parallel()
			want, ok := without[strings.Replace(strings.Replace(right, "SCHEMA ", "", 1), "lockstep.", "", 1)]
			if !ok {
				t.Fatal("docs/postgres.md does not say what is refused without it")
			}
			r := w.role(t, fmt.Sprint("less", i), grants)
			calls := make([]func() error, len(pgCalls))
			for i, c := range pgCalls {
				calls[i] = c.prepare(t, r)
			}
			r.grant("REVOKE " + right + " FROM " + r.name)
			var got []string
			for i, c := range pgCalls {
				err := calls[i]()
				if err == nil {
					continue
				}
				got = append(got, c.name)
				var e *pgconn.PgError
				switch {
				case c.name == "renewing": // the store's word is in the cause of the session's end
					if !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), "SQLSTATE 42501") {
						t.Errorf("%s: %v", c.name, err)
					}
				case !errors.As(err, &e) || e.Code != "42501" || c.name != "sweeping" && !errors.Is(err, driver.ErrRefused):
					t.Errorf("%s: %v; want ErrRefused and SQLSTATE 42501", c.name, err)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("refused are\n%q, docs/postgres.md says\n%q", got, want)
			}
		})
	}
}

// With migrate: auto a role must be able to create the schema, the first time and no longer.
func TestPostgresCreateRight(t *testing.T) {
	w := newPGWorld(t)
	role := "creates_" + w.db
	w.do("CREATE ROLE " + role + " LOGIN")
	t.Cleanup(func() { w.do("DROP OWNED BY " + role + "; DROP ROLE " + role) })
	c := postgresConfig(w.srv.Addr(), w.db)
	c.User = role
	open := func() error {
		b, err := postgres.Open(t.Context(), c)
		if err == nil {
			err = b.Close(context.Background())
		}
		return err
	}
	if err := open(); !errors.Is(err, driver.ErrRefused) || !strings.Contains(err.Error(), "SQLSTATE 42501") {
		t.Errorf("without CREATE: %v", err)
	}
	w.do("GRANT CREATE ON DATABASE " + w.db + " TO " + role)
	if err := open(); err != nil {
		t.Fatalf("with CREATE: %v", err)
	}
	w.do("REVOKE CREATE ON DATABASE " + w.db + " FROM " + role)
	if err := open(); err != nil {
		t.Errorf("when the schema is there: %v", err)
	}
}

// Where EXECUTE was revoked from everybody, it is refused, and can be granted.
func TestPostgresExecuteRight(t *testing.T) {
	w := newPGWorld(t)
	w.open(nil)
	grants, _ := rightsPage(t)
	r := w.role(t, "executes", grants)
	w.do("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA lockstep FROM PUBLIC")
	_, err := r.b.Acquire(t.Context(), r.request("k", time.Minute, ignore{}))
	if !errors.Is(err, driver.ErrRefused) || !strings.Contains(err.Error(), "permission denied for function") {
		t.Errorf("without EXECUTE: %v", err)
	}
	w.do("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lockstep TO " + r.name)
	for _, c := range pgCalls {
		if err := c.prepare(t, r)(); err != nil {
			t.Errorf("%s, with EXECUTE: %v", c.name, err)
		}
	}
}
