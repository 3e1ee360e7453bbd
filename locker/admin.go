package locker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// defaultIdentity is the host's name, the process's number and the program's name. The arguments
// are left out: they may hold a secret.
var defaultIdentity = sync.OnceValue(func() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "unknown"
	}
	who := host + ":" + strconv.Itoa(os.Getpid())
	if len(os.Args) > 0 && os.Args[0] != "" {
		who += " " + filepath.Base(os.Args[0])
	}
	return who[:min(len(who), MaxIdentity)]
})

// Inspect reports who holds key at this moment; ok is false if it is free. It is for people:
// by the time it is read it may be out of date. The key is used as in Lock. The errors are
// ErrUnsupported if the backend cannot tell, ErrUnavailable, ErrClosed and ErrInvalidKey.
func (l *Locker) Inspect(ctx context.Context, key string) (info Info, ok bool, err error) {
	const op = "inspect"
	i, err := ability[driver.Inspector](l, ctx, op)
	if err != nil {
		return Info{}, false, err
	}
	full, err := l.fullKey(op, key)
	if err != nil {
		return Info{}, false, err
	}
	if !l.ops.enter() {
		return Info{}, false, l.fail(op, full, CodeClosed, nil)
	}
	defer l.ops.leave()
	info, ok, err = i.Inspect(ctx, full)
	if err != nil {
		return Info{}, false, l.fail(op, full, codeOf(err), withContext(ctx, err))
	}
	if ok {
		info.Key = key
	}
	return info, ok, nil
}

// List tells what is held of the keys that begin with prefix, "" for all of them:
//
//	for info, err := range l.List(ctx, "billing/") {
//
// In a Namespace it is what is held there, and neither prefix nor the keys that it tells have the
// namespace, so that they can be given to Inspect, Break and Lock of the same Locker. The order
// is any. What is held from the beginning to the end of the List comes at least once; what is
// granted or ends meanwhile may be told or not (ADM-003). Memory is bounded, however much is held.
//
// An error is the last thing that comes, with an empty Info: ErrUnsupported if the backend cannot
// list (the capability Listing), ErrUnavailable, ErrClosed, and those of ctx (ADM-004).
func (l *Locker) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	const op = "list"
	return func(yield func(Info, error) bool) {
		lister, err := ability[driver.Lister](l, ctx, op)
		if err != nil {
			yield(Info{}, err)
			return
		}
		full, cut := prefix, 0
		switch {
		case l.unusable != nil:
			yield(Info{}, l.fail(op, prefix, CodeInvalidKey, l.unusable))
			return
		case l.defaults.inNamespace:
			cut = len(l.defaults.namespace) + 1
			full = l.defaults.namespace + ":" + prefix
		}
		if n := len(full); n > MaxKey {
			yield(Info{}, l.fail(op, prefix, CodeInvalidKey, fmt.Errorf("the prefix has %d bytes, namespace included; at most %d are allowed", n, MaxKey)))
			return
		}
		if !l.ops.enter() {
			yield(Info{}, l.fail(op, prefix, CodeClosed, nil))
			return
		}
		entered := true
		defer func() {
			if entered {
				l.ops.leave()
			}
		}()
		ctx, cancel := l.untilClose(ctx)
		defer cancel()
		for info, err := range lister.List(ctx, full) {
			if err != nil {
				err = l.unlessClosing(context.WithoutCancel(ctx), err)
				yield(Info{}, l.fail(op, prefix, codeOf(err), withContext(ctx, err)))
				return
			}
			info.Key = info.Key[cut:]
			// Close does not wait for the caller's loop, which may be what calls it.
			l.ops.leave()
			entered = false
			if !yield(info, nil) {
				return
			}
			if entered = l.ops.enter(); !entered {
				yield(Info{}, l.fail(op, prefix, CodeClosed, nil))
				return
			}
		}
	}
}

// Break ends somebody's hold of key, wherever it is held, and frees the key at once: for an
// operator who knows that its holder will not come back. token is that of the hold, as Inspect and
// List tell it; if the hold with this token does not have the key any more, the error is ErrLost
// and nothing changes (ADM-005).
//
// The holder hears of it as of any loss, with ReasonBroken: at once where the backend declares
// PromptLoss, otherwise at its next renewal or its deadline. Until then it considers the lock
// held, and after that it may still be at work: what must not be done twice needs the token
// (docs/fencing.md).
//
// Other errors: ErrUnsupported if the backend cannot (the capability Breaking), ErrUnavailable (if
// the outcome is unknown, Inspect tells), ErrClosed, ErrInvalidKey, and ErrInvalidArgument for a
// token that no hold has.
func (l *Locker) Break(ctx context.Context, key string, token uint64) error {
	const op = "break"
	b, err := ability[driver.Breaker](l, ctx, op)
	if err != nil {
		return err
	}
	full, err := l.fullKey(op, key)
	if err != nil {
		return err
	}
	if token == 0 || token > driver.MaxToken {
		return l.fail(op, full, CodeInvalidArgument, errors.New("token: "+strconv.FormatUint(token, 10)+" is no hold's; Inspect tells the holder's"))
	}
	if !l.ops.enter() {
		return l.fail(op, full, CodeClosed, nil)
	}
	defer l.ops.leave()
	if err := b.Break(ctx, full, token); err != nil {
		return l.fail(op, full, codeOf(err), withContext(ctx, err))
	}
	return nil
}

// fullKey is key as Lock uses it.
func (l *Locker) fullKey(op, key string) (string, error) {
	if l.defaults.inNamespace {
		return l.Key(key)
	}
	if err := checkKey(key); err != nil {
		return "", l.fail(op, key, CodeInvalidKey, err)
	}
	return key, nil
}
