package peers

import (
	"context"
	"io"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/internal/redistest"
)

// A Machine is where a report was made.
type Machine struct {
	CPU      string
	Cores    int
	OS       string
	Go       string
	Redis    string
	Postgres string
	Peers    []string // module and version
}

// ThisMachine describes this one.
func ThisMachine() Machine {
	m := Machine{
		CPU: "unknown", Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH,
		Go: strings.TrimPrefix(runtime.Version(), "go"), Redis: redisVersion(), Postgres: postgresVersion(),
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	wanted := []string{
		"github.com/moby/locker", "github.com/redis/rueidis", "github.com/redis/go-redis/v9", "github.com/go-redsync/redsync/v4", "github.com/bsm/redislock",
		"cirello.io/pglock", "github.com/allisson/go-pglock/v3", "github.com/jackc/pgx/v5", "github.com/lib/pq",
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if slices.Contains(wanted, d.Path) {
				m.Peers = append(m.Peers, strings.TrimPrefix(path.Dir(d.Path), "github.com/")+"/"+path.Base(d.Path)+" "+d.Version)
			}
		}
	}
	return m
}

// redisVersion is that of the Redis that the scenarios start.
func redisVersion() string {
	b := &Bench{ctx: context.Background(), log: io.Discard}
	defer b.cleanUp()
	version := "none"
	_ = catch(func() { version = redistest.Start(b).Version(b) }) // the rows say why there is none
	return version
}

// postgresVersion is that of the Postgres that the scenarios start.
func postgresVersion() string {
	b := &Bench{ctx: context.Background(), log: io.Discard}
	defer b.cleanUp()
	version := "none"
	_ = catch(func() {
		version = versionOf(pgtest.Value[string](b, pgtest.Start(b), "postgres", "SHOW server_version"))
	})
	return version
}
