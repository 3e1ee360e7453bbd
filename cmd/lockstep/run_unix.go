//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// forwarded are the signals that go to the command's group. Those that a terminal makes come to
// lockstep only where it is not the terminal's own doing.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGWINCH,
}

// runner is one lockstep run. One goroutine hears of everything that happens, and it alone starts,
// signals and waits for the command (loop); another takes the lock and gives it back (work).
type runner struct {
	f   *runFlags
	s   *store
	tty *terminal

	signals  chan os.Signal
	granted  chan grant // the lock is there
	ended    chan error // the command is over: nil, or that it failed
	finished chan error // the lock is given back, or there was none
	giveUp   context.CancelCauseFunc

	child  *child
	lease  *locker.Lease
	held   context.Context
	lost   <-chan struct{}  // held.Done(), until it was heard of
	over   <-chan time.Time // when the grace is
	look   <-chan time.Time // when to look at the group again
	failed error            // the command could not be started

	byWaiting syscall.Signal // the signal that ended the waiting
	lostBy    error          // why the lock was lost while the command was running
	asked     bool           // the command was asked to end
	killed    bool           // and killed
	shown     bool           // it had the terminal at its end
	closing   bool           // ended has been told
}

type grant struct {
	held  context.Context
	lease *locker.Lease
}

var (
	errSignalled = errors.New("a signal ended the waiting")
	errFailed    = errors.New("the command failed")
)

// run is lockstep run.
func run(s *store, f *runFlags) error {
	runtime.LockOSThread() // see tie
	r := &runner{
		f: f, s: s, tty: openTerminal(),
		signals: make(chan os.Signal, 64), granted: make(chan grant), ended: make(chan error, 1), finished: make(chan error, 1),
	}
	r.listen()
	ctx, giveUp := context.WithCancelCause(context.Background())
	r.giveUp = giveUp
	if f.waits && !f.noWait {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.wait, fmt.Errorf("--wait %s is over: %w", short(f.wait), context.DeadlineExceeded))
		defer cancel()
	}
	go func() { r.finished <- r.work(ctx) }()
	return r.loop()
}

// listen has the signals come to r. What was ignored when lockstep was started stays so, here and
// in the command: nohup means both.
func (r *runner) listen() {
	for _, sig := range forwarded {
		if !signal.Ignored(sig) {
			signal.Notify(r.signals, sig)
		}
	}
	// SIGPIPE is heard and dropped: a broken stderr must not end lockstep while the command runs.
	// To ignore it would make the command ignore it too.
	signal.Notify(r.signals, syscall.SIGCHLD, syscall.SIGPIPE)
}

func defaultAction(sig syscall.Signal) { signal.Reset(sig) }

// work takes the lock, waits until the command is over, and gives it back.
func (r *runner) work(ctx context.Context) error {
	l, cfg, err := r.s.open(ctx, locker.Config{Observer: locker.ObserverFunc(r.observe)})
	if err != nil {
		return err
	}
	defer closeLocker(l)
	if r.f.ttl == 0 && !r.f.session && !r.f.once {
		r.f.ttl = cfg.TTL
	}
	waited := func() {}
	if !r.f.quiet && !r.f.noWait && !r.f.once {
		waited = showWaiting(ctx, l, r.f.key)
	}
	defer waited()
	return r.f.hold(ctx, l, func(held context.Context, lease *locker.Lease) error {
		waited()
		r.granted <- grant{held, lease}
		return <-r.ended
	})
}

// observe tells who waits what the store is up to.
func (r *runner) observe(_ context.Context, e locker.Event) {
	switch {
	case r.f.quiet:
	case e.Kind == locker.EventOutage:
		say("waiting through an outage of the store: %v", e.Err)
	case e.Kind == locker.EventRecovered && e.Err == nil:
		say("the store answers again")
	}
}

func (r *runner) loop() error {
	for {
		select {
		case sig := <-r.signals:
			r.onSignal(sig.(syscall.Signal))
		case g := <-r.granted:
			r.onGrant(g)
		case <-r.lost:
			r.onLost(context.Cause(r.held))
		case <-r.over:
			r.onGraceOver()
		case <-r.look:
			r.onChild()
		case err := <-r.finished:
			return r.outcome(err)
		}
	}
}

func (r *runner) onSignal(sig syscall.Signal) {
	switch {
	case sig == syscall.SIGPIPE:
	case sig == syscall.SIGCHLD:
		r.onChild()
	case r.child == nil:
		switch sig {
		case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM:
			r.byWaiting = sig
			r.giveUp(errSignalled)
		}
	case sig == syscall.SIGCONT:
		r.resume()
	default:
		switch sig {
		case syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM:
			r.asked = true
		}
		r.child.signal(sig)
	}
}

// onGrant starts the command.
func (r *runner) onGrant(g grant) {
	if r.byWaiting != 0 { // it came at the same moment
		r.end(errSignalled)
		return
	}
	r.held, r.lease, r.lost = g.held, g.lease, g.held.Done()
	var err error
	if r.child, err = startChild(r.f, r.environment(), r.tty); err != nil {
		r.failed = &exitError{exitNoExec, fmt.Errorf("%s cannot be executed: %w", quote(r.f.path), err)}
		r.lost = nil
		r.end(errFailed)
		return
	}
	signal.Notify(r.signals, syscall.SIGTSTP, syscall.SIGCONT)
}

// environment is the command's. Of a variable that is there twice the command would see the first:
// that of a lockstep around this one.
func (r *runner) environment() []string {
	own := []string{"LOCKSTEP_KEY=" + r.f.key, "LOCKSTEP_TOKEN=" + strconv.FormatUint(r.lease.Token(), 10)}
	if r.f.once {
		own = append(own, "LOCKSTEP_SLOT="+r.f.slot)
	}
	rest := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "LOCKSTEP_KEY" || name == "LOCKSTEP_TOKEN" || name == "LOCKSTEP_SLOT"
	})
	return append(rest, own...)
}

// onLost stops the command: another holder may be at work from now on.
func (r *runner) onLost(cause error) {
	r.lost = nil
	if r.closing {
		return // the lock is being given back
	}
	r.lostBy, r.asked = cause, true
	say("%s; the command gets SIGTERM, and SIGKILL in %s", wordsOf(cause), short(r.f.grace))
	r.child.signal(syscall.SIGTERM)
	r.child.signal(syscall.SIGCONT) // what is stopped does not hear a SIGTERM
	r.over = time.After(r.f.grace)
	r.onChild()
}

// onGraceOver: there is nothing after SIGKILL but to wait, and what hangs in the kernel is not
// waited for.
func (r *runner) onGraceOver() {
	const hangs = 5 * time.Second
	r.over = nil
	switch {
	case r.lostBy == nil: // what is left of a command that was asked to end
		r.finish()
	case r.killed:
		say("processes of the command do not end, not even by SIGKILL")
		r.finish()
	default:
		say("the command has not ended in %s: SIGKILL", short(r.f.grace))
		r.killed = true
		r.child.signal(syscall.SIGKILL)
		r.over = time.After(hangs)
	}
}

// onChild looks at what has become of the command.
func (r *runner) onChild() {
	if r.child == nil {
		return
	}
	r.child.reap()
	switch {
	case r.closing:
	case r.child.ended:
		r.onEnd()
	case r.child.stopped != 0:
		sig := r.child.stopped
		r.child.stopped = 0
		r.suspend(sig)
	}
}

// onEnd releases the lock, but not while others of a group that was asked to end are still about
// it. After an end that nobody asked for, what the command has left behind is not waited for: it
// may be meant to stay.
func (r *runner) onEnd() {
	const pause = 10 * time.Millisecond // for those who are not lockstep's children
	if !r.child.gone() && r.asked {
		if r.over == nil {
			r.over = time.After(r.f.grace)
		}
		r.look = time.After(pause)
		return
	}
	r.finish()
}

// finish has the lock given back.
func (r *runner) finish() {
	if r.tty.shows(r.child.pid) {
		r.tty.show(syscall.Getpgrp())
		r.shown = true
	}
	if !r.child.gone() {
		say("the command has left processes behind, which go on without the lock")
	}
	if r.child.code() != 0 {
		r.end(errFailed)
		return
	}
	r.end(nil)
}

func (r *runner) end(err error) {
	if !r.closing {
		r.closing, r.look, r.over = true, nil, nil
		r.ended <- err
	}
}

// suspend stops lockstep, as its command was: the shell that waits for lockstep is to see it.
// Until it is resumed nothing is renewed, and the lock ends.
func (r *runner) suspend(by syscall.Signal) {
	if r.tty == nil {
		return // by a kill -STOP: the lock is kept
	}
	shown := r.tty.shows(r.child.pid)
	early := by == syscall.SIGTTIN || by == syscall.SIGTTOU // it used the terminal before it had it
	if shown && early || !r.tty.suspends() {
		if shown {
			r.child.signal(syscall.SIGCONT)
		}
		return
	}
	if shown {
		r.tty.show(syscall.Getpgrp())
	}
	// To the whole job, such as the rest of a pipeline. Not SIGTSTP: once it has been heard, Go
	// does not give it back its default action.
	_ = syscall.Kill(0, syscall.SIGSTOP)
}

// resume is after a SIGCONT. The command goes on only if the lock is still there.
func (r *runner) resume() {
	if r.closing || r.child.ended {
		return
	}
	if r.tty.shows(syscall.Getpgrp()) {
		r.tty.show(r.child.pid)
	}
	if err := r.lease.Err(); err != nil && r.lost != nil {
		r.onLost(err)
		return
	}
	r.child.signal(syscall.SIGCONT)
}

// outcome is what lockstep run returns. err is that of work.
func (r *runner) outcome(err error) error {
	switch {
	case r.failed != nil:
		return r.failed
	case r.child == nil && r.byWaiting != 0:
		dieBy(r.byWaiting, false)
		return &exitError{code: exitSignal + int(r.byWaiting)}
	case r.child == nil:
		return r.notRun(err)
	case r.lostBy != nil:
		return &exitError{code: exitLost}
	case errors.Is(err, locker.ErrLost):
		return &exitError{exitLost, fmt.Errorf("the lock was gone when the command ended: another may have held it meanwhile: %w", err)}
	}
	if err = without(err, errFailed); err != nil {
		say("the command has ended, and its lock was not released, but ends by itself: %s", wordsOf(err))
	}
	if r.child.status.Signaled() {
		// What Ctrl-C does to the foreground is meant for all of lockstep's group, which was not
		// there: a script that started lockstep must not go on.
		dieBy(r.child.status.Signal(), r.shown && r.child.status.Signal() == syscall.SIGINT)
	}
	return &exitError{code: r.child.code()}
}

// notRun is the outcome where the command was not started.
func (r *runner) notRun(err error) error {
	code := exitCode(err)
	if errors.Is(err, errSkipped) || code == exitNotAcquired || code == exitLost {
		if r.f.quiet {
			err = nil
		}
		return &exitError{r.f.skipped, err}
	}
	return &exitError{code, err}
}
