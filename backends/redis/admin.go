package redis

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is Redis's name of a script
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// Inspect implements driver.Inspector.
func (b *backend) Inspect(ctx context.Context, key string) (driver.Info, bool, error) {
	keys, args := b.inspection(key)
	info, err := b.inspected(ctx, key, inspectScript.Exec(ctx, b.client, keys, args))
	return info, info.Key != "", err
}

func (b *backend) inspection(key string) (keys, args []string) {
	return []string{b.layout.lockKey(key), b.layout.tokenKey(key)}, []string{strconv.Itoa(maxValue)}
}

// inspected reads the reply of inspect.lua. The Info is empty where the lock is free.
func (b *backend) inspected(ctx context.Context, key string, result rueidis.RedisResult) (driver.Info, error) {
	reply, err := result.ToArray()
	switch {
	case err != nil:
		return driver.Info{}, b.scriptError(ctx, key, result, err)
	case len(reply) != 5:
		return driver.Info{}, b.malformed(key, fmt.Sprintf("%d values, not 5", len(reply)))
	}
	value, err1 := reply[0].ToString()
	remaining, err2 := reply[1].AsInt64()
	token, err3 := reply[2].AsUint64()
	now, err4 := reply[3].AsUint64()
	waiters, err5 := reply[4].AsInt64()
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return driver.Info{}, b.malformed(key, err.Error())
	}
	if value == "" {
		return driver.Info{}, nil
	}
	lock := b.layout.lockKey(key)
	info, owner, ok := parseValue(value)
	if !ok {
		return driver.Info{}, fmt.Errorf("%w: Redis key %q holds %+.80q, which is no owner of ours", driver.ErrRefused, lock, value)
	}
	info.Key, info.Token, info.Waiters = key, token, int(max(waiters, -1))
	if remaining > 0 {
		info.Remaining = time.Duration(min(remaining, int64(math.MaxInt64/time.Millisecond))) * time.Millisecond
	}
	// A token is the server's clock at the grant, unless that was behind an earlier token.
	if 0 < token && token <= now {
		info.Since = time.Now().Add(-time.Duration(min(now-token, math.MaxInt64/1000)) * time.Microsecond)
	}
	if token, taken, ok := b.watched.present(lock, owner); ok { // the counter is ahead of what is handed off here
		info.Token, info.Since = token, taken
	}
	return info, nil
}

// listed is about how many names a page of a List looks at. The server does nothing else
// meanwhile, for some 0.1 ms.
const listed = 512

var inspectSum = func() string {
	sum := sha1.Sum([]byte(holderSource + counterSource + inspectSource)) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}()

// List implements driver.Lister: page by page, on one master after the other. What is no lock of
// ours is left out, and so is what has ended between its name and its value.
func (b *backend) List(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
	return func(yield func(driver.Info, error) bool) {
		client, done, err := b.untracked(ctx)
		if err != nil {
			yield(driver.Info{}, b.classify(ctx, err))
			return
		}
		defer done()
		tags, err := b.tags(ctx)
		if err != nil {
			yield(driver.Info{}, b.classify(ctx, err))
			return
		}
		for _, tag := range tags {
			for cursor := "0"; ; {
				var page []driver.Info
				page, cursor, err = b.listPage(ctx, client, tag, cursor, prefix)
				for _, info := range page {
					if err := ctx.Err(); err != nil {
						yield(driver.Info{}, b.classify(ctx, err))
						return
					}
					if !yield(info, nil) {
						return
					}
				}
				if err != nil {
					yield(driver.Info{}, err)
					return
				}
				if cursor == "0" {
					break
				}
			}
		}
	}
}

// untracked is a client for one List. On the connections that are tracked the server would remember
// three keys, 290 bytes, for each lock that it told, and some of them for ever: nothing is ever
// announced of a queue that nobody makes.
func (b *backend) untracked(ctx context.Context) (client rueidis.Client, done func(), err error) {
	if b.closed.Load() {
		return nil, nil, driver.ErrClosed
	}
	if !b.caps.Has.Has(driver.PromptLoss) {
		return b.client, func() {}, nil
	}
	opt := b.option
	opt.DisableCache, opt.DialCtxFn = true, dialledForOne(opt.DialCtxFn)
	type made struct {
		client rueidis.Client
		err    error
	}
	ready := make(chan made, 1) // rueidis dials without a ctx
	go func() {
		c, err := newClient(opt)
		ready <- made{c, err}
	}()
	select {
	case m := <-ready:
		if m.err != nil {
			return nil, nil, m.err
		}
		return gated{seamClient{Client: m.client, seam: b.seam}, &b.peers}, m.client.Close, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-b.closing.Done():
		err = driver.ErrClosed
	}
	go func() {
		if m := <-ready; m.err == nil {
			m.client.Close()
		}
	}()
	return nil, nil, err
}

// listPage is what the names after cursor are, as far as one page goes, and the next cursor, which is
// "0" at the end.
func (b *backend) listPage(ctx context.Context, client rueidis.Client, tag, cursor, prefix string) (page []driver.Info, next string, err error) {
	if b.closed.Load() {
		return nil, "", driver.ErrClosed
	}
	reply, err := listScript.Exec(ctx, client, []string{b.layout.probeKey(tag)}, []string{cursor, b.layout.pattern(prefix), strconv.Itoa(listed)}).ToArray()
	if err != nil {
		if err = b.classify(ctx, err); means(err, forbidden) {
			err = fmt.Errorf("it needs the right +scan: %w", err)
		}
		return nil, "", err
	}
	if len(reply) != 2 {
		return nil, "", fmt.Errorf("%w: SCAN: malformed reply: %d values, not 2", driver.ErrUnavailable, len(reply))
	}
	next, err1 := reply[0].ToString()
	names, err2 := reply[1].AsStrSlice()
	if err := errors.Join(err1, err2); err != nil {
		return nil, "", fmt.Errorf("%w: SCAN: malformed reply: %s", driver.ErrUnavailable, b.secrets.words(err.Error()))
	}
	keys := make([]string, 0, len(names))
	for _, name := range names {
		// The pattern of a prefix that ends with a brace also matches the brace behind a key.
		if key, ok := b.layout.keyOf(name); ok && len(key) <= maxKey && strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	page, err = b.inspectAll(ctx, client, keys)
	return page, next, err
}

// maxKey is locker.MaxKey: what is longer is nobody's.
const maxKey = 1024

// inspectAll is Inspect of many, in one go.
func (b *backend) inspectAll(ctx context.Context, client rueidis.Client, keys []string) (page []driver.Info, err error) {
	if len(keys) == 0 {
		return nil, nil
	}
	asks := make([]rueidis.Completed, len(keys))
	for i, key := range keys {
		keys, args := b.inspection(key)
		asks[i] = client.B().Evalsha().Sha1(inspectSum).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	for i, reply := range client.DoMulti(ctx, asks...) {
		if said, ok := rueidis.IsRedisErr(reply.Error()); ok && said.IsNoScript() {
			keys, args := b.inspection(keys[i])
			reply = inspectScript.Exec(ctx, client, keys, args) // from now on this master knows it
		}
		info, err := b.inspected(ctx, keys[i], reply)
		switch {
		case err == nil && info.Key != "":
			page = append(page, info)
		case err != nil && !ofOthers(reply, err) && !between(reply):
			return page, err
		}
	}
	return page, nil
}

// between says whether a lock is on its way from one master to another, and its counter is not where
// it is: neither of them can tell of it.
func between(reply rueidis.RedisResult) bool {
	said, ok := rueidis.IsRedisErr(reply.Error())
	return ok && said.IsTryAgain()
}

// ofOthers says whether err is that of a key that somebody else put in a lock's place.
func ofOthers(reply rueidis.RedisResult, err error) bool {
	said, refused := rueidis.IsRedisErr(reply.Error())
	return errors.Is(err, driver.ErrRefused) && (!refused || strings.HasPrefix(said.Error(), "LOCKSTEP "))
}

// Break implements driver.Breaker.
//
// Redis has no right of its own for it: who may release a lock may delete any.
func (b *backend) Break(ctx context.Context, key string, token uint64) error {
	if b.closed.Load() {
		return driver.ErrClosed
	}
	lock := b.layout.lockKey(key)
	owner, last, held := b.watched.breaking(lock, token)
	if last == 0 {
		return driver.ErrLost
	}
	if s := b.sessions.get(lock); s != nil && s.granted == token {
		owner, last = s.owner, token
	}
	reply := breakScript.Exec(ctx, b.client, []string{lock, b.layout.tokenKey(key)}, []string{strconv.FormatUint(last, 10), owner})
	n, err := b.number(ctx, key, reply, 0, 1)
	if kind, ok := foreignKind(reply); ok {
		err = fmt.Errorf("%w: Redis key %q holds a %s, not a lock", driver.ErrLost, lock, b.secrets.words(kind))
	}
	if err == nil && n == 1 && owner != "" {
		b.broken(lock, owner)
	}
	if b.watched.brokenOff(held) && (err != nil || n == 0) {
		b.verify(held)
	}
	switch {
	case err != nil:
		return err
	case n == 0:
		return driver.ErrLost
	}
	b.watched.wake(lock) // our own commands are not announced to us
	return nil
}

// breaking is the hold of this process with token, which from now on is not handed off without the
// server's hearing of it: owner is its name there, and last the token that the server has of it. If
// the token is set aside for one who has not got the key yet, last is 0.
func (w *watched) breaking(lock string, token uint64) (owner string, last uint64, held *hold) {
	s := w.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.holds[lock] {
		switch {
		case !h.held:
		case h.token == token:
			h.breaking++
			return h.owner, h.last, h
		case h.token < token && token <= h.last:
			return h.owner, 0, nil
		}
	}
	return "", token, nil
}

// brokenOff ends what breaking began, and says whether the hold goes on here.
func (w *watched) brokenOff(h *hold) bool {
	if h == nil {
		return false
	}
	s := w.shard(h.lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	h.breaking--
	return !h.gone
}

// broken ends what this client holds as owner, which the server announces to others only.
func (b *backend) broken(lock, owner string) {
	if s := b.sessions.get(lock); s != nil && s.owner == owner {
		s.finish(driver.ErrBroken)
	}
	s := b.watched.shard(lock)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(lock, driver.ErrBroken, func(h *hold) bool { return h.held && h.owner == owner })
}

// whyTimeout bounds the question why a hold is lost: its holder must hear of the loss, whatever
// the reason. A server that takes longer than this to answer is not there.
const whyTimeout = time.Second

// brokenFor is how long the note stays of a hold that was broken after its holder has asked: it
// asks again in each call.
const brokenFor = time.Minute

// whyLost is the cause of a loss that the server has told of: ErrBroken, or ErrLost.
func (b *backend) whyLost(ctx context.Context, lock, owner string) error {
	return b.causes(ctx, []*hold{{lock: lock, owner: owner}})[0]
}

// causes is whyLost of many. It asks by a command that changes the note's life: after one that
// reads, the server would track the note for this client, and where there is none nothing would
// end that.
func (b *backend) causes(ctx context.Context, lost []*hold) []error {
	if len(lost) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, whyTimeout)
	defer cancel()
	asks := make([]rueidis.Completed, len(lost))
	for i, h := range lost {
		note := brokenKey(b.layout.counterOf(h.lock), h.owner)
		asks[i] = b.client.B().Pexpire().Key(note).Milliseconds(brokenFor.Milliseconds()).Build()
	}
	why := make([]error, len(lost))
	for i, reply := range b.client.DoMulti(ctx, asks...) {
		why[i] = driver.ErrLost
		if n, err := reply.AsInt64(); err == nil && n == 1 {
			why[i] = driver.ErrBroken
		}
	}
	return why
}
