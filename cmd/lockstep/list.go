package main

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/spf13/cobra"
)

func newList(s *store) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "ls [PREFIX]",
		Aliases: []string{"list"},
		Short:   "List what is held",
		Long: `ls lists what is held of the keys that begin with PREFIX, or all of it. What is granted or released
meanwhile may be listed or not. Where there is much, it comes as it is found.

FOR is how long it has been held, LEFT how long it lasts unless it is renewed, WAIT how many wait.
On a terminal, long keys, holders and notes are cut, and columns left out, so that a line fits;
inspect shows one in full.
Keys and notes with characters that a terminal would carry out are in quotation marks, escaped.`,
		Example: `  lockstep ls
  lockstep ls billing/
  lockstep ls --json | jq -r 'select(.waiters > 0) | .key'`,
		ValidArgsFunction: completeHeld(s),
		Args:              args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			l, _, err := s.open(cmd.Context(), locker.Config{})
			if err != nil {
				return err
			}
			defer closeLocker(l)
			out := bufio.NewWriter(os.Stdout)
			list := listTable(out, width(os.Stdout))
			if asJSON {
				list = listJSON(out)
			}
			for info, err := range l.List(cmd.Context(), strings.Join(given, "")) {
				if err == nil {
					err = list.add(info)
				}
				if err != nil {
					_ = list.flush() // what was found so far
					return err
				}
			}
			return list.flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line for each hold")
	return cmd
}

// lister writes holds.
type lister struct {
	add   func(locker.Info) error
	flush func() error
}

func listJSON(out *bufio.Writer) lister {
	return lister{func(info locker.Info) error { return writeJSONLine(out, heldOf(info)) }, out.Flush}
}

// listTable sorts and aligns what comes in parts, so that memory is bounded.
func listTable(out *bufio.Writer, columns int) lister {
	const part = 1000
	t := table{head: []string{"KEY", "HOLDER", "NOTE", "KIND", "FOR", "LEFT", "WAIT", "TOKEN"},
		give: []bool{true, true, true, false, false, false, false, false}, spare: []int{6, 5, 3, 2, 4}, columns: columns}
	var infos []locker.Info
	flush := func() error {
		slices.SortFunc(infos, func(a, b locker.Info) int { return strings.Compare(a.Key, b.Key) })
		var rows [][]string
		for _, info := range infos {
			rows = append(rows, row(info))
		}
		infos = infos[:0]
		if err := t.write(out, rows); err != nil {
			return err
		}
		return out.Flush()
	}
	return lister{func(info locker.Info) error {
		if infos = append(infos, info); len(infos) < part {
			return nil
		}
		return flush()
	}, func() error {
		if len(infos) == 0 && t.headed {
			return out.Flush()
		}
		return flush()
	}}
}

func row(info locker.Info) []string {
	holder, waiters := info.Identity, "?"
	if holder == "" {
		holder = info.Owner
	}
	if info.Waiters >= 0 {
		waiters = strconv.Itoa(info.Waiters)
	}
	text := "-"
	if info.Note != "" {
		text = plain(info.Note)
	}
	return []string{plain(info.Key), plain(holder), text, kind(info), age(info), remaining(info), waiters, strconv.FormatUint(info.Token, 10)}
}
