// Command matrix runs the suite on every backend and writes backend × clause into
// docs/matrix.md. It takes some minutes and needs a Redis and a Postgres, as make
// test does.
//
//	go run ./internal/matrix FILE
//
// Exit code 1 if a case failed, or the suite did not run to its end; the file is then left alone.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
)

// A column is one backend, and the tests in internal/proof that prove it.
type column struct {
	name  string
	tests []string
}

var columns = []column{
	{"memory", []string{"TestMemory"}},
	{"Redis", []string{"TestRedis"}},
	{"Redis Cluster", []string{"TestRedisCluster"}},
	{"Redis, polling", []string{"TestRedisPolling"}},
	{"PostgreSQL", []string{"TestPostgres", "TestPostgresDataLoss"}},
	{"PostgreSQL, PgBouncer", []string{"TestPostgresBouncer"}},
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "matrix: want the file to write")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(1)
	}
}

// runs is how often one test may be run until it passes as a whole: on a machine that is busy with
// other things the suite's limits of time can be too short. What failed is shown.
const runs = 3

func run(ctx context.Context, file string) error {
	var all []result
	for _, c := range columns {
		for _, test := range c.tests {
			results, err := prove(ctx, test)
			for n := 1; err != nil && n < runs && ctx.Err() == nil; n++ {
				fmt.Fprintf(os.Stderr, "matrix: %v; once more\n", err)
				results, err = prove(ctx, test)
			}
			if err != nil {
				return err
			}
			all = append(all, results...)
		}
	}
	text, err := matrix(columns, all)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// prove runs one test of internal/proof, with the race detector, without which CONC-002 says nothing.
func prove(ctx context.Context, test string) ([]result, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-race", "-json", "-count=1", "-timeout=20m",
		"-run=^"+test+"$", "github.com/lockstep-go/lockstep/internal/proof")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	failed := cmd.Run()
	results, err := read(&out)
	if err != nil {
		return nil, err
	}
	if failed == nil {
		return results, nil
	}
	for _, r := range results {
		if r.action == "fail" {
			fmt.Fprintf(os.Stderr, "%s\n%s\n", r.test, r.output)
		}
	}
	return nil, fmt.Errorf("%s: %w", test, failed)
}
