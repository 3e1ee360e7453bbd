package adapters

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	cronlock "github.com/lockstep-go/lockstep/adapters/cron"
	"github.com/lockstep-go/lockstep/locker"
)

// record is a cron.Logger.
type record struct {
	mu    sync.Mutex
	infos []string
	errs  []error
}

func (r *record) Info(msg string, _ ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.infos = append(r.infos, msg)
}

func (r *record) Error(err error, _ string, _ ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

func (r *record) count() (skips, errs int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.infos {
		if m == "skip" {
			skips++
		}
	}
	return skips, len(r.errs)
}

// Of three processes, whose clocks are apart by more than the job takes, one runs it per slot.
func TestCron(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		for name, schedule := range map[string]cron.Schedule{
			"spec":  must(cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse("* * * * * *")),
			"every": cron.Every(time.Second),
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var mu sync.Mutex
				runs := map[string]int{} // by the key of the slot
				logger := &record{}
				for i := range 3 {
					l := f.open(nil)
					c := cron.New(cron.WithLogger(cron.DiscardLogger))
					wrapped := cronlock.Once(t.Context(), l, name, schedule, logger)(cronlock.Func(func(ctx context.Context) error {
						lease, _ := locker.FromContext(ctx)
						mu.Lock()
						defer mu.Unlock()
						runs[lease.Key()]++
						return nil
					}))
					c.Schedule(schedule, cron.FuncJob(func() {
						time.Sleep(time.Duration(i) * 100 * time.Millisecond) // a clock that is late
						wrapped.Run()
					}))
					c.Start()
					t.Cleanup(func() { <-c.Stop().Done() })
				}
				eventually(t, "three slots, with two skips each", func() bool {
					mu.Lock()
					defer mu.Unlock()
					skips, _ := logger.count()
					return len(runs) >= 3 && skips >= 6
				})
				mu.Lock()
				defer mu.Unlock()
				for slot, n := range runs {
					if n != 1 {
						t.Errorf("%s ran %d times", slot, n)
					}
				}
				if _, errs := logger.count(); errs > 0 {
					t.Error(logger.errs)
				}
			})
		}
	})
}

func must(s cron.Schedule, err error) cron.Schedule {
	if err != nil {
		panic(err)
	}
	return s
}

// The ctx of a Func ends with the lock, and its error is logged.
func TestCronLoss(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		if f.lose == nil {
			return // nobody can take a lock in memory away
		}
		logger, cause := &record{}, make(chan error, 1)
		schedule := must(cron.ParseStandard("0 3 * * *"))
		job := cronlock.Func(func(ctx context.Context) error {
			if s, ok := locker.FromContext(ctx); !ok || s.Token() == 0 {
				t.Error("the ctx has no lease")
			}
			f.lose("")
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return errors.New("stopped")
		})
		chain := cron.NewChain(cron.Recover(logger), cronlock.Once(t.Context(), f.open(nil), "loss", schedule, logger))
		chain.Then(job).Run()
		if err := <-cause; !errors.Is(err, locker.ErrLost) {
			t.Errorf("the ctx ended with %v", err)
		}
		if _, errs := logger.count(); errs != 1 || !errors.Is(logger.errs[0], locker.ErrLost) {
			t.Errorf("the log has %v", logger.errs)
		}
	})
}

// A failure frees the slot; a success does not. A schedule far apart has its slot in the past.
func TestCronSlot(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		for _, spec := range []string{"0 3 * * *", "0 0 29 2 *", "*/7 * * * *", "@every 1h", "CRON_TZ=Asia/Tokyo 30 2 1 * *"} {
			logger, runs := &record{}, 0
			schedule := must(cron.ParseStandard(spec))
			for i := range 3 {
				cronlock.Once(t.Context(), f.open(nil), spec, schedule, logger)(cronlock.Func(func(context.Context) error {
					if runs++; i == 0 {
						return fmt.Errorf("the first fails")
					}
					return nil
				})).Run()
			}
			if skips, errs := logger.count(); runs != 2 || skips != 1 || errs != 1 {
				t.Errorf("%s: %d runs, %d skips, %d errors", spec, runs, skips, errs)
			}
		}
		logger := &record{}
		cronlock.Once(t.Context(), f.open(nil), "never", must(cron.ParseStandard("0 0 31 2 *")), logger)(cron.FuncJob(func() { t.Error("it ran") })).Run()
		if _, errs := logger.count(); errs != 1 {
			t.Errorf("the log has %v", logger.errs)
		}
	})
}
