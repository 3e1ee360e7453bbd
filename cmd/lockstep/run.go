package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/spf13/cobra"
)

// runFlags are what lockstep run was told.
type runFlags struct {
	key  string
	argv []string // the command
	path string   // where it is

	ttl     time.Duration
	session bool
	wait    time.Duration
	waits   bool // --wait was given: wait bounds it
	noWait  bool
	slot    string // of --once-per
	once    bool   // --once-per was given
	atLeast time.Duration
	grace   time.Duration
	note    string
	skipped int // the exit code where the command need not run, or may not
	quiet   bool
}

func newRun(s *store) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run KEY [flags] -- COMMAND [ARGUMENTS]",
		Short: "Run a command while holding a lock",
		Long: `run takes the lock KEY, runs COMMAND, and releases the lock when COMMAND has ended.

COMMAND finds LOCKSTEP_KEY and LOCKSTEP_TOKEN in its environment. The token is greater than that of
every earlier holder of KEY: a store that COMMAND writes to can refuse a smaller one.

Without --ttl (and without a ttl in the configuration) the lock is a session: its store frees it
some seconds after lockstep died. Either is renewed for as long as COMMAND runs.

COMMAND has a process group of its own, and the terminal if lockstep has it. Signals that lockstep
gets go to the whole group; while lockstep waits for the lock they end the waiting. If the lock is
lost, the group gets SIGTERM at once, and after --grace SIGKILL.

With --once-per, COMMAND runs once per KEY and SLOT among all who ask; see also --at-least. A
COMMAND that fails is not done, and the next one who asks runs it.

Exit codes: that of COMMAND; 128+n if signal n ended it, or lockstep while it waited (after SIGHUP,
SIGINT and SIGTERM lockstep dies by the same signal); and

    120  the lock was lost while COMMAND was running, whatever COMMAND returned
    121  not acquired, see --skipped; with --once-per 0
    122  the store does not answer, or refuses, before COMMAND was started
    123  the configuration or the command line is wrong
    125  anything else
    126  COMMAND cannot be executed
    127  there is no such COMMAND`,
		Example: `  lockstep run nightly -- /usr/local/bin/backup --all
  lockstep run deploy --wait 5m --note "release 1.4, alice" -- make deploy
  lockstep run reindex --no-wait -- ./reindex
  lockstep run report --once-per "$(date +%F)" --at-least 48h -- ./report
  lockstep run migrate --ttl 1m -- sh -c 'migrate --fence "$LOCKSTEP_TOKEN"'`,
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     cobra.NoFileCompletions,
		Args: func(cmd *cobra.Command, given []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case dash < 0:
				return usage(cmd, errors.New("the command goes after --, as in: lockstep run KEY -- COMMAND"))
			case dash != 1:
				return usage(cmd, fmt.Errorf("one KEY goes before --, not %d", dash))
			case len(given) == 1:
				return usage(cmd, errors.New("there is no command after --"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			f.key, f.argv = given[0], given[1:]
			if err := f.check(cmd); err != nil {
				return err
			}
			return run(s, &f)
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&f.ttl, "ttl", 0, "take a lease of this length, renewed while COMMAND runs: how long the lock outlives lockstep itself")
	flags.BoolVar(&f.session, "session", false, "take a session although the configuration has a ttl")
	flags.DurationVar(&f.wait, "wait", 0, "wait for the lock for at most this long (default: until it is there)")
	flags.BoolVar(&f.noWait, "no-wait", false, "do not wait for the lock")
	flags.StringVar(&f.slot, "once-per", "", "run COMMAND once per KEY and this slot, such as a date")
	flags.DurationVar(&f.atLeast, "at-least", 24*time.Hour, "with --once-per: for how long after COMMAND ended nobody does it again")
	flags.DurationVar(&f.grace, "grace", 10*time.Second, "how long COMMAND may take to end after the lock was lost")
	flags.StringVar(&f.note, "note", "", "a text for people, beside the lock: who inspects it sees it, so no secret (default: COMMAND's name)")
	flags.IntVar(&f.skipped, "skipped", exitNotAcquired, "the exit code if COMMAND was not run because another holds the lock, or did it (with --once-per: 0)")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "say nothing of waiting, or of a COMMAND that was skipped")
	return cmd
}

// check is what can be said of the flags before anything is done.
func (f *runFlags) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	f.waits, f.once = given("wait"), given("once-per")
	if f.once && !given("skipped") {
		f.skipped = 0
	}
	for _, wrong := range []struct {
		is   bool
		text string
	}{
		{f.key == "", "KEY is empty"},
		{given("ttl") && f.ttl <= 0, fmt.Sprintf("--ttl %s is not above 0", f.ttl)},
		{given("ttl") && f.session, "--ttl and --session exclude each other"},
		{f.waits && f.noWait, "--wait and --no-wait exclude each other"},
		{f.wait < 0, fmt.Sprintf("--wait %s is below 0", f.wait)},
		{f.once && (f.waits || f.noWait), "--once-per never waits: leave --wait and --no-wait out"},
		{f.once && f.session, "--once-per takes leases: leave --session out, or give --ttl"},
		{f.once && f.slot == "", "--once-per: the slot is empty"},
		{given("at-least") && !f.once, "--at-least is for --once-per"},
		{f.atLeast <= 0, fmt.Sprintf("--at-least %s is not above 0", f.atLeast)},
		{f.atLeast > locker.MaxTTL, fmt.Sprintf("--at-least %s is above %s", f.atLeast, locker.MaxTTL)},
		{f.once && f.ttl > locker.MaxTTL/2, fmt.Sprintf("--ttl %s is above %s, the longest with --once-per", f.ttl, locker.MaxTTL/2)},
		{f.grace < 0, fmt.Sprintf("--grace %s is below 0", f.grace)},
		{len(f.note) > locker.MaxNote, fmt.Sprintf("--note has %d bytes; at most %d are allowed", len(f.note), locker.MaxNote)},
		{f.skipped < 0 || f.skipped > 255, fmt.Sprintf("--skipped %d is not between 0 and 255", f.skipped)},
	} {
		if wrong.is {
			return usage(cmd, errors.New(wrong.text))
		}
	}
	f.noWait = f.noWait || f.waits && f.wait == 0
	if !given("note") {
		// Without the arguments: they may hold a secret.
		f.note = cut(filepath.Base(f.argv[0]), locker.MaxNote)
	}
	return f.look()
}

// look finds the command, so that a wrong name is not first heard of after an hour of waiting.
func (f *runFlags) look() (err error) {
	f.path, err = exec.LookPath(f.argv[0])
	switch {
	case err == nil, errors.Is(err, exec.ErrDot):
		return nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return &exitError{exitNotFound, fmt.Errorf("%s: there is no such command", quote(f.argv[0]))}
	}
	return &exitError{exitNoExec, fmt.Errorf("%s cannot be executed: %w", quote(f.argv[0]), errors.Unwrap(err))}
}
