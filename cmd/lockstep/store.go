package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	_ "github.com/lockstep-go/lockstep/backends/memory"
	_ "github.com/lockstep-go/lockstep/backends/postgres"
	_ "github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

const configVariable = "LOCKSTEP_CONFIG"

// store is which store the command is about.
type store struct{ source string }

// load reads the configuration over what base says.
func (s *store) load(base locker.Config) (locker.Config, error) {
	source := s.source
	switch {
	case source != "":
	case os.Getenv(configVariable) != "":
		source = "env:" + configVariable
	case os.Getenv("LOCKSTEP_TYPE") != "":
		source = "{}" // the variables of single fields say it all
	default:
		return base, &exitError{exitConfig, errors.New("no store is configured: set " + configVariable + " or give --config, such as redis://localhost:6379 or postgres://app@db/app")}
	}
	return base.Load(source)
}

// open opens a store that several processes share.
func (s *store) open(ctx context.Context, base locker.Config) (*locker.Locker, locker.Config, error) {
	cfg, err := s.load(base)
	if err != nil {
		return nil, cfg, err
	}
	l, err := locker.Open(ctx, cfg)
	if err != nil {
		return nil, cfg, err
	}
	if caps := l.Capabilities(); !caps.Has.Has(driver.SharedStore) {
		closeLocker(l)
		return nil, cfg, &exitError{exitConfig, fmt.Errorf("the locks of type %q live within one process: no other process would see one of lockstep's, nor lockstep one of theirs; configure a store that processes share, such as redis://localhost:6379 or postgres://app@db/app", caps.Name)}
	}
	return l, cfg, nil
}

// closeTimeout bounds a Close: what is held by then ends by its own time.
const closeTimeout = 5 * time.Second

func closeLocker(l *locker.Locker) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = l.Close(ctx)
}
