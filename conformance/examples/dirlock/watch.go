package dirlock

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// watchEvery is how often the files of keys that somebody waits for are looked at: often
// enough for Granularity.
const watchEvery = 10 * time.Millisecond

// watch is one key that somebody waits for.
type watch struct {
	path string
	wake func()
	seen fs.FileInfo // nil while there is no file, or nobody has looked
}

// Notify looks at the key's file from time to time, and calls wake when it has changed, or
// is not there. Without it a waiter would find the release by another client at the next
// poll of its Retry.
func (b *backend) Notify(key string, wake func()) (stop func()) {
	w := &watch{path: filepath.Join(b.config.Path, fileName(key)), wake: wake}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return func() {}
	}
	if len(b.watches) == 0 {
		b.background.Add(1)
		b.watcher++
		go b.look(b.watcher)
	}
	b.watches[w] = true
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.watches, w)
	})
}

// look runs while anybody waits, and the watcher is still the one with that number: the
// last stop and the next Notify may both fall between two looks.
func (b *backend) look(number int) {
	defer b.background.Done()
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.done:
			return
		case <-tick.C:
		}
		b.mu.Lock()
		if len(b.watches) == 0 || b.watcher != number {
			b.mu.Unlock()
			return
		}
		all := make([]*watch, 0, len(b.watches))
		for w := range b.watches {
			all = append(all, w)
		}
		b.mu.Unlock()
		for _, w := range all {
			now, err := os.Lstat(w.path) // no step: a hint need not be exact
			if err != nil || w.seen == nil || !os.SameFile(now, w.seen) || !now.ModTime().Equal(w.seen.ModTime()) {
				w.seen = now
				w.wake()
			}
		}
	}
}
