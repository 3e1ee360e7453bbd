package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"
)

// renewals is how many times within its validity a session is renewed: two may fail
// before it is lost.
const renewals = 3

// backend is one client of one Redis, Sentinel set or Cluster.
type backend struct {
	cfg      Config
	layout   layout
	client   rueidis.Client       // for our own scripts
	option   rueidis.ClientOption // that client was made with, before rueidislock
	lock     rueidislock.Locker   // renews the sessions; talks through a sessionClient
	caps     driver.Capabilities
	validity string // cfg.Validity in ms, as scripts want it

	watched  watched  // who wants to hear of which key
	sessions sessions // by lock
	unknowns unknowns
	seam     *seam // between client and rueidis
	peers    peers
	secrets  secrets

	process string         // this client's name in the queues of waiters
	leaving sync.WaitGroup // those who give up its place there
	leavers atomic.Int64   // how many they are

	closed   atomic.Bool
	closing  context.Context // ends when Close begins
	end      context.CancelFunc
	watching sync.WaitGroup // what startWatching began
}

// Open connects and returns when the server has answered. It is what locker.Open calls
// for the type "redis"; most programs use that, or New. Errors match
// driver.ErrInvalidConfig, driver.ErrUnavailable or driver.ErrUnsupported.
//
// What the server refuses at Open is a mistake in the configuration: a login, a right that the
// ACL user lacks, which the error names, a Sentinel that does not know the master. The same
// later on is driver.ErrRefused, because it may pass.
func Open(ctx context.Context, c Config) (driver.Backend, error) {
	if ctx == nil {
		return nil, errors.New("ctx is nil; pass context.Background()")
	}
	c.SetDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	opt, err := c.clientOption()
	if err != nil {
		return nil, err
	}
	b := &backend{
		cfg: c, layout: newLayout(c.Prefix), validity: millis(c.Validity),
		process: rand.Text(),
	}
	b.closing, b.end = context.WithCancel(context.Background())
	b.watched.init()
	b.watched.leave = func(lock string) {
		if key, ok := b.layout.keyOf(lock); ok {
			b.leaveQueue(key)
		}
	}
	b.secrets.add(opt.Password, opt.Sentinel.Password)
	if ask := opt.AuthCredentialsFn; ask != nil {
		opt.AuthCredentialsFn = func(at rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
			login, err := ask(at)
			b.secrets.add(login.Password)
			return login, err
		}
	}
	opt.Sentinel.Dialer.FallbackDelay = sentinelDelay
	opt.DialCtxFn = c.freshTLS(dialOf(opt), opt.TLSConfig)
	asks := opt // its connections are a diagnosis's own
	b.seam = &seam{life: b.closing}
	opt.DialCtxFn = b.peers.track(b.seam.dialler(opt))

	// rueidis connects without a ctx: the dial timeout bounds it, and a caller who has
	// gone is not kept waiting.
	opened := make(chan error, 1)
	go func() { opened <- b.connect(opt) }()
	connecting, connected, err := b.await(ctx, asks, opened)
	if connected && err == nil {
		if err = b.checkRights(ctx); means(err, unsupported) {
			if wrong := b.diagnose(ctx, asks); wrong != nil {
				err = wrong
			}
		}
	}
	if err == nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", driver.ErrUnavailable, ctx.Err())
	}
	if err != nil {
		go func() {
			if connected || connecting && <-opened == nil {
				b.lock.Close()
			}
		}()
		b.end()
		b.seam.cut()
		return nil, err
	}
	b.startWatching()
	return b, nil
}

// connect makes the client, the way that the server allows.
func (b *backend) connect(opt rueidis.ClientOption) error {
	tracked := false
	b.option = opt
	build := func(opt rueidis.ClientOption) (rueidis.Client, error) {
		// rueidislock has put its own handler here. Ours goes before it.
		theirs := opt.OnInvalidations
		if theirs != nil {
			opt.OnInvalidations = func(keys []rueidis.RedisMessage) { b.onInvalidations(keys, theirs) }
		}
		client, err := newClient(opt)
		if err == nil && !opt.DisableCache {
			tracked = true
			var old bool
			if old, err = beforeNoLoop(client); err != nil {
				client.Close()
			} else if old {
				// Below 7.0.5 NOLOOP and scripts do not go together (redis/redis#11052).
				client.Close()
				opt.ClientTrackingOptions = []string{"OPTOUT"}
				client, err = newClient(opt)
			}
		}
		if errors.Is(err, rueidis.ErrNoCache) && b.cfg.Tracking == TrackingAuto {
			tracked = false
			opt.DisableCache, opt.OnInvalidations = true, nil
			client, err = newClient(opt)
		}
		if err != nil {
			return nil, err
		}
		b.seam.spread = client.Mode() == rueidis.ClientModeCluster
		b.client = gated{seamClient{Client: client, seam: b.seam}, &b.peers}
		return &sessionClient{Client: client}, nil
	}
	lock, err := rueidislock.NewLocker(rueidislock.LockerOption{
		ClientOption: opt, ClientBuilder: build,
		KeyPrefix: b.cfg.Prefix, KeyMajority: 1,
		KeyValidity: b.cfg.Validity, ExtendInterval: b.cfg.Validity / renewals,
		NoLoopTracking: true, FallbackSETPX: true,
		// It bounds one attempt; ours are bounded by the caller's ctx and the connection.
		TryNextAfter: b.cfg.Validity,
	})
	if errors.Is(err, rueidis.ErrNoCache) {
		return fmt.Errorf(`%w: tracking: "on", but the server does not announce changes to caching clients (Redis 6.2, RESP3 and +client|tracking are needed): %s`, driver.ErrUnsupported, b.secrets.words(err.Error()))
	}
	if err != nil {
		return b.mistake(context.Background(), err)
	}
	b.lock = lock
	b.seam.opened.Store(true)
	if b.client.Mode() == rueidis.ClientModeCluster && b.cfg.DB != 0 {
		lock.Close()
		return fmt.Errorf("%w: db: %d; a Cluster has only database 0", driver.ErrInvalidConfig, b.cfg.DB)
	}

	has := driver.NewSet(driver.LeaseOutlivesProcess, driver.TokensSurviveRestart, driver.TokensSurviveDataLoss, driver.SharedStore,
		driver.Notes, driver.Listing, driver.Breaking)
	if tracked {
		has |= driver.NewSet(driver.PromptLoss)
	}
	b.caps = driver.Capabilities{Name: "redis", Has: has, SessionValidity: b.cfg.Validity, Granularity: 50 * time.Millisecond}
	return nil
}

func newClient(opt rueidis.ClientOption) (client rueidis.Client, err error) {
	defer func() {
		p := recover()
		if bug, ok := p.(runtime.Error); ok { // and where an answer is not what it takes it for
			err = fmt.Errorf("%w: the server's answer is malformed: %w", driver.ErrUnavailable, bug)
		} else if p != nil { // rueidis panics at options that contradict each other
			err = fmt.Errorf("%w: clientOption: %v", driver.ErrInvalidConfig, p)
		}
	}()
	return rueidis.NewClient(opt)
}

// infoTimeout bounds the question for the version.
const infoTimeout = 5 * time.Second

// beforeNoLoop says whether any node is older than 7.0.5.
func beforeNoLoop(client rueidis.Client) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), mayDial{}, true), infoTimeout)
	defer cancel()
	nodes := client.Nodes()
	type answer struct {
		old bool
		err error
	}
	answers := make(chan answer, len(nodes))
	for _, node := range nodes {
		go func() {
			info, err := node.Do(ctx, node.B().Info().Section("server").Build()).ToString()
			if _, refused := rueidis.IsRedisErr(err); refused {
				answers <- answer{old: true} // an ACL without INFO: assume the older one
				return
			}
			answers <- answer{err == nil && !atLeast(info, 7, 0, 5), err}
		}()
	}
	// A Cluster serves without some of its nodes. One that hangs is not waited for longer than
	// it takes to see that it does.
	var silent error
	var hung <-chan time.Time
	for range nodes {
		select {
		case a := <-answers:
			switch {
			case a.old:
				return true, nil
			case a.err != nil:
				silent = a.err
			case hung == nil:
				hung = time.After(hangs)
			}
		case <-hung:
			return false, nil
		}
	}
	if hung != nil {
		return false, nil
	}
	return false, silent
}

// hangs is how much later than the first the other nodes of a Cluster may say their version.
const hangs = time.Second

// atLeast reads redis_version out of INFO. An unknown version counts as older.
func atLeast(info string, want ...int) bool {
	_, rest, _ := strings.Cut(info, "redis_version:")
	version, _, _ := strings.Cut(rest, "\r\n")
	parts := strings.Split(version, ".")
	for i, w := range want {
		if i >= len(parts) {
			return false
		}
		n, err := strconv.Atoi(parts[i])
		if err != nil || n < w {
			return false
		}
		if n > w {
			return true
		}
	}
	return true
}

// Capabilities implements driver.Backend.
func (b *backend) Capabilities() driver.Capabilities { return b.caps }

// Close implements driver.Backend.
func (b *backend) Close(ctx context.Context) error {
	if b.closed.Swap(true) {
		return nil
	}
	b.end()
	b.sessions.endAll()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		b.lock.Close() // and the client with it
		b.seam.closeAll()
		b.watching.Wait()
		b.leaving.Wait()
	}()
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
		b.seam.cut() // those whose ctx has not ended must not wait for it either
		return fmt.Errorf("%w: the connections are still being closed: %w", driver.ErrUnavailable, ctx.Err())
	}
}
