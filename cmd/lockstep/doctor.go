package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/spf13/cobra"
)

// severity is how bad a finding is, and the exit code of a doctor that found nothing worse.
type severity int

const (
	fine     severity = -1 // nothing to do
	note     severity = 0  // to be known
	warning  severity = 1  // locks work, and can be lost or late in a way that a setting prevents
	critical severity = 2  // locks are refused, or will be lost
)

func (s severity) String() string {
	switch s {
	case fine:
		return "ok"
	case note:
		return "note"
	case warning:
		return "warning"
	}
	return "critical"
}

func (s severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// finding is one thing that the doctor says. The JSON fields are documented in docs/command.md.
type finding struct {
	Severity severity `json:"severity"`
	Check    string   `json:"check"`             // what was looked at, a word for ever
	Node     string   `json:"node,omitempty"`    // where, if the store has nodes
	Found    string   `json:"found"`             // what is the case
	Means    string   `json:"means,omitempty"`   // what it means for locks
	Clauses  []string `json:"clauses,omitempty"` // of docs/contract.md
	Do       string   `json:"do,omitempty"`      // what to do about it
}

// examination collects findings.
type examination struct {
	Store    string    `json:"store"`
	Verdict  severity  `json:"verdict"`
	Findings []finding `json:"findings"`
}

func (e *examination) add(f finding) {
	e.Findings = append(e.Findings, f)
	e.Verdict = max(e.Verdict, f.Severity)
}

// unseen is a finding about what the doctor was not allowed to look at.
func (e *examination) unseen(check, node, what string, err error) {
	e.add(finding{Severity: note, Check: check, Node: node, Found: what + " could not be seen: " + err.Error(),
		Do: "run the doctor as a user who may, such as an administrator"})
}

// doctorTimeout bounds each question to the store.
const doctorTimeout = 10 * time.Second

func newDoctor(s *store) *cobra.Command {
	var asJSON, quiet bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say whether this store is fit to hold locks in",
		Long: `doctor looks at the configured store and says for each finding what it means for which clause of
the contract, and what to do. It takes and releases one lock, lockstep-doctor, measures latencies,
and changes nothing else.

It sees what its user may see. Run it as the program's user for the program's rights, and as an
administrator for the server's settings.

Exit codes: the worst finding:

      0  fit; there may be notes
      1  warnings: locks work, and can be lost or late in a way that a setting prevents
      2  critical: locks are refused, or will be lost
    122  the store does not answer
    123  the configuration or the command line is wrong`,
		Example: `  lockstep doctor --config redis://localhost:6379
  lockstep doctor --json | jq '.findings[] | select(.severity == "critical")'
  lockstep doctor --quiet || page-somebody`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := examine(cmd.Context(), s)
			if err != nil {
				return err
			}
			if quiet {
				e.Findings = slices.DeleteFunc(e.Findings, func(f finding) bool { return f.Severity < warning })
			}
			if asJSON {
				err = writeJSON(os.Stdout, e)
			} else {
				err = e.write(os.Stdout, width(os.Stdout))
			}
			if err != nil {
				return err
			}
			if e.Verdict > note {
				return &exitError{code: int(e.Verdict)}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "show warnings and what is critical only")
	return cmd
}

// examine finds out which kind of store it is, and looks at it.
func examine(ctx context.Context, s *store) (*examination, error) {
	cfg, err := s.load(locker.Config{})
	if err != nil {
		return nil, err
	}
	switch cfg.Type {
	case "redis":
		return examineRedis(ctx, s)
	case "postgres", "postgresql", "pgx":
		return examinePostgres(ctx, s)
	}
	return examineMemory(ctx, s)
}

// tryLock takes and releases one lock, some times, and says how that went.
func (e *examination) tryLock(ctx context.Context, l *locker.Locker) {
	const key, times, most = "lockstep-doctor", 50, 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	var all latencies
	for first := time.Now(); len(all) < times && time.Since(first) < most; {
		began := time.Now()
		lease, err := l.TryLock(ctx, key, locker.WithTTL(time.Minute))
		if errors.Is(err, locker.ErrHeld) {
			e.add(finding{Severity: note, Check: "lock", Found: "another doctor holds the lock " + key})
			return
		}
		if err == nil {
			err = lease.Unlock(ctx)
		}
		if err != nil {
			e.add(finding{Severity: critical, Check: "lock", Found: "a lock could not be taken and released: " + wordsOf(err),
				Means: "Lock waits, TryLock fails", Clauses: []string{"ERR-002"}, Do: "see the other findings, and the server's log"})
			return
		}
		all = append(all, time.Since(began))
	}
	e.add(finding{Severity: fine, Check: "lock", Found: "to take and release a lock takes " + all.String() + abilities(l)})
}

func abilities(l *locker.Locker) string {
	if l.Capabilities().Has.Has(driver.PromptLoss) {
		return "; holders and waiters hear of changes at once"
	}
	return "; holders and waiters poll"
}

// shown is what a Config says of its backend, for those who need to know more than Open tells.
// A Config shows itself as JSON, without secrets.
func shown(cfg locker.Config, backend any) error {
	all := struct {
		Backend any `json:"backend"`
	}{backend}
	return json.Unmarshal([]byte(cfg.String()), &all)
}

// write prints e for people: the worst first, and what is fine last, on one line each.
func (e *examination) write(w io.Writer, columns int) error {
	if columns <= 0 || columns > 120 {
		columns = 100
	}
	findings := slices.Clone(e.Findings)
	slices.SortStableFunc(findings, func(a, b finding) int { return int(b.Severity - a.Severity) })
	var b strings.Builder
	for _, f := range findings {
		where := f.Check
		if f.Node != "" {
			where += " at " + plain(f.Node)
		}
		wrapped(&b, columns, fmt.Sprintf("%-9s %s: ", f.Severity, where), strings.Repeat(" ", 10), f.Found)
		if f.Means != "" {
			means := f.Means
			if len(f.Clauses) > 0 {
				means += " (" + strings.Join(f.Clauses, ", ") + ")"
			}
			wrapped(&b, columns, strings.Repeat(" ", 10)+"means: ", strings.Repeat(" ", 17), means)
		}
		if f.Do != "" {
			wrapped(&b, columns, strings.Repeat(" ", 10)+"do:    ", strings.Repeat(" ", 17), f.Do)
		}
	}
	words := "fit to hold locks in"
	switch e.Verdict {
	case warning:
		words = "fit to hold locks in, with the warnings above"
	case critical:
		words = "not fit to hold locks in"
	}
	fmt.Fprintf(&b, "\nThis %s is %s.\n", e.Store, words)
	_, err := io.WriteString(w, b.String())
	return err
}

// wrapped writes text after first, and goes on after rest on the lines that follow.
func wrapped(b *strings.Builder, columns int, first, rest, text string) {
	line := first
	empty := true
	for _, word := range strings.Fields(clean(text)) {
		if !empty && len(line)+len(word) > columns {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = rest
		}
		line += word + " "
		empty = false
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}
