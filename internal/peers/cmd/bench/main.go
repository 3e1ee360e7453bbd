// Command bench runs the benchmarks of package peers and writes the report.
//
//	go run ./internal/peers/cmd/bench                        all rows, into docs/benchmarks.md
//	go run ./internal/peers/cmd/bench -run 'idle|crashed'    those rows, to the terminal only
//	go run ./internal/peers/cmd/bench -rounds 2              a quick look; to the terminal only
//
// It exits 0 whatever the figures are: it is a report, not a test. 1 is for when it could
// not be made, 2 for wrong arguments.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"time"

	"github.com/lockstep-go/lockstep/internal/peers"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == peers.ChildArgument {
		if err := peers.ServeChild(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench: child:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// enough rounds for a report.
const enough = 10

func run() error {
	pattern := flag.String("run", "", "run the rows whose section and name, such as \"Redis: 200 ms\", match this regular expression")
	rounds := flag.Int("rounds", enough, "how many interleaved rounds")
	out := flag.String("out", "", "the `file` to write; default docs/benchmarks.md, for a whole run")
	list := flag.Bool("list", false, "list the rows")
	flag.Parse()
	match, err := regexp.Compile(*pattern)
	if err != nil || flag.NArg() > 0 || *rounds < 1 {
		fmt.Fprintln(os.Stderr, "bench: the arguments are wrong:", err)
		flag.Usage()
		os.Exit(2)
	}
	if *out == "" && *pattern == "" && *rounds >= enough {
		*out = "docs/benchmarks.md"
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	report := &peers.Report{Rounds: *rounds}
	began := time.Now()
	for _, s := range peers.Scenarios() {
		name := s.Section + ": " + s.Name
		if !match.MatchString(name) || ctx.Err() != nil {
			continue
		}
		if *list {
			fmt.Println(name)
			continue
		}
		start := time.Now()
		r := peers.Run(ctx, &s, *rounds, os.Stderr)
		report.Results = append(report.Results, r)
		fmt.Printf("%s (%.1f s)\n\n%s\n", name, time.Since(start).Seconds(), r.Medians())
	}
	if *list {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	report.Took = time.Since(began)
	fmt.Println(report.Goals(""))
	if *out == "" {
		return nil
	}
	report.Machine = peers.ThisMachine()
	fmt.Printf("it took %s\n", report.Took.Round(time.Second))
	return os.WriteFile(*out, []byte(report.Markdown()), 0o644)
}
