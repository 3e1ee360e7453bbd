package proof

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// A pgLane is a lane that leads to a Postgres.
type pgLane struct {
	s       *soak
	way     pgWay
	db      string
	proxies [3]*pgtest.Proxy
	disk    string // what can become full

	mu  sync.Mutex
	now *pgtest.Server // the primary
}

// pgWay is what is particular about a lane.
type pgWay int

const (
	plainWay        pgWay = iota
	serializableWay       // transactions are serializable by default
	promotedWay           // standbys are promoted
	fullWay               // its disk is small, and becomes full
	pgWays
)

func newPGLane(s *soak, way pgWay) *pgLane {
	l := &pgLane{s: s, way: way}
	opts := []pgtest.Option{pgtest.Fast()}
	switch way {
	case serializableWay:
		opts = append(opts, pgtest.Param("default_transaction_isolation", "serializable"))
	case fullWay:
		if l.disk = smallDisk(s.t); l.disk != "" {
			opts = append(opts, pgtest.In(l.disk), pgtest.Param("max_wal_size", "16MB"))
		}
	}
	l.now = pgtest.Start(s.t, opts...)
	l.db = l.now.Database(s.t)
	for i := range l.proxies {
		l.proxies[i] = pgtest.NewProxy(s.t, l.now.Addr())
	}
	return l
}

func (l *pgLane) srv() *pgtest.Server {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// smallDisk is a file system of its own, or "" where this process may not mount one. The soak's
// summary then has no full disk.
func smallDisk(t *testing.T) string {
	dir, err := os.MkdirTemp("", "soak-disk-") // not TempDir, which another user cannot reach
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=192m,mode=755", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Logf("no small disk: mount: %v %s", err, out)
		return ""
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Logf("umount: %v %s", err, out)
		}
	})
	return dir
}

// target is a target whose faults begin when its first client is open, and end with t.
func (l *pgLane) target(t *testing.T) *conformance.Target {
	c := postgresConfig("", l.db)
	c.Schema = fmt.Sprintf("soak-%x-%d", processID, targets.Add(1))
	// Short against the faults, so that many a session is lost and many an outcome unknown.
	c.ApplicationName, c.Validity, c.Timeout, c.ConnectTimeout = c.Schema, time.Second, 500*time.Millisecond, 1
	var mu sync.Mutex
	opened := 0
	through := func(p *pgtest.Proxy) postgres.Config {
		own := c
		own.Host = []string{p.Addr()}
		return own
	}
	open := func(tb testing.TB) driver.Backend {
		mu.Lock()
		own := through(l.proxies[opened%len(l.proxies)])
		opened++
		mu.Unlock()
		b, err := patiently(func() (driver.Backend, error) { return postgres.Open(context.Background(), own) })
		if err != nil {
			tb.Fatalf("opening Postgres: %v", err)
		}
		return b
	}
	table := tableOf(c)
	target := &conformance.Target{Backend: open(t), Peer: open, Delete: func(tb testing.TB, key string) {
		l.s.fault(faultDelete)
		for began := time.Now(); ; { // the server may be down
			err := l.srv().Exec(l.db, "DELETE FROM "+table+" WHERE key = "+literal(key))
			if err == nil {
				return
			}
			if time.Since(began) > 20*time.Second {
				tb.Fatalf("DELETE: %v", err)
			}
		}
	}}
	var opens []func() (*locker.Locker, error)
	for _, p := range l.proxies {
		opens = append(opens, func() (*locker.Locker, error) {
			return patiently(func() (*locker.Locker, error) { return postgres.New(context.Background(), through(p), locker.Config{}) })
		})
	}
	t.Cleanup(l.s.believers("believed", opens))
	var networks []network
	for _, p := range l.proxies {
		networks = append(networks, p)
	}
	t.Cleanup(l.s.trouble(networks, "lockstep_", func(tr *trouble, r *rand.Rand) { l.server(tr, c.ApplicationName, table, r) })) // ends first
	return target
}

// patiently opens amid faults. None lasts for so long; but a connection takes several round trips,
// all of which have to come through.
func patiently[T any](open func() (T, error)) (T, error) {
	for began := time.Now(); ; {
		opened, err := open()
		if err == nil || time.Since(began) > time.Minute {
			return opened, err
		}
	}
}

// server is the trouble of the server, which is everybody's.
func (l *pgLane) server(tr *trouble, name, table string, r *rand.Rand) {
	const ms = time.Millisecond
	for tr.goOn(r, 300*ms, 2000*ms) {
		srv := l.srv()
		switch r.IntN(9) {
		case 0, 1:
			tr.s.fault(faultPause)
			srv.Pause(tr.s.t)
			tr.goOn(r, 100*ms, 700*ms)
			srv.Resume(tr.s.t)
		case 2, 3:
			tr.s.fault(faultTerminate)
			srv.Terminate(tr.s.t, name)
		case 4, 5:
			tr.s.fault(faultCancel)
			srv.CancelStatements(tr.s.t, name)
		case 6:
			tr.s.fault(faultRowLock)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			conn := srv.Admin(tr.s.t, l.db)
			if tx, err := conn.Begin(ctx); err == nil {
				_, _ = tx.Exec(ctx, "SELECT FROM "+table+" FOR UPDATE SKIP LOCKED")
				tr.goOn(r, 50*ms, 900*ms)
				_ = tx.Rollback(ctx)
			}
			_ = conn.Close(ctx)
			cancel()
		case 7:
			tr.s.fault(faultRestart)
			srv.Kill(tr.s.t)
			tr.goOn(r, 10*ms, 300*ms)
			srv.Restart(tr.s.t)
		case 8:
			switch {
			case l.way == promotedWay:
				l.promote(tr, r)
			case l.disk != "":
				l.fill(tr, r)
			}
		}
	}
}

// promote ends the primary and has a standby take its place. The standby is synchronous by then:
// docs/postgres.md says what to expect of another.
func (l *pgLane) promote(tr *trouble, r *rand.Rand) {
	t, old := tr.s.t, l.srv()
	standby := old.Standby(t, pgtest.Fast())
	old.Do(t, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	old.Do(t, "SELECT pg_reload_conf()")
	behind := func() bool {
		return !pgtest.Value[bool](t, old, "postgres", "SELECT coalesce(bool_or(sync_state = 'sync' AND flush_lsn >= pg_current_wal_flush_lsn()), false) FROM pg_stat_replication")
	}
	for began := time.Now(); behind(); {
		if time.Since(began) > 20*time.Second {
			t.Errorf("the standby does not catch up")
			break
		}
	}
	// By now each of the server's processes has read the setting.
	tr.goOn(r, 500*time.Millisecond, 1500*time.Millisecond)
	for behind() {
	}
	tr.s.fault(faultPromotion)
	old.Kill(t)
	standby.Promote(t)
	l.mu.Lock()
	l.now = standby
	l.mu.Unlock()
	for _, p := range l.proxies {
		p.Redirect(standby.Addr())
		p.Reset()
	}
	old.End()
}

// fill leaves no room on the server's disk for a while.
func (l *pgLane) fill(tr *trouble, r *rand.Rand) {
	tr.s.fault(faultFull)
	path := filepath.Join(l.disk, "filler")
	if f, err := os.Create(path); err == nil {
		_, _ = io.Copy(f, zeros{}) // until there is no room
		_ = f.Close()
	}
	tr.goOn(r, 100*time.Millisecond, 1500*time.Millisecond)
	if err := os.Remove(path); err != nil {
		tr.s.t.Errorf("making room: %v", err)
	}
	l.srv().Recover(tr.s.t)
}

type zeros struct{}

func (zeros) Read(data []byte) (int, error) { return len(data), nil }

// postgresFaults is faults on Postgres.
func (s *soak) postgresFaults(t *testing.T) {
	for way := pgWay(len(s.pgLanes)); way < pgWays; way++ {
		s.pgLanes = append(s.pgLanes, newPGLane(s, way))
	}
	kinds := []conformance.Kind{conformance.Lease, conformance.Session}
	if s.pgTurns++; s.pgTurns%2 == 0 {
		slices.Reverse(kinds)
	}
	var wg sync.WaitGroup
	for i, lane := range s.pgLanes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			t.Run(fmt.Sprint("lane-", i+1), func(t *testing.T) {
				conformance.Run(t, func(t *testing.T) *conformance.Target { return s.counted(t, lane.target(t)) },
					conformance.Only(fmt.Sprintf("%s/%s", linearizability, kinds[i%2])))
			})
		}()
	}
	wg.Wait()
}

// postgres is CONC-001 on a Postgres in order.
func (s *soak) postgres(t *testing.T) {
	srv := pgtest.Single(t)
	db := srv.Database(t)
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		return s.counted(t, postgresTarget(t, srv, db, postgresConfig(srv.Addr(), db), nil))
	}, conformance.Only(linearizability))
}
