package redis

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// TOK-004: a lease about which there is a doubt is not passed by the process alone, from the
// announcement of a change until Redis has said that the lock is still ours; nor is it while
// Redis is being asked, or does not answer, nor if it was announced again meanwhile.
func TestDoubtedIsNotPassed(t *testing.T) {
	const owner = "owner"
	lock := "lock"
	for i := 0; slot(lock) != 0; i++ { // the Builder below is one for keys of that slot
		lock = strconv.Itoa(i)
	}
	r := driver.Request{Key: "k", TTL: time.Minute}
	for name, answer := range map[string]rueidis.RedisResult{
		"silent":  rueidis.NewErrorResult(errors.New("connection reset")),
		"loading": reply('-', "LOADING Redis is loading the dataset in memory"),
		"ours":    reply('+', owner),
		"another": reply('+', "another"),
	} {
		t.Run(name, func(t *testing.T) {
			asked := &asked{}
			b := &backend{client: asked, closing: t.Context(), cfg: Config{Timeout: time.Second}}
			b.watched.init()
			var lost lostTo
			h := b.watched.hold(lock, owner, &lost)
			b.watched.granted(h, 1, time.Now(), time.Minute)
			h.last, r.Hold = 100, &lost
			passes := func() bool {
				_, g := b.watched.pass(lock, owner, r)
				return g.Token != 0
			}
			s := b.watched.shard(lock)
			change := func() { // as onInvalidations
				s.mu.Lock()
				defer s.mu.Unlock()
				s.changed(lock)
			}

			if !passes() {
				t.Fatal("not passed without a doubt")
			}
			change()
			if passes() {
				t.Error("passed although a change was announced")
			}
			asked.reply = func() rueidis.RedisResult {
				if passes() {
					t.Error("passed while Redis is being asked")
				}
				return answer
			}
			unanswered := b.look(s)
			if want := name == "silent" || name == "loading"; unanswered != want {
				t.Errorf("unanswered: %v", unanswered)
			}
			if got := passes(); got != (name == "ours") {
				t.Errorf("passed after the answer: %v", got)
			}
			if got := lost == 1; got != (name == "another") {
				t.Errorf("lost: %v", got)
			}
			if name != "ours" {
				return
			}
			change()
			asked.reply = func() rueidis.RedisResult {
				change() // after the look at it
				return answer
			}
			b.look(s)
			if passes() {
				t.Error("passed although another change was announced while Redis was asked")
			}
			asked.reply = func() rueidis.RedisResult { return answer }
			b.look(s)
			if !passes() {
				t.Error("not passed although Redis has confirmed it")
			}
		})
	}
}

// The process passes a lease on by itself only with a token that was set aside, within its turn,
// and if what Redis has confirmed is what the next owner asks for, neither less nor more.
func TestPassedByTheProcess(t *testing.T) {
	for name, c := range map[string]struct {
		change func(h *hold)
		ttl    time.Duration
		want   bool
	}{
		"as it should be":    {func(*hold) {}, time.Minute, true},
		"the tokens are out": {func(h *hold) { h.token = h.last }, time.Minute, false},
		"the turn is over":   {func(h *hold) { h.since = h.since.Add(-turnTime) }, time.Minute, false},
		"an Extend":          {func(h *hold) { h.unsure = true }, time.Minute, false},
		"a doubt":            {func(h *hold) { h.doubted = true }, time.Minute, false},
		"2 % are gone":       {func(h *hold) { h.from = h.from.Add(-1200 * time.Millisecond) }, time.Minute, false},
		"for longer":         {func(*hold) {}, time.Hour, false},
		"for less":           {func(*hold) {}, time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w watched
				w.init()
				var first, next lostTo
				h := w.hold("lock", "owner", &first)
				w.granted(h, 1, time.Now(), time.Minute)
				h.last = 100
				c.change(h)
				held, g := w.pass("lock", "owner", driver.Request{TTL: c.ttl, Hold: &next})
				if held != h || (g.Token != 0) != c.want {
					t.Errorf("got %+v", g)
				}
			})
		})
	}
}

// Leases that expire and that nobody unlocks take no memory for ever, even if no announcement
// of theirs comes.
func TestExpiredAreForgotten(t *testing.T) {
	var w watched
	w.init()
	var lost lostTo
	long := w.hold("long", "owner", &lost)
	w.granted(long, 1, time.Now(), time.Hour)
	asking := w.hold("asking", "owner", &lost)
	ago := time.Now().Add(-2 * time.Minute)
	for i := range 100_000 {
		h := w.hold(strconv.Itoa(i), "owner", &lost)
		w.granted(h, 1, ago, time.Second)
	}
	n := 0
	for i := range w.shards {
		n += len(w.shards[i].holds)
	}
	if n > 64*(64+1) {
		t.Errorf("%d are kept", n)
	}
	for _, h := range []*hold{long, asking} {
		if w.shard(h.lock).find(h.lock, "owner") == nil {
			t.Errorf("%s is forgotten", h.lock)
		}
	}
}

// CTX-004: a lease that was given up here while Redis prolonged it is freed.
func TestGivenUpWhilePassed(t *testing.T) {
	h := driver.Holder{Token: 1}
	asked := &asked{}
	b := &backend{client: asked, layout: newLayout("p"), closing: t.Context(), cfg: Config{Timeout: time.Second}}
	for i := 0; h.Key == "" || slot(b.layout.lockKey(h.Key)) != 0; i++ { // as above
		h.Key = strconv.Itoa(i)
	}
	b.watched.init()
	var lost lostTo
	lock, owner := b.layout.lockKey(h.Key), ownerValue(h.Owner, false)
	b.watched.granted(b.watched.hold(lock, owner, &lost), 1, time.Now(), time.Minute)
	scripts := 0
	asked.reply = func() rueidis.RedisResult {
		if scripts++; scripts > 1 {
			return replies(1)
		}
		b.watched.unholdOwner(lock, owner)
		return replies(2, 65)
	}
	g, err := b.Pass(t.Context(), h, driver.Request{Key: h.Key, TTL: time.Minute, Hold: &lost})
	if g.Token != 0 || err != nil || scripts != 2 {
		t.Errorf("%+v, %v after %d scripts; want the release to be the second", g, err, scripts)
	}
}

type lostTo int

func (n *lostTo) Lost(error) { *n++ }

// asked is a client that is asked for one key at a time.
type asked struct {
	rueidis.Client
	reply func() rueidis.RedisResult
}

func (*asked) B() rueidis.Builder { return rueidis.Builder{} }

func (a *asked) DoMulti(context.Context, ...rueidis.Completed) []rueidis.RedisResult {
	return []rueidis.RedisResult{a.reply()}
}

func (a *asked) Do(context.Context, rueidis.Completed) rueidis.RedisResult { return a.reply() }

// replies is one number, or a list of them.
func replies(numbers ...uint64) rueidis.RedisResult {
	buf := make([]byte, 7)
	if len(numbers) > 1 {
		buf = binary.BigEndian.AppendUint64(append(buf, '*'), uint64(len(numbers)))
	}
	for _, n := range numbers {
		buf = binary.BigEndian.AppendUint64(append(buf, ':'), n)
	}
	return cached(buf)
}

// reply is what Redis says, of a RESP type. Only rueidis's form for caches can be made by others.
func reply(kind byte, text string) rueidis.RedisResult {
	buf := append(make([]byte, 7), kind)
	buf = append(binary.BigEndian.AppendUint64(buf, uint64(len(text))), text...)
	return cached(buf)
}

func cached(buf []byte) rueidis.RedisResult {
	var m rueidis.RedisMessage
	if err := m.CacheUnmarshalView(buf); err != nil {
		panic(err)
	}
	return rueidis.NewResult(m, nil)
}
