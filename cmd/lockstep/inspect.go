package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/spf13/cobra"
)

// exitFree is the exit code of inspect for a key that is free, and of break for a hold that is not
// there any more.
const exitFree = 1

func newInspect(s *store) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect KEY",
		Short: "Show who holds a key",
		Long: `inspect shows who holds KEY, since when, what for, for how long, and how many wait for it. By the
time it is read it may be out of date.

Exit codes:

      0  it is held
      1  it is free
    122  the store does not answer
    123  the configuration or the command line is wrong`,
		Example: `  lockstep inspect nightly
  lockstep inspect nightly --json | jq .identity
  lockstep inspect nightly >/dev/null || echo free`,
		ValidArgsFunction: completeHeld(s),
		Args:              args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			l, _, err := s.open(cmd.Context(), locker.Config{})
			if err != nil {
				return err
			}
			defer closeLocker(l)
			info, ok, err := l.Inspect(cmd.Context(), given[0])
			if err != nil {
				return err
			}
			switch {
			case asJSON && ok:
				err = writeJSON(os.Stdout, heldOf(info))
			case asJSON:
				err = writeJSON(os.Stdout, free(given[0]))
			case ok:
				_, err = os.Stdout.WriteString(details(info))
			default:
				_, err = fmt.Println(plain(given[0]), "is free")
			}
			if err == nil && !ok {
				err = &exitError{code: exitFree}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// details are all that is known of a hold, a line each.
func details(info locker.Info) string {
	var b strings.Builder
	line := func(name, text string) { fmt.Fprintf(&b, "%-10s %s\n", name, text) }
	line("key", plain(info.Key))
	if info.Identity != "" {
		line("holder", plain(info.Identity))
	}
	if info.Note != "" {
		line("note", plain(info.Note))
	}
	line("kind", kind(info))
	if !info.Since.IsZero() {
		line("since", info.Since.Local().Format(time.DateTime)+", "+age(info)+" ago")
	}
	switch {
	case !info.Session:
		line("remaining", short(info.Remaining)+" unless it is extended")
	case info.Remaining > 0:
		line("remaining", short(info.Remaining)+" unless it is renewed, which its process does by itself")
	}
	if info.Waiters >= 0 {
		line("waiting", strconv.Itoa(info.Waiters))
	}
	line("token", strconv.FormatUint(info.Token, 10))
	line("owner", plain(info.Owner))
	return b.String()
}
