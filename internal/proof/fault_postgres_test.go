package proof

import (
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// faultValidity leaves room for a round trip of 600 ms, for which a case asks, within each
// third of it.
const faultValidity = 4 * time.Second

// brokenPostgres is a Postgres of one case's own, which the case may break. It is started when
// it is first asked for: most cases never do.
type brokenPostgres struct {
	t    *testing.T
	conf postgres.Config // but for the address and the database
	opts []pgtest.Option

	clock shiftedClock

	once  sync.Once
	srv   *pgtest.Server
	admin *postgresAdmin
}

func (b *brokenPostgres) server() *pgtest.Server {
	b.once.Do(func() {
		opts := append([]pgtest.Option{pgtest.Fast()}, b.opts...)
		b.srv = pgtest.Start(b.t, append(opts, b.clock.postgres()...)...)
		b.admin = &postgresAdmin{srv: b.srv, db: b.srv.Database(b.t), table: tableOf(b.conf)}
	})
	return b.srv
}

func (b *brokenPostgres) open(tb testing.TB, addr string) driver.Backend {
	tb.Helper()
	b.server()
	c := postgresConfig(addr, b.admin.db)
	c.Validity, c.Schema, c.ApplicationName = faultValidity, b.conf.Schema, "fault"
	return openPostgres(tb, c)
}

func (b *brokenPostgres) client(tb testing.TB) (driver.Backend, conformance.Line) {
	proxy := pgtest.NewProxy(tb, b.server().Addr())
	// All that is asked for is one of the backend's statements.
	const statement = "lockstep_"
	return b.open(tb, proxy.Addr()), conformance.Line{
		Latency:      func(d time.Duration) { proxy.Latency(d, d) },
		BlackHole:    proxy.BlackHole,
		LoseReplies:  func(n int) { proxy.LoseReplies(n, statement) },
		LoseRequests: func(n int) { proxy.LoseRequests(n, statement) },
		Cut:          proxy.Reset,
		Sever:        proxy.Sever,
		Heal:         proxy.Heal,
	}
}

// postgresInject is what can be broken of one Postgres.
func postgresInject(t *testing.T, c postgres.Config, opts []pgtest.Option) *conformance.Inject {
	b := &brokenPostgres{t: t, conf: c, opts: opts}
	return &conformance.Inject{
		Open:          func(tb testing.TB) driver.Backend { return b.open(tb, b.server().Addr()) },
		Client:        b.client,
		Pause:         func(tb testing.TB) { b.server().Pause(tb) },
		Resume:        func(tb testing.TB) { b.server().Resume(tb) },
		Kill:          func(tb testing.TB) { b.server().Kill(tb) },
		Restart:       func(tb testing.TB) { b.server().RestartEmpty(tb) },
		Refuse:        func(tb testing.TB) { b.server(); b.admin.full(tb) },
		RefusesUnseen: true,
		Accept:        func(tb testing.TB) { b.server(); b.admin.hasRoom(tb) },
		Disconnect:    func(tb testing.TB) { b.server().Terminate(tb, "fault") },
		Delete:        func(tb testing.TB, key string) { b.server(); b.admin.delete(tb, key) },
		Overwrite:     func(tb testing.TB, key string) { b.server(); b.admin.overwrite(tb, key) },
		Wipe:          func(tb testing.TB) { b.server(); b.admin.wipe(tb) },
		Skew:          b.clock.set,
		Clock: func(tb testing.TB) time.Time {
			return pgtest.Value[time.Time](tb, b.server(), "postgres", "SELECT clock_timestamp()")
		},
		Process: func(tb testing.TB) conformance.Process {
			cmd := exec.Command(os.Args[0], "-test.run=^TestPostgresHolderProcess$")
			b.server()
			cmd.Env = append(os.Environ(), postgresHolderEnv+"="+b.server().Addr()+"/"+b.admin.db)
			return conformance.Command(tb, cmd)
		},
	}
}
