package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker"
	"github.com/spf13/cobra"
)

// change is one line of watch --json.
type change struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"` // held: at the start; acquired; released
	held
}

func newWatch(s *store) *cobra.Command {
	var w watcher
	cmd := &cobra.Command{
		Use:   "watch [KEY]",
		Short: "Show who takes and who releases, as it happens",
		Long: `watch shows what is held, and then each change: of KEY, or of all keys that begin with --prefix. It
looks every --interval, by default every second for a KEY and every five seconds without, where a
Redis has to look at all its keys: a hold that came and went between two looks is not seen. How a
hold ended cannot be seen either: "released" is every end. Without KEY it remembers all that is held.

It goes on through an outage of the store, until a signal ends it.`,
		Example: `  lockstep watch nightly
  lockstep watch --prefix billing/ --interval 250ms
  lockstep watch --json | jq -c 'select(.event == "acquired") | [.key, .identity]'`,
		ValidArgsFunction: completeHeld(s),
		Args:              args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 && !cmd.Flags().Changed("interval") {
				w.interval = 5 * time.Second
			}
			switch {
			case w.interval < 10*time.Millisecond:
				return usage(cmd, fmt.Errorf("--interval %s is below 10ms", w.interval))
			case len(given) == 1 && cmd.Flags().Changed("prefix"):
				return usage(cmd, errors.New("KEY and --prefix exclude each other"))
			}
			l, _, err := s.open(cmd.Context(), locker.Config{})
			if err != nil {
				return err
			}
			defer closeLocker(l)
			w.look = func(ctx context.Context) (map[string]locker.Info, error) { return listAll(ctx, l, w.prefix) }
			if len(given) == 1 {
				w.look = func(ctx context.Context) (map[string]locker.Info, error) { return inspectOne(ctx, l, given[0]) }
			}
			return w.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&w.asJSON, "json", false, "print one JSON object a line for each change")
	cmd.Flags().StringVar(&w.prefix, "prefix", "", "watch the keys that begin with this")
	cmd.Flags().DurationVar(&w.interval, "interval", time.Second, "how often to look (without KEY: 5s)")
	return cmd
}

type watcher struct {
	interval time.Duration
	prefix   string
	asJSON   bool
	look     func(context.Context) (map[string]locker.Info, error)
}

func listAll(ctx context.Context, l *locker.Locker, prefix string) (map[string]locker.Info, error) {
	all := map[string]locker.Info{}
	for info, err := range l.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		all[info.Key] = info
	}
	return all, nil
}

func inspectOne(ctx context.Context, l *locker.Locker, key string) (map[string]locker.Info, error) {
	info, ok, err := l.Inspect(ctx, key)
	if err != nil || !ok {
		return nil, err
	}
	return map[string]locker.Info{key: info}, nil
}

func (w *watcher) run(ctx context.Context) error {
	var before map[string]locker.Info
	first, silent := true, false
	for tick := time.NewTicker(w.interval); ; <-tick.C {
		now, err := w.look(ctx)
		switch {
		case first && err != nil:
			return err
		case err != nil && !silent:
			say("%s; watching on", wordsOf(err))
			silent = true
			continue
		case err != nil:
			continue
		case silent:
			say("the store answers again")
			silent = false
		}
		if err := w.compare(before, now, first); err != nil {
			return err
		}
		before, first = now, false
	}
}

// compare tells what has changed. One hold of a key is told from another by the token.
func (w *watcher) compare(before, now map[string]locker.Info, first bool) error {
	for key, was := range before {
		if is, ok := now[key]; !ok || is.Token != was.Token {
			if err := w.tell("released", was); err != nil {
				return err
			}
		}
	}
	for key, is := range now {
		was, ok := before[key]
		if ok && was.Token == is.Token {
			continue
		}
		event := "acquired"
		if first {
			event = "held"
		}
		if err := w.tell(event, is); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) tell(event string, info locker.Info) error {
	at := time.Now()
	if w.asJSON {
		c := change{at.UTC().Truncate(time.Millisecond), event, heldOf(info)}
		if event == "released" {
			c.Held, c.RemainingMS, c.Waiters = false, nil, nil
		}
		return writeJSONLine(os.Stdout, c)
	}
	holder := info.Identity
	if holder == "" {
		holder = info.Owner
	}
	line := []string{at.Format("15:04:05.000"), fmt.Sprintf("%-8s", event), plain(info.Key), "by", plain(holder)}
	if info.Note != "" {
		line = append(line, "("+plain(info.Note)+")")
	}
	if event == "released" && !info.Since.IsZero() {
		line = append(line, "after about", age(info))
	}
	text := strings.Join(line, " ")
	if columns := width(os.Stdout); columns > 0 {
		text = shorten(text, columns)
	}
	_, err := fmt.Println(text)
	return err
}
