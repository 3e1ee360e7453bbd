package config

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/backends/memory"
	"github.com/lockstep-go/lockstep/backends/postgres"
	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/config/sample"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

func TestMain(m *testing.M) {
	for _, s := range os.Environ() { // LoadConfig reads them
		if name, _, _ := strings.Cut(s, "="); strings.HasPrefix(name, "LOCKSTEP_") {
			os.Unsetenv(name)
		}
	}
	register[sample.Config]("test-sample")
	register[postgres.Config]("test-postgres")
	register[redis.Config]("test-redis")
	register[memory.Config]("test-memory")
	os.Exit(m.Run())
}

// caught is the configuration that the last Open of a test type was given.
var caught any

var errCaught = errors.New("caught")

// register makes a type of which Open ends with errCaught.
func register[C any](name string) {
	driver.Register(name, func(_ context.Context, c C) (driver.Backend, error) {
		caught = c
		return nil, errCaught
	})
}

// loadBackend loads and opens a test type with the JSON object text as its configuration.
func loadBackend(typ, text string) (any, error) {
	cfg, err := locker.LoadConfig(`{"type": "` + typ + `", "backend": ` + text + `}`)
	if err != nil {
		return nil, err
	}
	if _, err = locker.Open(context.Background(), cfg); !errors.Is(err, errCaught) {
		return nil, err
	}
	return caught, nil
}

func readSchema(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("../../" + name)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(data) {
		t.Fatalf("%s is no JSON", name)
	}
	return data
}
