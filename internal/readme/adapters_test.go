package readme

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/go-co-op/gocron/v2"
	"github.com/pressly/goose/v3"
	"github.com/robfig/cron/v3"

	certlock "github.com/lockstep-go/lockstep/adapters/certmagic"
	cronlock "github.com/lockstep-go/lockstep/adapters/cron"
	gocronlock "github.com/lockstep-go/lockstep/adapters/gocron"
	gooselock "github.com/lockstep-go/lockstep/adapters/goose"
	otellock "github.com/lockstep-go/lockstep/adapters/otel"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/elect"
)

func openObserved(ctx context.Context) (*locker.Locker, error) {
	observer, err := otellock.New(otellock.Options{}) // to the global MeterProvider and TracerProvider
	if err != nil {
		return nil, err
	}
	return locker.Open(ctx, locker.Config{Type: "memory", Observer: observer})
}

func Example_otel() {
	ctx := context.Background()
	l, err := openObserved(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Close(ctx))
	// Output: <nil>
}

func schedule(l *locker.Locker, report func(ctx context.Context, token uint64) error) (gocron.Scheduler, error) {
	locks := gocronlock.NewLocker(l, gocronlock.Options{AtLeast: 10 * time.Second})
	s, err := gocron.NewScheduler(gocron.WithDistributedLocker(locks))
	if err != nil {
		return nil, err
	}
	_, err = s.NewJob(gocron.CronJob("*/5 * * * *", false),
		gocron.NewTask(locks.Task("report", func(ctx context.Context, lease *locker.Lease) error {
			return report(ctx, lease.Token()) // ctx ends with the lock
		})),
		gocron.WithName("report")) // the name of the lock, the same in all processes
	return s, err
}

func scheduleOnLeader(ctx context.Context, l *locker.Locker) (gocron.Scheduler, error) {
	leader, err := gocronlock.NewElector(ctx, l, "scheduler", elect.Options{})
	if err != nil {
		return nil, err
	}
	return gocron.NewScheduler(gocron.WithDistributedElector(leader))
}

func Example_gocron() {
	ctx := context.Background()
	l := open(ctx, "gocron")
	defer l.Close(ctx)
	s, err := schedule(l, func(context.Context, uint64) error { fmt.Println("reporting"); return nil })
	if err != nil {
		panic(err)
	}
	onLeader, err := scheduleOnLeader(ctx, l)
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Shutdown(), onLeader.Shutdown())
	// Output: <nil> <nil>
}

func nightly(ctx context.Context, l *locker.Locker, c *cron.Cron, logger cron.Logger, report cronlock.Func) error {
	at3, err := cron.ParseStandard("CRON_TZ=UTC 0 3 * * *")
	if err != nil {
		return err
	}
	c.Schedule(at3, cronlock.Once(ctx, l, "report", at3, logger)(report))
	return nil
}

func Example_cron() {
	ctx := context.Background()
	l := open(ctx, "cron")
	defer l.Close(ctx)
	c := cron.New()
	fmt.Println(nightly(ctx, l, c, cron.DiscardLogger, func(context.Context) error { fmt.Println("reporting"); return nil }))
	for range 2 {
		c.Entries()[0].WrappedJob.Run()
	}
	// Output:
	// <nil>
	// reporting
}

func secure(l *locker.Locker, storage certmagic.Storage) error {
	locked, err := certlock.New(storage, l, certlock.Options{})
	if err != nil {
		return err
	}
	certmagic.Default.Storage = locked
	return nil
}

func Example_certmagic() {
	ctx := context.Background()
	l := open(ctx, "certmagic")
	defer l.Close(ctx)
	before := certmagic.Default.Storage
	defer func() { certmagic.Default.Storage = before }()
	fmt.Println(secure(l, &certmagic.FileStorage{}))
	// Output: <nil>
}

func migrate(ctx context.Context, l *locker.Locker, db *sql.DB, migrations fs.FS) error {
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations,
		goose.WithLocker(gooselock.New(l, gooselock.Options{Key: "migrate/billing"})))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx) // locker.ErrLost is in it if the lock was lost on the way
	return err
}

func Example_goose() {
	ctx := context.Background()
	l := open(ctx, "goose")
	defer l.Close(ctx)
	fmt.Println(migrate(ctx, l, nil, os.DirFS(".")))
	// Output: db must not be nil
}

// manager is as sigs.k8s.io/controller-runtime's: it works until ctx ends, and cannot be started
// again.
type manager struct {
	started bool
	stop    func()
}

func (m *manager) Start(ctx context.Context) error {
	if m.started {
		return errors.New("manager already started")
	}
	m.started = true
	fmt.Println("the controllers work")
	m.stop()
	<-ctx.Done()
	fmt.Println("the controllers have stopped")
	return nil
}

func Example_manager() {
	ctx, stop := context.WithCancel(context.Background())
	l := open(ctx, "manager")
	defer l.Close(context.Background())
	newManager := func() (*manager, error) { return &manager{stop: stop}, nil }
	err := elect.Run(ctx, l, "operator", func(ctx context.Context, _ *elect.Term) error {
		mgr, err := newManager() // a new one for each term
		if err != nil {
			return err
		}
		return mgr.Start(ctx)
	}, elect.Options{TTL: time.Minute, StopWithin: 30 * time.Second})
	fmt.Println(err)
	// Output:
	// the controllers work
	// the controllers have stopped
	// context canceled
}
