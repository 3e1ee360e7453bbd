package proof

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/conformance"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

func TestRedis(t *testing.T) {
	srv := redistest.Single(t)
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		target := redisTarget(t, redis.Config{Addrs: []string{srv.Addr()}, ClientOption: credentials(srv.ClientOption())}, srv.ClientOption())
		target.Inject = redisInject(t, redis.Config{})
		return target
	}, conformance.Parallel(), busy)
}

func TestRedisCluster(t *testing.T) {
	cluster := redistest.Cluster(t)
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		return redisTarget(t, redis.Config{Addrs: cluster.Addrs()}, cluster.ClientOption())
	}, conformance.Parallel(), busy)
}

// TestRedisPolling is the suite where Redis does not announce changes.
func TestRedisPolling(t *testing.T) {
	srv := redistest.Single(t)
	conformance.Run(t, func(t *testing.T) *conformance.Target {
		target := redisTarget(t, redis.Config{Addrs: []string{srv.Addr()}, Tracking: redis.TrackingOff, ClientOption: credentials(srv.ClientOption())}, srv.ClientOption())
		target.Inject = redisInject(t, redis.Config{Tracking: redis.TrackingOff})
		return target
	}, conformance.Parallel(), busy,
		conformance.Known("WAIT-001", "without announcements a release by another client is found by the next poll"),
		conformance.Known("WAIT-001/lease/gives-up", "without announcements a release by another client is found by the next poll"),
		conformance.Known("WAIT-001/session/gives-up", "without announcements a release by another client is found by the next poll"),
		conformance.Known("WAIT-001/lease/many-keys", "without announcements a release by another client is found by the next poll"),
		conformance.Known("WAIT-001/session/many-keys", "without announcements a release by another client is found by the next poll"),
		conformance.Known("WAIT-003/lease/other-keys", "without announcements a release by another client is found by the next poll"),
		conformance.Known("WAIT-003/session/other-keys", "without announcements a release by another client is found by the next poll"),
		conformance.Known("WAIT-003", "without announcements a release by another client is found by the next poll"))
}

// busy is for machines that have other things to do, and for the many cases that run side by
// side here: a process that gets no processor for a third of a second is no fault of a backend.
var busy = conformance.Slack(3)

// credentials passes on what a server that the environment names may need.
func credentials(from rueidis.ClientOption) func(*rueidis.ClientOption) {
	return func(opt *rueidis.ClientOption) {
		opt.Username, opt.Password, opt.TLSConfig, opt.SelectDB = from.Username, from.Password, from.TLSConfig, from.SelectDB
	}
}

var targets atomic.Int64

// redisTarget is a target with a prefix of its own in a Redis that others use too.
func redisTarget(t *testing.T, c redis.Config, adminOption rueidis.ClientOption) *conformance.Target {
	t.Helper()
	c.Prefix = fmt.Sprintf("proof-%x-%d", processID, targets.Add(1))
	c.ClientName = c.Prefix
	// Short, because a case that waits for a session to run out takes so long; but not as
	// short as it may be: on a machine that is busy with other things a process can sleep
	// through half a second, and a session that its process slept through is lost.
	c.Validity = 2 * time.Second
	admin := adminClient(t, adminOption)

	var mu sync.Mutex
	lines := map[driver.Backend]*line{}
	open := func(tb testing.TB) driver.Backend {
		tb.Helper()
		own, l := c, &line{}
		own.ClientOption = func(opt *rueidis.ClientOption) {
			if c.ClientOption != nil {
				c.ClientOption(opt)
			}
			opt.DialCtxFn = l.dial
		}
		b, err := redis.Open(context.Background(), own)
		if err != nil {
			tb.Fatalf("opening Redis: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		lines[b] = l
		return b
	}
	return &conformance.Target{
		Backend: open(t),
		Peer:    open,
		Delete: func(tb testing.TB, key string) {
			if err := admin.Do(context.Background(), admin.B().Del().Key(lockKey(c.Prefix, key)).Build()).Error(); err != nil {
				tb.Fatalf("DEL: %v", err)
			}
		},
		Crash: func(_ testing.TB, b driver.Backend) {
			mu.Lock()
			defer mu.Unlock()
			lines[b].cut()
		},
		Keys:        func(tb testing.TB) []conformance.StoreKey { return keys(tb, admin, c.Prefix) },
		Connections: func(tb testing.TB) int { return connections(tb, admin, c.ClientName) },
	}
}

// lockKey is the layout that backends/redis documents.
func lockKey(prefix, key string) string { return prefix + ":0:{:" + key + "}" }

// line is one client's connections, so that they can be torn as the death of its process
// would tear them.
type line struct {
	mu    sync.Mutex
	conns []net.Conn
	dead  bool
}

func (l *line) dial(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
	l.mu.Lock()
	dead := l.dead
	l.mu.Unlock()
	if dead {
		return nil, errors.New("this client has crashed")
	}
	var conn net.Conn
	var err error
	if conf != nil {
		conn, err = (&tls.Dialer{NetDialer: d, Config: conf}).DialContext(ctx, "tcp", addr)
	} else {
		conn, err = d.DialContext(ctx, "tcp", addr)
	}
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, conn)
		l.mu.Unlock()
	}
	return conn, err
}

func (l *line) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	for _, c := range l.conns {
		_ = c.Close()
	}
}

// adminClient is what an administrator would use beside the backend under test.
func adminClient(tb testing.TB, opt rueidis.ClientOption) rueidis.Client {
	tb.Helper()
	opt.DisableCache = true
	client, err := rueidis.NewClient(opt)
	if err != nil {
		tb.Fatalf("administrator's client: %v", err)
	}
	tb.Cleanup(client.Close)
	return client
}

// keys lists what stands under prefix on all nodes, by names without it.
func keys(tb testing.TB, admin rueidis.Client, prefix string) []conformance.StoreKey {
	tb.Helper()
	ctx := context.Background()
	var found []conformance.StoreKey
	for _, node := range admin.Nodes() {
		for cursor := uint64(0); ; {
			page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match("*"+prefix+":*").Count(1000).Build()).AsScanEntry()
			if err != nil {
				tb.Fatalf("SCAN: %v", err)
			}
			for _, name := range page.Elements {
				if !strings.HasPrefix(name, prefix+":") && !strings.HasPrefix(name, "token:"+prefix+":") {
					continue
				}
				ttl, err := node.Do(ctx, node.B().Pttl().Key(name).Build()).AsInt64()
				if err != nil {
					tb.Fatalf("PTTL: %v", err)
				}
				if ttl == -2 {
					continue // gone meanwhile
				}
				// A lock expires too, in the end; one that is left behind is a leak all the same.
				found = append(found, conformance.StoreKey{Name: name, Expires: ttl >= 0 && strings.HasPrefix(name, "token:")})
			}
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	return found
}

func connections(tb testing.TB, admin rueidis.Client, name string) int {
	tb.Helper()
	n := 0
	for _, node := range admin.Nodes() {
		list, err := node.Do(context.Background(), node.B().Arbitrary("CLIENT", "LIST").Build()).ToString()
		if err != nil {
			tb.Fatalf("CLIENT LIST: %v", err)
		}
		n += strings.Count(list, " name="+name+" ")
	}
	return n
}
