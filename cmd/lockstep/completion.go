package main

import (
	"context"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/spf13/cobra"
)

// completeHeld completes a KEY to one that is held, for commands about holds. A store that is slow
// or unreachable offers nothing: who presses Tab does not wait.
func completeHeld(s *store) cobra.CompletionFunc {
	const patience, most = time.Second, 100
	return func(cmd *cobra.Command, given []string, prefix string) (keys []cobra.Completion, _ cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		l, _, err := s.open(ctx, locker.Config{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer closeLocker(l)
		for info, err := range l.List(ctx, prefix) {
			if err != nil || len(keys) == most {
				break
			}
			if plain(info.Key) == info.Key && !strings.ContainsAny(info.Key, "\t \\'`$") {
				keys = append(keys, cobra.CompletionWithDesc(info.Key, clean(info.Identity)))
			}
		}
		return keys, cobra.ShellCompDirectiveNoFileComp
	}
}
