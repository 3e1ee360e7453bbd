package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/redis/rueidis"
)

// redisStore is the Redis that is examined.
type redisStore struct {
	*examination
	option rueidis.ClientOption // as the backend would connect
	config redisConfig
	client rueidis.Client
	nodes  []*redisNode
}

// redisConfig are the fields of redis.Config that the doctor needs to know.
type redisConfig struct {
	DB        int    `json:"db"`
	MasterSet string `json:"masterSet"`
	Prefix    string `json:"prefix"`
	Username  string `json:"username"`
	Validity  string `json:"validity"`
}

// redisNode is one of its servers.
type redisNode struct {
	addr   string
	client rueidis.Client
	info   map[string]string
	config map[string]string // of CONFIG GET; nil without that right
	unseen error             // why it is nil
}

// examineRedis looks at everything itself, over a client of its own: a store that the backend
// refuses to open is the one that most needs a doctor.
func examineRedis(ctx context.Context, s *store) (*examination, error) {
	r := &redisStore{examination: &examination{Store: "Redis", Verdict: note}}
	captured := false
	cfg, err := s.load(locker.Config{Type: "redis", Backend: redis.Config{ClientOption: func(o *rueidis.ClientOption) { r.option, captured = *o, true }}})
	if err != nil {
		return nil, err
	}
	r.config = redisConfig{Prefix: "lockstep", Validity: "10s"}
	if err := shown(cfg, &r.config); err != nil {
		return nil, err
	}
	l, openErr := locker.Open(ctx, cfg)
	if openErr == nil {
		defer closeLocker(l)
	}
	if !captured {
		return nil, openErr
	}
	if err := r.connect(); err != nil {
		if openErr == nil {
			openErr = err
		}
		return nil, openErr // nothing to be seen from outside
	}
	defer r.client.Close()
	if openErr != nil {
		r.add(finding{Severity: critical, Check: "open", Found: wordsOf(openErr), Means: "programs with this configuration do not start", Do: "see the other findings"})
	} else {
		r.tryLock(ctx, l)
	}
	return r.examination, r.look(ctx)
}

// connect makes a client as plain as can be: one that the server's age or the user's rights do not
// keep from connecting.
func (r *redisStore) connect() (err error) {
	o := r.option
	o.DisableCache, o.AlwaysRESP2, o.DisableRetry, o.ClientName, o.ClientSetInfo = true, true, true, "", rueidis.DisableClientSetInfo
	o.OnInvalidations, o.ClientTrackingOptions = nil, nil
	if r.client, err = rueidis.NewClient(o); err != nil {
		return err
	}
	nodes := r.client.Nodes()
	for _, addr := range slices.Sorted(maps.Keys(nodes)) {
		r.nodes = append(r.nodes, &redisNode{addr: addr, client: nodes[addr]})
	}
	return nil
}

func (n *redisNode) do(ctx context.Context, args ...string) rueidis.RedisResult {
	return n.client.Do(ctx, n.client.B().Arbitrary(args...).Build())
}

// look asks every node.
func (r *redisStore) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*doctorTimeout)
	defer cancel()
	clocks := map[string]clockReading{}
	for _, n := range r.nodes {
		if reading, err := n.clock(ctx); err == nil {
			clocks[n.addr] = reading
		}
	}
	began := time.Now()
	for _, n := range r.nodes {
		if err := n.ask(ctx); err != nil {
			r.add(finding{Severity: critical, Check: "node", Node: n.addr, Found: "it does not answer: " + err.Error(),
				Means: "locks whose keys it has cannot be taken, renewed or released", Clauses: []string{"ERR-002"}, Do: "bring it back, or promote its replica"})
			continue
		}
		r.version(n)
		if n.master() {
			r.persistence(n)
			r.eviction(n)
			r.memory(n)
			r.tracking(ctx, n)
			r.clients(n)
		}
		r.replicas(n)
	}
	r.rights(ctx)
	r.cluster(ctx)
	for _, n := range r.nodes {
		if n.info == nil && n.unseen == nil {
			continue
		}
		r.ping(ctx, n)
	}
	// The drift of two clocks takes a while to be seen.
	const apart = time.Second
	select {
	case <-time.After(apart - time.Since(began)):
	case <-ctx.Done():
	}
	r.clocks(ctx, clocks)
	return nil
}

// ask asks for what most findings are about. Only silence is an error.
func (n *redisNode) ask(ctx context.Context) error {
	text, err := n.do(ctx, "INFO").ToString()
	if _, refused := rueidis.IsRedisErr(err); err != nil && !refused {
		return err
	}
	n.info = parseInfo(text)
	if err != nil {
		n.unseen = err
	}
	conf, err := n.do(ctx, "CONFIG", "GET", "*").AsStrMap()
	if err == nil {
		n.config = conf
		return nil
	}
	if _, refused := rueidis.IsRedisErr(err); !refused {
		return err
	}
	n.unseen = err
	return nil
}

func parseInfo(text string) map[string]string {
	fields := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

func (n *redisNode) number(field string) int64 {
	v, _ := strconv.ParseInt(n.info[field], 10, 64)
	return v
}

func (n *redisNode) setting(name string) (value int64, known bool) {
	v, err := strconv.ParseInt(n.config[name], 10, 64)
	return v, err == nil
}

// master says whether locks are taken here. A server that does not say is taken for one.
func (n *redisNode) master() bool { return n.info["role"] != "slave" }

// ping measures the way to a node. It does not matter what the answer says.
func (r *redisStore) ping(ctx context.Context, n *redisNode) {
	const times = 200
	var all latencies
	for range times {
		began := time.Now()
		err := n.do(ctx, "PING").Error()
		if _, refused := rueidis.IsRedisErr(err); err != nil && !refused {
			return // said elsewhere
		}
		all = append(all, time.Since(began))
	}
	validity, _ := time.ParseDuration(r.config.Validity)
	r.latency("latency", n.addr, all, validity/3)
}

func (n *redisNode) clock(ctx context.Context) (clockReading, error) {
	return readClock(func() (time.Time, error) {
		parts, err := n.do(ctx, "TIME").AsStrSlice()
		if err != nil {
			return time.Time{}, err
		}
		if len(parts) != 2 {
			return time.Time{}, errors.New("the answer to TIME is malformed")
		}
		s, err1 := strconv.ParseInt(parts[0], 10, 64)
		us, err2 := strconv.ParseInt(parts[1], 10, 64)
		return time.Unix(s, us*1000), errors.Join(err1, err2)
	})
}

// clocks compares each node's clock with this machine's, and the nodes' with each other.
func (r *redisStore) clocks(ctx context.Context, first map[string]clockReading) {
	const apart = 100 * time.Millisecond
	var least, most clockReading
	var from, to string
	for _, n := range r.nodes {
		second, err := n.clock(ctx)
		if _, ok := first[n.addr]; err != nil || !ok {
			if _, refused := rueidis.IsRedisErr(err); err != nil && refused {
				r.unseen("clock", n.addr, "its clock's offset", err)
			}
			continue
		}
		r.clock(n.addr, first[n.addr], second)
		if from == "" || second.offset() < least.offset() {
			least, from = second, n.addr
		}
		if to == "" || second.offset() > most.offset() {
			most, to = second, n.addr
		}
	}
	if d := most.offset() - least.offset(); from != to && d-least.about-most.about > apart {
		r.add(finding{Severity: warning, Check: "clocks", Found: fmt.Sprintf("%s is %s ahead of %s", to, short(d), from),
			Means:   "after a failover that loses a token counter, tokens begin at the new master's clock, and may be less than those before",
			Clauses: []string{"TOK-001", "TOK-005"}, Do: "synchronize the servers' clocks"})
	}
}
