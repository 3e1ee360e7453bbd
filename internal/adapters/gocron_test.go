package adapters

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/google/uuid"

	gocronlock "github.com/lockstep-go/lockstep/adapters/gocron"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/elect"
)

func scheduler(t *testing.T, opts ...gocron.SchedulerOption) gocron.Scheduler {
	t.Helper()
	s, err := gocron.NewScheduler(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func add(t *testing.T, s gocron.Scheduler, task any, opts ...gocron.JobOption) gocron.Job {
	t.Helper()
	// The runs are asked for by RunNow.
	j, err := s.NewJob(gocron.DurationJob(time.Hour), gocron.NewTask(task), append(opts, gocron.WithName("job"))...)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	return j
}

// A run is skipped while another scheduler runs the job, and gocron's listener hears why.
func TestGocronLocker(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		a, b := gocronlock.NewLocker(f.open(nil), gocronlock.Options{}), gocronlock.NewLocker(f.open(nil), gocronlock.Options{})
		began, end := make(chan uint64), make(chan struct{})
		ja := add(t, scheduler(t, gocron.WithDistributedLocker(a)), a.Task("job", func(_ context.Context, lease *locker.Lease) error {
			began <- lease.Token()
			<-end
			return nil
		}))
		skipped, ran := make(chan error), make(chan uint64)
		jb := add(t, scheduler(t), b.Task("job", func(_ context.Context, lease *locker.Lease) error {
			ran <- lease.Token()
			return nil
		}), gocron.WithDistributedJobLocker(b), gocron.WithEventListeners(gocron.AfterLockError(func(_ uuid.UUID, _ string, err error) { skipped <- err })))

		if err := ja.RunNow(); err != nil {
			t.Fatal(err)
		}
		token := <-began
		if err := jb.RunNow(); err != nil {
			t.Fatal(err)
		}
		if err := <-skipped; !errors.Is(err, locker.ErrHeld) {
			t.Errorf("the run was skipped for %v", err)
		}
		close(end)
		for done := false; !done; {
			if err := jb.RunNow(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-skipped: // the other has not unlocked yet
			case later := <-ran:
				if done = true; later <= token {
					t.Errorf("tokens: %d after %d", later, token)
				}
			}
		}
	})
}

// However short the run was, no other begins within AtLeast.
func TestGocronAtLeast(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		const atLeast = 500 * time.Millisecond
		grants := &grants{}
		for range 3 {
			k := gocronlock.NewLocker(f.open(nil), gocronlock.Options{AtLeast: atLeast})
			s := scheduler(t, gocron.WithDistributedLocker(timed{k, grants}))
			_, err := s.NewJob(gocron.DurationJob(50*time.Millisecond), gocron.NewTask(func() {}), gocron.WithName("short"))
			if err != nil {
				t.Fatal(err)
			}
			s.Start()
		}
		eventually(t, "three runs", func() bool { return len(grants.list()) >= 3 })
		all := grants.list()
		for i := 1; i < len(all); i++ {
			if d := all[i].after.Sub(all[i-1].before); d < atLeast {
				t.Errorf("two runs began at most %s apart", d)
			}
		}
	})
}

// timed is a gocron.Locker that notes between which two moments each lock was granted: however
// late the goroutines of a test are, the grant lies between them.
type timed struct {
	gocron.Locker
	*grants
}

type grants struct {
	mu  sync.Mutex
	all []grant
}

type grant struct{ before, after time.Time }

func (g *grants) list() []grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := slices.Clone(g.all)
	slices.SortFunc(all, func(a, b grant) int { return a.after.Compare(b.after) })
	return all
}

func (l timed) Lock(ctx context.Context, job string) (gocron.Lock, error) {
	before := time.Now()
	lock, err := l.Locker.Lock(ctx, job)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, grant{before, time.Now()})
	}
	return lock, err
}

// The job's ctx ends with the lock.
func TestGocronLoss(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		if f.lose == nil {
			return // nobody can take a lock in memory away
		}
		k := gocronlock.NewLocker(f.open(nil), gocronlock.Options{})
		began, cause := make(chan struct{}), make(chan error)
		j := add(t, scheduler(t, gocron.WithDistributedLocker(k)), k.Task("job", func(ctx context.Context, _ *locker.Lease) error {
			close(began)
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return nil
		}))
		if err := j.RunNow(); err != nil {
			t.Fatal(err)
		}
		<-began
		f.lose("gocron/job")
		if err := <-cause; !errors.Is(err, locker.ErrLost) {
			t.Errorf("the job's ctx ended with %v", err)
		}
	})
}

func TestGocronTaskWithoutLock(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		k := gocronlock.NewLocker(f.open(nil), gocronlock.Options{})
		failed := make(chan error, 1)
		j := add(t, scheduler(t), k.Task("job", func(context.Context, *locker.Lease) error { return nil }),
			gocron.WithEventListeners(gocron.AfterJobRunsWithError(func(_ uuid.UUID, _ string, err error) { failed <- err })))
		if err := j.RunNow(); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; !errors.Is(err, locker.ErrInvalidArgument) {
			t.Errorf("a task without its lock: %v", err)
		}
	})
}

// skips hears of each run that a scheduler skips.
type skips chan struct{}

func (s skips) IncrementJob(_ uuid.UUID, _ string, _ []string, status gocron.JobStatus) {
	if status == gocron.Skip {
		s <- struct{}{}
	}
}

func (skips) RecordJobTiming(time.Time, time.Time, uuid.UUID, string, []string) {}

// Jobs run where the leader is, and elsewhere when it has resigned; the ctx ends with the term.
func TestGocronElector(t *testing.T) {
	eachStore(t, func(t *testing.T, f *fleet) {
		var electors [2]*gocronlock.Elector
		var jobs [2]gocron.Job
		var runs [2]atomic.Int32
		began, cause := make(chan int), make(chan error)
		skipped := make(skips, len(electors)*len(jobs))
		for i := range electors {
			e, err := gocronlock.NewElector(t.Context(), f.open(nil), "leader", elect.Options{Backoff: time.Minute, MaxBackoff: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			electors[i] = e
			jobs[i] = add(t, scheduler(t, gocron.WithDistributedElector(e), gocron.WithMonitor(skipped)), e.Task(func(ctx context.Context, term *elect.Term) error {
				runs[i].Add(1)
				began <- i
				<-ctx.Done()
				cause <- context.Cause(ctx)
				return nil
			}))
			if i == 0 {
				eventually(t, "the first leads", func() bool { return e.IsLeader(t.Context()) == nil })
			}
		}
		if err := electors[1].IsLeader(t.Context()); !errors.Is(err, gocronlock.ErrNotLeader) {
			t.Errorf("a second leader: %v", err)
		}
		for _, j := range jobs {
			if err := j.RunNow(); err != nil {
				t.Fatal(err)
			}
		}
		if i := <-began; i != 0 {
			t.Error("the job ran where nobody leads")
		}
		<-skipped // the other's run is over: it would find a leader after the Resign
		if err := electors[0].Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-cause; err == nil {
			t.Error("the ctx has no cause")
		}
		eventually(t, "the second leads", func() bool { return electors[1].IsLeader(t.Context()) == nil })
		for _, j := range jobs {
			if err := j.RunNow(); err != nil {
				t.Fatal(err)
			}
		}
		if i := <-began; i != 1 {
			t.Error("the job ran where nobody leads")
		}
		if err := electors[1].Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-cause; !errors.Is(err, context.Canceled) {
			t.Errorf("after Close the ctx ended with %v", err)
		}
		if a, b := runs[0].Load(), runs[1].Load(); a != 1 || b != 1 {
			t.Errorf("%d and %d runs, want one each", a, b)
		}
	})
}
