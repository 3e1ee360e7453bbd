package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// Whatever a server replies to a script, the outcome is an error that names the Redis key: never
// a panic, a grant, a free lock, or a text that writes on a terminal.
func TestMalformedReplies(t *testing.T) {
	const evil = "ERR \x1b[2Jred\nlevel=INFO"
	foreign := map[string]rueidis.RedisResult{
		"nothing":     list(),
		"one":         list(1),
		"three":       list(1, 2, 3),
		"two":         list(77, 5),
		"a text":      reply('+', "x\x1b[2J\n"),
		"nil":         rueidis.NewErrorResult(rueidis.Nil),
		"beyond 2^53": replies(driver.MaxToken + 1),
		"an error":    reply('-', evil),
		"a type":      reply('-', "LOCKSTEP FOREIGN \x1b[2J\n"),
		"a counter":   reply('-', "LOCKSTEP COUNTER \x1b[2J\n"),
	}
	request := driver.Request{TTL: time.Minute, Hold: new(lostTo)}
	h := driver.Holder{Token: 10}
	layout := newLayout("p")
	for i := 0; h.Key == "" || slot(layout.lockKey(h.Key)) != 0; i++ { // see TestUnconfirmedIsNotHandedOff
		h.Key = strconv.Itoa(i)
	}
	request.Key = h.Key
	lock, owner := layout.lockKey(h.Key), ownerValue(h.Owner, false)
	for name, call := range map[string]func(b *backend) error{
		"Acquire": func(b *backend) error { _, err := b.Acquire(t.Context(), request); return err },
		"Queue": func(b *backend) error {
			defer b.Notify(request.Key, func() {})()
			_, err := b.Queue(t.Context(), request)
			return err
		},
		"first Queue": func(b *backend) error { _, err := b.Queue(t.Context(), request); return err },
		"AcquireAll": func(b *backend) error {
			grants, _, err := b.AcquireAll(t.Context(), []driver.Request{request, request, request, request})
			if grants != nil {
				t.Errorf("AcquireAll: %+v", grants)
			}
			return err
		},
		"Extend":    func(b *backend) error { _, err := b.Extend(t.Context(), h, time.Minute); return err },
		"Release":   func(b *backend) error { return b.Release(t.Context(), h) },
		"take back": func(b *backend) error { return b.Release(t.Context(), driver.Holder{Key: h.Key}) },
		"Inspect": func(b *backend) error {
			info, ok, err := b.Inspect(t.Context(), h.Key)
			if ok || info != (driver.Info{}) {
				t.Errorf("Inspect: %+v, %v", info, ok)
			}
			return err
		},
		"hand off": func(b *backend) error {
			held := b.watched.hold(lock, owner, &driver.Request{Hold: new(lostTo)})
			b.watched.granted(held, 10, time.Now(), time.Minute)
			_, _, err := b.tokens(t.Context(), h.Key, b.client.(*asked).reply(), held, 64)
			return err
		},
	} {
		for what, answer := range foreign {
			b := &backend{client: &asked{reply: func() rueidis.RedisResult { return answer }}, layout: layout, closing: t.Context(), cfg: Config{Timeout: time.Second}}
			b.watched.init()
			err := call(b)
			switch {
			case !errors.Is(err, driver.ErrUnavailable) || errors.Is(err, driver.ErrHeld):
				t.Errorf("%s, answered with %s: %v", name, what, err)
			case what == "an error":
			case !strings.Contains(err.Error(), strconv.Quote(lock)) && !strings.Contains(err.Error(), strconv.Quote(layout.tokenKey(h.Key))):
				t.Errorf("%s, answered with %s: %v; want the Redis key", name, what, err)
			case strings.ContainsAny(err.Error(), "\x1b\n"):
				t.Errorf("%s, answered with %s: %q is not fit to be printed", name, what, err)
			}
		}
	}
}

// A block of tokens rises from the present holder's, and is not larger than what was asked for.
func TestBlocksOfTokens(t *testing.T) {
	b := &backend{layout: newLayout("p")}
	b.watched.init()
	held := b.watched.hold("lock", "owner", &driver.Request{Hold: new(lostTo)})
	b.watched.granted(held, 10, time.Now(), time.Minute)
	for _, tt := range []struct {
		first, last uint64
		ok          bool
	}{
		{11, 11, true}, {11, 74, true}, {1000, 1001, true}, {driver.MaxToken, driver.MaxToken, true},
		{10, 11, false}, {5, 6, false}, {11, 10, false}, {11, 75, false},
		{driver.MaxToken, driver.MaxToken + 1, false}, {math.MaxUint64 - 5, 7, false}, {11, math.MaxUint64, false},
	} {
		first, last, err := b.tokens(t.Context(), "k", replies(tt.first, tt.last), held, 64)
		if (err == nil) != tt.ok || tt.ok && (first != int64(tt.first) || last != int64(tt.last)) {
			t.Errorf("%d to %d: %d, %d, %v", tt.first, tt.last, first, last, err)
		}
		if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("after %d", 10)) {
			t.Errorf("%v: want the token before", err)
		}
	}
}

// An attempt's answer says how long to wait, if a Duration can.
func TestRemaining(t *testing.T) {
	b := &backend{layout: newLayout("p")}
	for n, want := range map[int64]time.Duration{0: -1, -1: 0, -1001: time.Second, math.MinInt64: -1, -math.MaxInt64: -1, math.MinInt64 / 1000: -1} {
		_, err := b.grantOrRemaining(t.Context(), "k", replies(uint64(n)))
		d, ok := driver.Remaining(err)
		if !errors.Is(err, driver.ErrHeld) || ok != (want >= 0) || ok && d != want {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// list is a list, however short.
func list(numbers ...uint64) rueidis.RedisResult {
	buf := binary.BigEndian.AppendUint64(append(make([]byte, 7), '*'), uint64(len(numbers)))
	for _, n := range numbers {
		buf = binary.BigEndian.AppendUint64(append(buf, ':'), n)
	}
	return cached(buf)
}
