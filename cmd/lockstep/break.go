package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/spf13/cobra"
)

func newBreak(s *store) *cobra.Command {
	var token uint64
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "break KEY --token T",
		Short: "Free a key whose holder will not come back",
		Long: `break frees KEY if the hold with the token T, as ls and inspect tell it, still has it. It shows whom
that hits, and asks. The holder hears of it at once, if it is still there, and may be at work
for some moments more: what must not be done twice needs a fencing token that is checked.

Exit codes:

      0  the key was freed
      1  the hold with this token does not have it any more, or the answer was not yes
    122  the store does not answer: inspect tells what became of it
    123  the configuration or the command line is wrong`,
		Example: `  lockstep break nightly --token 1795642543298000
  lockstep break nightly --token "$(lockstep inspect nightly --json | jq .token)" --yes`,
		ValidArgsFunction: completeHeld(s),
		Args:              args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			key := given[0]
			if !cmd.Flags().Changed("token") {
				return usage(cmd, errors.New("--token is missing: it names the hold that is to be broken, and inspect shows it"))
			}
			l, _, err := s.open(cmd.Context(), locker.Config{})
			if err != nil {
				return err
			}
			defer closeLocker(l)
			info, ok, err := l.Inspect(cmd.Context(), key)
			switch {
			case err != nil:
				return err
			case !ok:
				return &exitError{exitFree, fmt.Errorf("%s is free", quote(key))}
			case info.Token != token:
				return &exitError{exitFree, fmt.Errorf("the hold with the token %d does not have %s any more: it is %s, with the token %d", token, quote(key), holderText(info), info.Token)}
			}
			if !yes {
				if err := confirm(cmd, key, info); err != nil {
					return err
				}
			}
			err = l.Break(cmd.Context(), key, token)
			if errors.Is(err, locker.ErrLost) {
				return &exitError{exitFree, fmt.Errorf("the hold with the token %d does not have %s any more", token, quote(key))}
			}
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(os.Stdout, struct {
					Broken held `json:"broken"`
				}{heldOf(info)})
			}
			_, err = fmt.Printf("broken: %s was %s\n", plain(key), holderText(info))
			return err
		},
	}
	cmd.Flags().Uint64Var(&token, "token", 0, "the token of the hold that is to be broken")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object with the hold that was broken")
	return cmd
}

// confirm shows whom it hits, and asks.
func confirm(cmd *cobra.Command, key string, info locker.Info) error {
	fmt.Fprintf(os.Stderr, "%s is %s.\nBreak it? Its holder may still be at work. [y/N] ", quote(key), holderText(info))
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if errors.Is(err, io.EOF) && answer == "" {
		fmt.Fprintln(os.Stderr)
		return usage(cmd, errors.New("nobody answers: give --yes"))
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &exitError{exitFree, errors.New("left as it is")}
}
