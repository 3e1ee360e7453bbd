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

// TOK-004: a lease whose hold is not confirmed is not handed off by the process alone, from the
// announcement of a change until Redis has said that the lock is still ours; nor is it while
// Redis is being asked, or does not answer, nor if it was announced again meanwhile.
func TestUnconfirmedIsNotHandedOff(t *testing.T) {
	const owner = "owner"
	lock := "lock"
	for i := 0; slot(lock) != 0; i++ { // the Builder below is one for keys of that slot
		lock = "{" + strconv.Itoa(i) + "}"
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
			b := &backend{client: asked, seam: &seam{}, closing: t.Context(), cfg: Config{Timeout: time.Second}}
			b.watched.init()
			var lost lostTo
			h := b.watched.hold(lock, owner, &driver.Request{Hold: &lost})
			b.watched.granted(h, 1, time.Now(), time.Minute)
			h.last, r.Hold = 100, &lost
			handsOff := func() bool {
				_, g := b.watched.handOff(lock, owner, r, true)
				return g.Token != 0
			}
			s := b.watched.shard(lock)
			change := func() { // as onInvalidations
				s.mu.Lock()
				defer s.mu.Unlock()
				b.changed(s, lock)
			}

			if !handsOff() {
				t.Fatal("not handed off although nothing was announced")
			}
			change()
			if handsOff() {
				t.Error("handed off although a change was announced")
			}
			asked.reply = func() rueidis.RedisResult {
				if handsOff() {
					t.Error("handed off while Redis is being asked")
				}
				return answer
			}
			look := func() bool {
				due, _ := b.looksAt(lock).take()
				return b.look(b.looksAt(lock), due)
			}
			answered := look()
			if want := name != "silent" && name != "loading"; answered != want {
				t.Errorf("answered: %v", answered)
			}
			if got := handsOff(); got != (name == "ours") {
				t.Errorf("handed off after the answer: %v", got)
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
			look()
			if handsOff() {
				t.Error("handed off although another change was announced while Redis was asked")
			}
			asked.reply = func() rueidis.RedisResult { return answer }
			look()
			if !handsOff() {
				t.Error("not handed off although Redis has confirmed it")
			}
		})
	}
}

// The process hands a lease off by itself only with a token that was set aside, within its turn,
// and if what Redis has confirmed is what the next owner asks for, neither less nor more.
func TestHandedOffByTheProcess(t *testing.T) {
	for name, c := range map[string]struct {
		change func(h *hold)
		ttl    time.Duration
		want   bool
	}{
		"as it should be":    {func(*hold) {}, time.Minute, true},
		"the tokens are out": {func(h *hold) { h.token = h.last }, time.Minute, false},
		"the turn is over":   {func(h *hold) { h.since = h.since.Add(-turnTime) }, time.Minute, false},
		"an Extend":          {func(h *hold) { h.unsure = true }, time.Minute, false},
		"a change":           {func(h *hold) { h.unconfirmed = true }, time.Minute, false},
		"2 % are gone":       {func(h *hold) { h.from = h.from.Add(-1200 * time.Millisecond) }, time.Minute, false},
		"for longer":         {func(*hold) {}, time.Hour, false},
		"for less":           {func(*hold) {}, time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w watched
				w.init()
				var first, next lostTo
				h := w.hold("lock", "owner", &driver.Request{Hold: &first})
				w.granted(h, 1, time.Now(), time.Minute)
				h.last = 100
				c.change(h)
				held, g := w.handOff("lock", "owner", driver.Request{TTL: c.ttl, Hold: &next}, true)
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
	long := w.hold("long", "owner", &driver.Request{Hold: &lost})
	w.granted(long, 1, time.Now(), time.Hour)
	asking := w.hold("asking", "owner", &driver.Request{Hold: &lost})
	ago := time.Now().Add(-2 * time.Minute)
	for i := range 100_000 {
		h := w.hold(strconv.Itoa(i), "owner", &driver.Request{Hold: &lost})
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
func TestGivenUpWhileHandedOff(t *testing.T) {
	h := driver.Holder{Token: 1}
	asked := &asked{}
	b := &backend{client: asked, layout: newLayout("p"), closing: t.Context(), cfg: Config{Timeout: time.Second}}
	b.caps.Has = driver.NewSet(driver.PromptLoss)
	for i := 0; h.Key == "" || slot(b.layout.lockKey(h.Key)) != 0; i++ { // as above
		h.Key = strconv.Itoa(i)
	}
	b.watched.init()
	var lost lostTo
	lock, owner := b.layout.lockKey(h.Key), ownerValue(h.Owner, false)
	b.watched.granted(b.watched.hold(lock, owner, &driver.Request{Hold: &lost}), 1, time.Now(), time.Minute)
	scripts := 0
	asked.reply = func() rueidis.RedisResult {
		if scripts++; scripts > 1 {
			return replies(1)
		}
		b.watched.unholdOwner(lock, owner)
		return replies(2, 65)
	}
	g, err := b.HandOff(t.Context(), h, driver.Request{Key: h.Key, TTL: time.Minute, Hold: &lost})
	if g.Token != 0 || !errors.Is(err, driver.ErrYielded) || scripts != 2 {
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

func (*asked) Mode() rueidis.ClientMode { return rueidis.ClientModeStandalone }

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
