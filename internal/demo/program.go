package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

const (
	workers      = 6
	firstProcess = "process 1"
	closeTimeout = 2 * time.Second
)

// perform runs the whole demo on the backend that source names and returns how many
// violations the check has found.
func perform(ctx context.Context, out io.Writer, source string) (violations int, err error) {
	admin := &administrator{}
	l, err := open(ctx, source, admin)
	if err != nil {
		return 0, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if closeErr := l.Close(closing); err == nil {
			err = closeErr
		}
	}()

	p := &program{
		key: "demo-" + randomName(), caps: l.Capabilities(), place: admin.place(),
		house: &house{out: out, tokenWidth: 5},
	}
	for n := 1; n <= workers; n++ {
		p.cast = append(p.cast, &worker{number: n, process: firstProcess, key: p.key, locker: l,
			open: func(ctx context.Context) (*locker.Locker, error) { return open(ctx, source, admin) }, admin: admin})
	}
	if p.caps.Has.Has(driver.SharedStore) {
		// Tokens of a shared store count microseconds.
		p.house.twoProcesses, p.house.tokenWidth = true, 16
		p.cast, _ = split(p.cast)
		var stop func()
		if ctx, p.peer, stop, err = startPeer(ctx, p.house); err != nil {
			return 0, err
		}
		defer stop()
	}
	return p.run(ctx)
}

// split divides the workers between the processes: the lead stays, its rival goes.
func split(all []*worker) (first, second []*worker) {
	for _, w := range all {
		if w.number%2 == 1 {
			first = append(first, w)
		} else {
			second = append(second, w)
		}
	}
	return first, second
}

// randomName keeps runs apart that use one store at the same time.
func randomName() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// program is one run, seen from the first process.
type program struct {
	key   string
	caps  driver.Capabilities
	place string // where the store is
	house *house
	cast  []*worker // of this process
	peer  *peer     // the other process, or nil
}

func (p *program) run(ctx context.Context) (violations int, err error) {
	if p.peer != nil {
		if err := p.peer.ready(ctx); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	for _, w := range p.cast {
		w.stage, w.clock = p.house, newClock(start)
	}
	p.headline()

	printing, stopPrinting := context.WithCancel(ctx)
	var printer sync.WaitGroup
	printer.Go(func() {
		const late = 40 * time.Millisecond // the longest that a line may take from the other process
		for pause(printing, late/2) == nil {
			p.house.print(p.cast[0].clock.now() - late)
		}
	})
	defer printer.Wait()
	defer stopPrinting()

	for i := range acts {
		fmt.Fprintf(p.house.out, "\n%d. %s\n", i+1, acts[i].title)
		if acts[i].missing != nil {
			if why := acts[i].missing(p.caps); why != "" {
				fmt.Fprintf(p.house.out, "   Not shown: %s.\n", why)
				continue
			}
		}
		p.house.newAct()
		if p.peer != nil {
			if err := p.peer.begin(ctx, CallSheet{Act: i, Key: p.key, Start: start.UnixNano()}); err != nil {
				return 0, err
			}
		}
		err := play(ctx, acts[i], p.cast)
		if p.peer != nil && err == nil {
			err = p.peer.ready(ctx)
		}
		p.house.printAll()
		if err != nil {
			return 0, err
		}
	}
	if p.peer != nil {
		p.peer.dismiss()
	}
	return p.summary(), nil
}

// play runs one act with the workers of one process and returns the first error, which
// ends the act for the others.
func play(ctx context.Context, a act, cast []*worker) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, w := range cast {
		part := a.all
		switch {
		case part != nil:
		case w.number == 1:
			part = a.lead
		case w.number == 2:
			part = a.rival
		default:
			continue
		}
		all.Go(func() {
			if err := part(ctx, w); err != nil {
				cancel(fmt.Errorf("%s: %w", w.name(), err))
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func (p *program) headline() {
	out := p.house.out
	processes := "in this process"
	if p.peer != nil {
		processes = "in two processes"
	}
	fmt.Fprintf(out, "Lockstep demo: %d workers %s want one lock, key %q, on the backend %q%s.\n", workers, processes, p.key, p.caps.Name, p.place)
	if p.peer == nil {
		fmt.Fprintf(out, "This backend's locks are for one process. For the same run between two:\n    %s=redis://localhost:6379 make demo\n", configVariable)
	}
	process := ""
	if p.peer != nil {
		process = fmt.Sprintf("%-11s", "where")
	}
	fmt.Fprintf(out, "\n%8s  %s%-5s  %-8s  %*s\n", "time", process, "who", "what", p.house.tokenWidth, "token")
}

// summary prints what the check found and returns the number of violations.
func (p *program) summary() int {
	s := p.house
	overlaps, disorders := check(s.holds)
	lost := s.store.accepted - s.store.value

	type account struct {
		process string
		holds   int
		longest time.Duration
	}
	accounts := map[string]*account{}
	for _, h := range s.holds {
		a := accounts[h.Worker]
		if a == nil {
			a = &account{process: h.Process}
			accounts[h.Worker] = a
		}
		a.holds++
		a.longest = max(a.longest, h.Waited)
	}
	var longest time.Duration
	first, last := uint64(1<<63), uint64(0)
	for _, h := range s.holds {
		longest = max(longest, h.Waited)
		first, last = min(first, h.Token), max(last, h.Token)
	}

	fmt.Fprintf(s.out, "\nSummary\n\n")
	table := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(table, "    worker\tacquisitions\tlongest wait\twhere\n")
	for n := 1; n <= workers; n++ {
		name := fmt.Sprintf("w%d", n)
		if a := accounts[name]; a != nil {
			fmt.Fprintf(table, "    %s\t%d\t%s\t%s\n", name, a.holds, short(a.longest), a.process)
		}
	}
	fmt.Fprintf(table, "    all\t%d\t%s\t\n", len(s.holds), short(longest))
	_ = table.Flush()

	rising := "each greater than the one before"
	if len(disorders) > 0 {
		rising = fmt.Sprintf("NOT RISING %d times", len(disorders))
	}
	fmt.Fprintf(s.out, `
    tokens                          %d to %d, %s
    late writes that were refused   %d
    updates that were lost          %d
    violations of mutual exclusion  %d
`, first, last, rising, s.store.refused, lost, len(overlaps))
	for _, v := range overlaps {
		fmt.Fprintf(s.out, "        %s\n", v)
	}
	if len(disorders) > 0 {
		fmt.Fprintf(s.out, "    tokens out of order\n        %s\n", strings.Join(disorders, "\n        "))
	}
	return len(overlaps) + len(disorders) + max(lost, -lost)
}
