package dirlock

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// step is one atomic step: while it lasts, no other client reads or writes the directory.
type step struct {
	dir string
	now time.Time // the same for all of the step, and of the wall clock alone
}

// step waits for the directory and runs f. Once f has begun it comes to its end, whatever
// becomes of ctx: the outcome of a step is always known.
func (b *backend) step(ctx context.Context, f func(*step) error) error {
	// The goroutines of this client queue here; only the first has to poll.
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return ended(ctx, b.done)
	case <-b.done:
		return driver.ErrClosed
	}
	// Whoever waits for the directory holds the gate meanwhile. Otherwise a client that
	// does one step after the other would hardly ever let anybody else in. Only fairness
	// hangs on the gate; somebody may delete it.
	gate, err := b.lock(ctx, func() (*os.File, error) {
		return os.OpenFile(filepath.Join(b.config.Path, gateName), os.O_RDWR|os.O_CREATE, 0o666)
	})
	if err != nil {
		return err
	}
	dir, err := b.lock(ctx, func() (*os.File, error) { return os.Open(b.config.Path) })
	gate.Close()
	if err != nil {
		return err
	}
	defer dir.Close() // this also ends the flock
	return f(&step{dir: b.config.Path, now: time.Now().Round(0)})
}

// lock opens a file and waits until it is locked. To close it is to unlock it.
func (b *backend) lock(ctx context.Context, open func() (*os.File, error)) (*os.File, error) {
	f, err := open()
	if err != nil {
		return nil, unavailable(err)
	}
	// A flock that waits cannot be interrupted, and its holder may stand still.
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 250*time.Microsecond) {
		if err := ended(ctx, b.done); err != nil {
			f.Close()
			return nil, err
		}
		ok, err := tryFlock(f)
		if err != nil {
			f.Close()
			return nil, unavailable(err)
		}
		if ok {
			return f, nil
		}
		time.Sleep(pause)
	}
}

// ended is why the waiting for a step is over. Nothing has been done by then.
func ended(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return driver.ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil { // not its cause: that may be the loss of some other hold
		return fmt.Errorf("%w: somebody else has the directory: %w", driver.ErrRefused, err)
	}
	return nil
}

// unavailable is for what the file system refuses.
func unavailable(err error) error { return fmt.Errorf("%w: %w", driver.ErrUnavailable, err) }

// refused is for what it refuses before a grant is written, as on a disk that is full: it is known then that there is none.
func refused(err error) error { return fmt.Errorf("%w: %w", driver.ErrRefused, err) }

const (
	suffix     = ".lock"  // of the file of a key
	tokensName = "tokens" // no key's file has that name, nor one of the next
	newName    = "new"
	gateName   = "gate"
)

func fileName(key string) string {
	hash := sha256.Sum256([]byte(key))
	return hex.EncodeToString(hash[:]) + suffix
}

// read is what stands under key.
func (s *step) read(key string) (entry, error) {
	return s.readFile(fileName(key))
}

func (s *step) readFile(name string) (e entry, err error) {
	path := filepath.Join(s.dir, name)
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return entry{}, nil
	case err != nil:
		return entry{}, unavailable(err)
	case len(data) == 0:
		return entry{}, nil // that is what a power cut leaves; the holder is gone as well
	}
	// A file of another name may be a copy of one of ours.
	if err := json.Unmarshal(data, &e); err != nil || e.Owner == "" || fileName(string(e.Key)) != name {
		return entry{foreign: true}, nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // an administrator does not ask us
		return entry{}, nil
	case err != nil:
		return entry{}, unavailable(err)
	}
	e.Until = info.ModTime()
	return e, nil
}

// create puts e in the place of an entry whose time is over.
func (s *step) create(e entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	temporary, name := filepath.Join(s.dir, newName), fileName(string(e.Key))
	if err := os.WriteFile(temporary, append(data, '\n'), 0o666); err != nil {
		return refused(err)
	}
	if err := os.Chtimes(temporary, time.Time{}, e.Until); err != nil {
		return refused(err)
	}
	if err := s.remove(name); err != nil { // some file systems wait for the disk when rename replaces
		return err
	}
	if err := os.Rename(temporary, filepath.Join(s.dir, name)); err != nil {
		return unavailable(err)
	}
	return nil
}

// prolong makes what stands under key end at until.
func (s *step) prolong(key string, until time.Time) error {
	err := os.Chtimes(filepath.Join(s.dir, fileName(key)), time.Time{}, until)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return driver.ErrLost
	case err != nil:
		return unavailable(err)
	}
	return nil
}

func (s *step) remove(name string) error {
	if err := os.Remove(filepath.Join(s.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unavailable(err)
	}
	return nil
}

// mint is the next token. One counter serves all keys, so that it need not outlive each of
// them. The clock takes part in it, for the day on which the counter is lost.
func (s *step) mint() (uint64, error) {
	f, err := s.openTokens()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, refused(err)
	}
	last, _ := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64) // 0 if it is not there
	if last >= driver.MaxToken {
		return 0, refused(fmt.Errorf("the file %s says %d, and no token may be greater", tokensName, last))
	}
	next := max(last+1, uint64(s.now.UnixMicro()))
	// In place, as one small write of a width that never changes.
	if _, err := f.WriteAt(fmt.Appendf(nil, "%016d\n", next), 0); err != nil {
		return 0, refused(err)
	}
	return next, nil
}

func (s *step) openTokens() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.dir, tokensName), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, refused(err)
	}
	return f, nil
}

// sweep removes the files of holds whose time is over.
func (s *step) sweep() error {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return unavailable(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), suffix) {
			continue
		}
		e, err := s.readFile(f.Name())
		if err == nil && !e.taken(s.now) {
			err = s.remove(f.Name())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// probe makes sure that the directory can do what the rest relies on: a time that is cut
// off would end a hold before its holder knows.
func (s *step) probe() error {
	path := filepath.Join(s.dir, newName)
	want := s.now.Truncate(time.Second).Add(123456789)
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		return unavailable(err)
	}
	if err := os.Chtimes(path, time.Time{}, want); err != nil {
		return unavailable(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return unavailable(err)
	}
	if !info.ModTime().Equal(want) {
		return fmt.Errorf("%w: path: %q: this file system keeps no nanoseconds", driver.ErrUnsupported, s.dir)
	}
	return s.remove(newName)
}
