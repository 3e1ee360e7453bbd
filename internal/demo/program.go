package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

const (
	workers      = 6
	closeTimeout = 2 * time.Second
)

// perform runs the whole demo on the backend that source names and returns how many
// violations the check has found.
func perform(ctx context.Context, out io.Writer, source string) (violations int, err error) {
	admin := &administrator{}
	again := func(ctx context.Context) (*locker.Locker, error) { return open(ctx, source, admin) }
	var lockers []*locker.Locker
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		for _, l := range lockers {
			if closeErr := l.Close(closing); err == nil {
				err = closeErr
			}
		}
	}()
	p := &program{key: "demo-" + randomName(), stage: &stage{out: out, clients: 1, tokenWidth: 5}}
	for n := 0; n < p.stage.clients; n++ {
		l, err := again(ctx)
		if err != nil {
			return 0, err
		}
		lockers = append(lockers, l)
		if p.caps = l.Capabilities(); p.caps.Has.Has(driver.SharedStore) {
			// Two clients, which share nothing but the store. Its tokens count microseconds.
			p.stage.clients, p.stage.tokenWidth = 2, 16
		}
	}
	p.place = admin.place()
	for n := 1; n <= workers; n++ {
		client := (n - 1) % len(lockers)
		p.cast = append(p.cast, &worker{number: n, client: fmt.Sprintf("client %d", client+1),
			key: p.key, locker: lockers[client], open: again, admin: admin, stage: p.stage})
	}
	return p.run(ctx)
}

// randomName keeps runs apart that use one store at the same time.
func randomName() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// program is one run.
type program struct {
	key   string
	caps  driver.Capabilities
	place string // where the store is
	stage *stage
	cast  []*worker
}

func (p *program) run(ctx context.Context) (violations int, err error) {
	clock := clock{time.Now()}
	for _, w := range p.cast {
		w.clock = clock
	}
	p.headline()

	printing, stopPrinting := context.WithCancel(ctx)
	var printer sync.WaitGroup
	printer.Go(func() {
		const late = 40 * time.Millisecond // the longest that a worker may take to tell of a step
		for pause(printing, late/2) == nil {
			p.stage.print(clock.now() - late)
		}
	})
	defer printer.Wait()
	defer stopPrinting()

	for i, act := range acts {
		fmt.Fprintf(p.stage.out, "\n%d. %s\n", i+1, act.title)
		if act.missing != nil {
			if why := act.missing(p.caps); why != "" {
				fmt.Fprintf(p.stage.out, "   Not shown: %s.\n", why)
				continue
			}
		}
		p.stage.newAct()
		err := play(ctx, act, p.cast)
		p.stage.print(clock.now())
		if err != nil {
			return 0, err
		}
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
	out, clients, client := p.stage.out, "of one client", ""
	if p.stage.clients > 1 {
		clients, client = "of two clients", fmt.Sprintf("%-10s", "where")
	}
	fmt.Fprintf(out, "Lockstep demo: %d workers %s want one lock, key %q, on the backend %q%s.\n", workers, clients, p.key, p.caps.Name, p.place)
	if p.stage.clients == 1 {
		fmt.Fprintf(out, "This backend's locks are for one process. For the same run between two clients:\n    %s=redis://localhost:6379 make demo\n", configVariable)
	}
	fmt.Fprintf(out, "\n%8s  %s%-5s  %-8s  %*s\n", "time", client, "who", "what", p.stage.tokenWidth, "token")
}

// summary prints what the check found and returns the number of violations.
func (p *program) summary() int {
	s := p.stage
	overlaps, disorders := check(s.holds)
	lost := s.accepted - s.value

	fmt.Fprintf(s.out, "\nSummary\n\n")
	table := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', 0)
	fmt.Fprintf(table, "    worker\tacquisitions\tlongest wait\twhere\n")
	row := func(name, client string, of func(hold) bool) {
		holds, longest := 0, time.Duration(0)
		for _, h := range s.holds {
			if of(h) {
				holds, longest = holds+1, max(longest, h.waited)
			}
		}
		fmt.Fprintf(table, "    %s\t%d\t%s\t%s\n", name, holds, short(longest), client)
	}
	for _, w := range p.cast {
		row(w.name(), w.client, func(h hold) bool { return h.worker == w.name() })
	}
	row("all", "", func(hold) bool { return true })
	_ = table.Flush()

	byToken := func(a, b hold) int { return cmp.Compare(a.token, b.token) }
	first, last := slices.MinFunc(s.holds, byToken).token, slices.MaxFunc(s.holds, byToken).token
	rising := "each greater than the one before"
	if len(disorders) > 0 {
		rising = fmt.Sprintf("NOT RISING %d times", len(disorders))
	}
	fmt.Fprintf(s.out, `
    tokens                          %d to %d, %s
    late writes that were refused   %d
    updates that were lost          %d
    violations of mutual exclusion  %d
`, first, last, rising, s.refused, lost, len(overlaps))
	for _, v := range overlaps {
		fmt.Fprintf(s.out, "        %s\n", v)
	}
	if len(disorders) > 0 {
		fmt.Fprintf(s.out, "    tokens out of order\n        %s\n", strings.Join(disorders, "\n        "))
	}
	return len(overlaps) + len(disorders) + max(lost, -lost)
}
