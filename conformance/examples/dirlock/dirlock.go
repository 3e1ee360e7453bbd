// Package dirlock is the example of docs/write-a-backend.md: a whole Lockstep backend in
// little code, with locks in a directory of files that the processes of one machine
// share. It is proven by the suite, and made to be read; it does not scale.
//
// # What stands in the directory
//
// One file for each key that is held, named by the SHA-256 of the key, because keys have
// any bytes and up to 1024 of them, and file names have neither. The key stands in the
// file, with the owner, the token and the instant at which the hold ends. The file
// tokens holds the greatest token of all keys. A file whose time is over is as good as
// none; now and then somebody sweeps such files away.
//
// # What it rests on
//
// The atomic step is flock(2) on the directory: it ends with its process, however that
// dies, and needs no file that somebody could delete. A key's file appears by rename, so
// that a process that dies within the step leaves all of it or nothing. Nothing is synced
// to disk: who holds a lock here runs on this machine, and goes down with it.
//
// The clock is the machine's wall clock, the only one that all its processes share and
// that the standard library can read. If it is set forward, holds end too early by
// that step, and if it is set back, too late. A network file system has several
// machines' clocks, and often no flock: do not put the directory there. Best is one in
// memory, such as a directory in /run; a disk that is busy makes every step slow.
package dirlock

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/driver/keeper"
)

// Config says where the locks are.
type Config struct {
	// Path is the directory. It is made if it is not there. Nothing else may be in it.
	Path string `json:"path"`
	// Validity is how long a session's key stays taken after its process has died, from
	// 100 ms to 1 h; 0 is 5 s. All processes may choose for themselves.
	Validity time.Duration `json:"validity"`
}

const defaultValidity = 5 * time.Second

// UnmarshalURL implements driver.URLConfig: dir:///var/lib/app/locks?validity=2s.
func (c *Config) UnmarshalURL(u *url.URL) error {
	if u.Host != "" || u.User != nil {
		return errors.New("a dir URL is dir:///path/of/the/directory, without a host")
	}
	c.Path = u.Path
	return nil
}

// withDefaults also checks.
func (c Config) withDefaults() (Config, error) {
	if c.Path == "" {
		return c, fmt.Errorf("%w: path: it is empty; want the path of a directory", driver.ErrInvalidConfig)
	}
	path, err := filepath.Abs(c.Path) // the process may change its working directory
	if err != nil {
		return c, fmt.Errorf("%w: path: %q: %w", driver.ErrInvalidConfig, c.Path, err)
	}
	c.Path = path
	if c.Validity == 0 {
		c.Validity = defaultValidity
	}
	if c.Validity < 100*time.Millisecond || c.Validity > time.Hour {
		return c, fmt.Errorf("%w: validity: %s is not between 100ms and 1h0m0s", driver.ErrInvalidConfig, c.Validity)
	}
	return c, nil
}

func init() { driver.Register("dir", Open) }

// Open opens one client of the directory. It is for [driver.Register] and for tests.
func Open(ctx context.Context, c Config) (driver.Backend, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Path, 0o777); err != nil {
		return nil, unavailable(err)
	}
	b := &backend{
		config:  c,
		turn:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		until:   map[driver.Owner]time.Time{},
		watches: map[*watch]bool{},
	}
	for _, f := range []func(*step) error{(*step).probe, (*step).sweep} { // a store that does not work says so now
		if err := b.step(ctx, f); err != nil {
			return nil, err
		}
	}
	b.sessions = keeper.New(keeper.Config{Validity: c.Validity, Renew: b.renew, AtOnce: renewAtOnce})
	b.background.Add(1)
	go b.sweepLoop()
	return b, nil
}
