// Package cronlock runs a job of robfig/cron once per slot in a whole fleet, with package once.
//
// A lock that is held while the job runs would not do: every process fires, their clocks are apart,
// and a job that is shorter than that would run once in each. So what is locked is the slot, the time
// for which the schedule fired, and it stays taken when the job has ended.
//
// robfig/cron gives a job no ctx, no name and no slot. Hence Once asks for a name and the schedule,
// and [Func] is a job with a ctx.
package cronlock

import (
	"context"
	"errors"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/once"
)

// Func is a job with a ctx, which ends when the lock is lost, with the reason as its context.Cause;
// locker.FromContext finds the lease in it, with the fencing token. Its error frees the slot for
// other processes whose clocks are later, and is logged.
type Func func(ctx context.Context) error

// Run implements cron.Job, for a Func that runs without Once.
func (f Func) Run() { _ = f(context.Background()) }

// Once makes a wrapper that runs a job in one process per slot. name is the same in every process,
// and so is schedule, in one time zone; it is the one that the job is added with:
//
//	nightly, err := cron.ParseStandard("CRON_TZ=UTC 0 3 * * *")
//	…
//	c.Schedule(nightly, cronlock.Once(ctx, l, "report", nightly, logger)(cronlock.Func(report)))
//
// The slot is the latest time of schedule that is not after now; of one with a fixed interval
// (@every), which begins in each process when that starts, the nearest multiple of the interval. It
// stays taken for twice the time to the next slot, a minute at least, from the end of the job;
// once.AtLeast in opts changes that.
//
// ctx is that of all runs: with its end the running job's ends. The logger hears of skipped runs at
// Info, and of errors at Error. Nothing keeps the job of a slot from running beside that of an
// earlier slot that takes long: a Func can lock for that by itself. If the Func is inside of another
// wrapper, such as cron.Recover, that hides it: then it runs without a ctx, like any other job. Put
// those outside: cron.NewChain(cron.Recover(logger), cronlock.Once(…)).
func Once(ctx context.Context, l *locker.Locker, name string, schedule cron.Schedule, logger cron.Logger, opts ...once.Option) cron.JobWrapper {
	return func(job cron.Job) cron.Job {
		run := func(context.Context) error { job.Run(); return nil }
		if f, ok := job.(Func); ok {
			run = f
		}
		return cron.FuncJob(func() {
			slot, interval := slotOf(schedule, time.Now())
			if slot.IsZero() {
				logger.Error(locker.ErrInvalidArgument, "the schedule never fires", "job", name)
				return
			}
			// once refuses more than MaxTTL.
			atLeast := max(2*min(interval, locker.MaxTTL/2), time.Minute, l.Capabilities().MinTTL)
			all := append([]once.Option{once.AtLeast(atLeast)}, opts...)
			err := once.Do(ctx, l, name, slot, func(ctx context.Context, _ *locker.Lease) error { return run(ctx) }, all...)
			switch {
			case errors.Is(err, once.ErrDone), errors.Is(err, once.ErrRunning):
				logger.Info("skip", "job", name, "slot", slot, "why", err)
			case err != nil:
				logger.Error(err, "run", "job", name, "slot", slot)
			}
		})
	}
}

// slotOf is the slot that fires at now, or did last, and the time to the next one.
func slotOf(schedule cron.Schedule, now time.Time) (slot time.Time, interval time.Duration) {
	if every, ok := schedule.(cron.ConstantDelaySchedule); ok {
		return once.Slots(every.Delay).At(now), every.Delay
	}
	// A Schedule tells the next time only. Look back further and further until there is one.
	for back := time.Minute; back < 10*365*24*time.Hour; back *= 4 {
		next := schedule.Next(now.Add(-back))
		if next.IsZero() || next.After(now) {
			continue
		}
		for !next.IsZero() && !next.After(now) {
			slot = next
			next = schedule.Next(slot)
		}
		if next.IsZero() {
			return slot, 24 * time.Hour // it never fires again
		}
		return slot, next.Sub(slot)
	}
	return time.Time{}, 0
}
