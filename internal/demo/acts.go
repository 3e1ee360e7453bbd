package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/elect"
	"github.com/lockstep-go/lockstep/locker/once"
)

// An act is a piece of the story: all workers play in it, or a lead and a rival.
type act struct {
	title string
	// missing says why the act cannot be played here, or "".
	missing     func(driver.Capabilities) string
	all         func(context.Context, *worker) error
	lead, rival func(context.Context, *worker) error
}

var acts = []act{
	{title: "Contention: everyone wants the lock; odd workers take leases, even ones sessions", all: contend},
	{title: "Extend: a lease that needs more time", lead: extendInTime, rival: waitForTurn},
	{title: "Expiry: a worker oversleeps its lease, and writes too late", lead: oversleep, rival: overtake},
	{title: "Loss: an administrator deletes the lock", lead: loseToAdministrator, rival: waitForTurn, missing: noPromptLoss},
	{title: "Close: a worker's Locker is closed while it holds the lock", lead: closeWhileHolding, rival: waitForTurn},
	{title: "Election: one leads at a time, and the next one as soon as it has stopped", all: campaign},
	{title: "Once per slot: each hour's report is written by whoever comes first", all: report},
}

const (
	turns    = 2 // of each worker in the contention
	workTime = 100 * time.Millisecond
	held     = "the lead holds the lock" // a cue
	written  = "the rival has written"   // another
)

// contend adds one to a number in the store, twice. Reading and writing are two
// steps with work between them: without the lock, updates would be lost.
func contend(ctx context.Context, w *worker) error {
	// Lining up one after the other makes the run readable; nothing depends on it.
	if err := pause(ctx, time.Duration(w.number)*3*time.Millisecond); err != nil {
		return err
	}
	kind := locker.WithSession()
	if w.number%2 == 1 {
		kind = locker.WithTTL(2 * time.Second)
	}
	for range turns {
		h, err := w.lock(ctx, kind)
		if err != nil {
			return err
		}
		number := w.stage.read()
		if err := pause(ctx, workTime); err != nil {
			return err
		}
		w.write(h, number+1)
		if err := w.unlock(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// extendInTime works for longer than its lease was made for, and knows it in time.
func extendInTime(ctx context.Context, w *worker) error {
	h, err := w.lock(ctx, locker.WithTTL(500*time.Millisecond))
	if err != nil {
		return err
	}
	w.stage.cue(held)
	if err := pause(ctx, 200*time.Millisecond); err != nil {
		return err
	}
	before, _ := h.lease.Deadline()
	left := time.Until(before)
	if err := h.lease.Extend(ctx, 700*time.Millisecond); err != nil {
		return err
	}
	w.tell("extends", h.lease.Token(), "it had %s left, now it ends in 700ms; the token stays", short(left))
	if err := pause(ctx, 400*time.Millisecond); err != nil {
		return err
	}
	w.tell("works on", h.lease.Token(), "%s after the first deadline", short(time.Since(before)))
	return w.unlock(ctx, h)
}

// waitForTurn waits behind the lead, gets the lock when the lead's hold ends, and gives
// it back.
func waitForTurn(ctx context.Context, w *worker) error {
	if err := w.stage.await(ctx, held); err != nil {
		return err
	}
	w.tell("waits", 0, "")
	h, err := w.lock(ctx, locker.WithSession())
	if err != nil {
		return err
	}
	if err := pause(ctx, workTime); err != nil {
		return err
	}
	return w.unlock(ctx, h)
}

// oversleep reads under the lock and then stops for longer than its lease lasts, as a
// process does in a long pause of the garbage collector or on a suspended machine. What
// it writes afterwards is out of date, and no lock service can reach into a sleeping
// process to prevent it. The store can: it has seen a greater token.
func oversleep(ctx context.Context, w *worker) error {
	h, err := w.lock(ctx, locker.WithTTL(300*time.Millisecond))
	if err != nil {
		return err
	}
	number := w.stage.read()
	deadline, _ := h.lease.Deadline()
	w.count(h, w.clock.at(deadline))
	w.stage.cue(held)
	w.tell("sleeps", 0, "for 600ms")

	// A real pause would stop this goroutine as well. It is here to show when Done
	// closes for one that does run.
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		<-h.lease.Done()
		w.tell("ended", h.lease.Token(), "Done is closed; reason: %s", reason(h.lease.Err()))
	}()
	if err := pause(ctx, 600*time.Millisecond); err != nil {
		return err
	}
	<-watched
	if err := w.stage.await(ctx, written); err != nil {
		return err
	}
	w.tell("wakes up", 0, "and knows nothing of all this")
	w.write(h, number+1)
	err = h.lease.Unlock(ctx)
	if !errors.Is(err, locker.ErrLost) {
		return fmt.Errorf("after it was overslept, Unlock of a lease returned %v, not ErrLost", err)
	}
	w.tell("unlocks", h.lease.Token(), "ErrLost, reason: %s; the lock of others is untouched", reason(err))
	return nil
}

// overtake gets the lock when the sleeper's lease has expired.
func overtake(ctx context.Context, w *worker) error {
	if err := w.stage.await(ctx, held); err != nil {
		return err
	}
	w.tell("waits", 0, "")
	h, err := w.lock(ctx, locker.WithSession())
	if err != nil {
		return err
	}
	w.write(h, w.stage.read()+1)
	w.stage.cue(written)
	if err := pause(ctx, workTime); err != nil {
		return err
	}
	return w.unlock(ctx, h)
}

func noPromptLoss(c driver.Capabilities) string {
	switch {
	case !c.Has.Has(driver.SharedStore):
		return "nobody but the holder can reach a lock in this process's memory; on a Redis you would see it"
	case !c.Has.Has(driver.PromptLoss):
		return "changes are not announced to clients here, so the loss would be noticed at the next renewal only"
	}
	return ""
}

// loseToAdministrator holds a session, which nobody but its holder should end.
func loseToAdministrator(ctx context.Context, w *worker) error {
	h, err := w.lock(ctx, locker.WithSession())
	if err != nil {
		return err
	}
	w.stage.cue(held)
	if err := pause(ctx, workTime); err != nil {
		return err
	}
	lock, err := w.admin.find(ctx, h.lease.Key())
	if err != nil {
		// An account may well be allowed to hold locks and not to look at all keys.
		w.stage.tell(line{at: w.clock.now(), client: w.client, worker: "admin", what: "gives up", text: fmt.Sprintf("could not find the lock: %v", err)})
		return w.unlock(ctx, h)
	}
	defer lock.forget()

	// Somebody else took the lock away: from here on it is not the lock's fault if two
	// believe in it, and the hold counts until here. How long the holder goes on believing
	// is what this act shows.
	deleted := w.clock.now()
	w.count(h, deleted)
	if err := lock.delete(ctx); err != nil {
		return err
	}
	select {
	case <-h.lease.Done():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	learned := w.clock.now()
	w.stage.tell(line{at: deleted, client: w.client, worker: "admin", what: "deletes", text: "the lock's key in the store"})
	w.tellAt(learned, "ended", h.lease.Token(), "reason: %s; learned %s after the order to delete", reason(h.lease.Err()), short(learned-deleted))
	if err := h.lease.Unlock(ctx); !errors.Is(err, locker.ErrLost) {
		return fmt.Errorf("after it was taken away, Unlock of a hold returned %v, not ErrLost", err)
	}
	return nil
}

// closeWhileHolding opens a second Locker on the same store, so that closing it ends
// nobody else's holds.
func closeWhileHolding(ctx context.Context, w *worker) error {
	own, err := w.open(ctx)
	if err != nil {
		return err
	}
	defer own.Close(ctx) // harmless if it is closed already

	shared := w.locker
	w.locker = own
	defer func() { w.locker = shared }()
	h, err := w.lock(ctx, locker.WithSession())
	if err != nil {
		return err
	}
	w.stage.cue(held)
	if err := pause(ctx, workTime); err != nil {
		return err
	}
	w.tell("closes", 0, "its Locker, which releases what it still holds")
	w.count(h, w.clock.now())
	if err := own.Close(ctx); err != nil {
		return err
	}
	if err := h.lease.Err(); !errors.Is(err, locker.ErrClosed) {
		return fmt.Errorf("the hold of a closed Locker says %v, not ErrClosed", err)
	}
	w.tell("ended", h.lease.Token(), "reason: %s", reason(h.lease.Err()))
	return nil
}

// campaign leads once, for a while.
func campaign(ctx context.Context, w *worker) error {
	key, err := w.locker.Key(w.key + "-leader")
	if err != nil {
		return err
	}
	return elect.Run(ctx, w.locker, key, func(ctx context.Context, term *elect.Term) error {
		began := w.clock.now()
		w.tellAt(began, "leads", term.Token(), "")
		if err := pause(ctx, workTime/2); err != nil {
			return err
		}
		w.tell("retires", term.Token(), "led for %s", short(w.clock.now()-began))
		return nil // for good
	}, elect.Options{TTL: 2 * time.Second})
}

// report does a job that is due at three hours, unless another worker has done it.
func report(ctx context.Context, w *worker) error {
	hours := once.Slots(time.Hour)
	for hour := range 3 {
		slot := hours.At(time.Date(2026, 11, 25, hour, 0, 0, 0, time.UTC))
		err := once.Do(ctx, w.locker, w.key+"-report", slot, func(ctx context.Context, lease *locker.Lease) error {
			w.tell("reports", lease.Token(), "for %s", slot.Format("15:04"))
			return pause(ctx, workTime/10)
		}, once.AtLeast(time.Minute))
		if err != nil && !errors.Is(err, once.ErrRunning) && !errors.Is(err, once.ErrDone) {
			return err
		}
		if err := pause(ctx, workTime/2); err != nil {
			return err
		}
	}
	return nil
}
