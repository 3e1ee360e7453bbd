//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package dirlock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// validity is short, for the sake of the cases that wait for a session's end, and long
// enough for a machine that now and then stands still for a second.
const validity = 2 * time.Second

// directory is in memory where that can be had: on a disk that others write to, a step
// sometimes takes longer than a session lasts.
func directory(t *testing.T) string {
	const memory = "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		return t.TempDir()
	}
	path, err := os.MkdirTemp(memory, "dirlock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(path) })
	return path
}

// store is what the test can do to the directory behind everybody's back.
type store struct {
	path   string
	paused *os.File

	spoiled int // so many times
}

// pause is a process that stands still in the middle of a step. Whoever wants the next step waits.
func (s *store) pause(tb testing.TB) {
	dir, err := os.Open(s.path)
	if err == nil {
		err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		tb.Fatal(err)
	}
	s.paused = dir
}

func (s *store) resume(testing.TB) { s.paused.Close() }

// refuse puts a directory in the place of the file that each grant counts up. What is held can be
// read, prolonged and removed.
func (s *store) refuse(tb testing.TB) {
	s.pause(tb)
	defer s.resume(tb)
	tokens := filepath.Join(s.path, tokensName)
	if err := errors.Join(os.Rename(tokens, tokens+"-away"), os.Mkdir(tokens, 0o777)); err != nil {
		tb.Error(err)
	}
}

func (s *store) accept(tb testing.TB) {
	s.pause(tb)
	defer s.resume(tb)
	tokens := filepath.Join(s.path, tokensName)
	if err := errors.Join(os.Remove(tokens), os.Rename(tokens+"-away", tokens)); err != nil {
		tb.Error(err)
	}
}

func (s *store) remove(tb testing.TB, key string) {
	if err := os.Remove(filepath.Join(s.path, fileName(key))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Error(err)
	}
}

// overwrite puts something under key that is no hold, at once: an empty file is none either,
// but it is a free key.
func (s *store) overwrite(tb testing.TB, key string) {
	spoiled := filepath.Join(s.path, "spoiled")
	s.spoiled++
	something := []string{"something else", "{}", `{"owner": "me", "until": 17}`, "[1, 2]", "null"}
	if err := os.WriteFile(spoiled, []byte(something[s.spoiled%len(something)]), 0o666); err != nil {
		tb.Error(err)
	}
	if err := os.Rename(spoiled, filepath.Join(s.path, fileName(key))); err != nil {
		tb.Error(err)
	}
}

// crash ends a client: Close releases nothing, which is as much as a death does.
func (s *store) crash(tb testing.TB, b driver.Backend) {
	if err := b.Close(tb.Context()); err != nil {
		tb.Error(err)
	}
}

// restart takes the directory away with all that is in it, and brings it back.
func (s *store) restart(tb testing.TB) {
	away := s.path + "-away"
	if err := errors.Join(os.Rename(s.path, away), os.Rename(away, s.path)); err != nil {
		tb.Error(err)
	}
}

// client has a way of its own to the directory: a link, which a fault turns to a directory that
// somebody has for ever.
func (s *store) client(tb testing.TB) (driver.Backend, conformance.Line) {
	base, err := os.MkdirTemp(filepath.Dir(s.path), "dirlock-line")
	if err != nil {
		tb.Fatal(err)
	}
	link, hole := filepath.Join(base, "link"), filepath.Join(base, "hole")
	held := &store{path: hole}
	if err := os.Mkdir(hole, 0o777); err != nil {
		tb.Fatal(err)
	}
	held.pause(tb)
	tb.Cleanup(func() {
		held.resume(tb)
		_ = os.RemoveAll(base)
	})
	leadsTo := func(path string) {
		if err := errors.Join(os.Symlink(path, link+" new"), os.Rename(link+" new", link)); err != nil {
			tb.Error(err)
		}
	}
	leadsTo(s.path)
	b, err := Open(tb.Context(), Config{Path: link, Validity: validity})
	if err != nil {
		tb.Fatal(err)
	}
	return b, conformance.Line{
		BlackHole: func(up, down bool) {
			if up || down { // one step is one call: there is no reply that could be lost by itself
				leadsTo(hole)
			}
		},
		Heal: func() { leadsTo(s.path) },
	}
}

// kill takes the directory away for good.
func (s *store) kill(tb testing.TB) {
	away := fmt.Sprint(s.path, "-away-", time.Now().UnixNano())
	if err := errors.Join(os.Rename(s.path, away), os.RemoveAll(away)); err != nil {
		tb.Error(err)
	}
}

// begin makes an empty one.
func (s *store) begin(tb testing.TB) {
	if err := os.Mkdir(s.path, 0o777); err != nil {
		tb.Error(err)
	}
}

func (s *store) wipe(tb testing.TB) {
	files, err := os.ReadDir(s.path)
	if err != nil {
		tb.Error(err)
	}
	for _, f := range files {
		if err := os.Remove(filepath.Join(s.path, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			tb.Error(err)
		}
	}
}

// keys lists the files. The suite looks for its keys in the names, and file names are
// hashes here: the key follows the name.
func (s *store) keys(tb testing.TB) (all []conformance.StoreKey) {
	files, err := os.ReadDir(s.path)
	if err != nil {
		tb.Error(err)
	}
	for _, f := range files {
		k := conformance.StoreKey{Name: f.Name()}
		if strings.HasSuffix(f.Name(), suffix) {
			e, err := (&step{dir: s.path}).readFile(f.Name())
			if err != nil {
				tb.Error(err)
			}
			k.Name += " " + string(e.Key)
			k.Expires = e.Owner != "" && !e.Session // somebody sweeps it away
		}
		all = append(all, k)
	}
	return all
}

func (s *store) inject() *conformance.Inject {
	return &conformance.Inject{
		Delete:    s.remove,
		Overwrite: s.overwrite,
		Wipe:      s.wipe,
		Pause:     s.pause,
		Resume:    s.resume,
		Client:    s.client,
		Kill:      s.kill,
		Restart:   s.begin,
		Refuse:    s.refuse,
		Accept:    s.accept,
		Process: func(tb testing.TB) conformance.Process {
			cmd := exec.Command(os.Args[0], "-test.run=^TestHolder$")
			cmd.Env = append(os.Environ(), holderEnv+"="+s.path)
			return conformance.Command(tb, cmd)
		},
	}
}

const holderEnv = "DIRLOCK_HOLDER"

// TestHolder is a process that holds locks until the suite kills it (FLT-009).
func TestHolder(t *testing.T) {
	path := os.Getenv(holderEnv)
	if path == "" {
		t.Skip("FLT-009 runs it, in a process of its own")
	}
	b, err := Open(t.Context(), Config{Path: path, Validity: validity})
	if err != nil {
		t.Fatal(err)
	}
	if err := conformance.Holder(b, os.Stdin, os.Stdout); err != nil {
		t.Fatal(err)
	}
}
