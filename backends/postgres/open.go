package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/driver/keeper"
)

// backend is one client of one database.
type backend struct {
	config   Config
	names    names
	caps     driver.Capabilities
	pool     *pgxpool.Pool
	ours     bool            // the pool is, and is closed with b
	dial     *pgx.ConnConfig // of connections outside of the pool
	before   func(context.Context, *pgx.ConnConfig) error
	after    func(context.Context, *pgx.Conn) error
	prepares bool // statements may be prepared
	listens  bool // changes are announced

	statements map[string]statement // by name
	sessions   *keeper.Keeper
	watched    watched
	doubts     doubts
	attendant  *attendant
	lines      lines

	ctx        context.Context // ends when Close begins
	end        context.CancelCauseFunc
	background sync.WaitGroup

	repairing sync.Mutex // one at a time creates the schema anew
}

// Open connects and returns when the server has answered and the schema is there. It is what
// locker.Open calls for the type "postgres"; most programs use that, or New. Errors match
// driver.ErrInvalidConfig or driver.ErrUnavailable.
func Open(ctx context.Context, c Config) (driver.Backend, error) {
	return open(ctx, c, nil)
}

// OpenPool is Open over a pool that the program has already, and closes itself. The fields of c
// that say where the server is, who asks, and how large the pool is are ignored, and so is
// ConnConfig; the connection that listens is configured like those of the pool, BeforeConnect and
// AfterConnect included.
func OpenPool(ctx context.Context, pool *pgxpool.Pool, c Config) (driver.Backend, error) {
	if pool == nil {
		return nil, fmt.Errorf("%w: the pool is nil", driver.ErrInvalidConfig)
	}
	return open(ctx, c, pool)
}

func open(ctx context.Context, c Config, pool *pgxpool.Pool) (driver.Backend, error) {
	if ctx == nil {
		return nil, errors.New("ctx is nil; pass context.Background()")
	}
	c.SetDefaults()
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b := &backend{config: c, names: newNames(c), pool: pool, ours: pool == nil}
	b.ctx, b.end = context.WithCancelCause(context.Background())
	b.statements = b.names.statements()
	b.watched.init()
	b.attendant = newAttendant(b)
	b.watched.poke = b.attendant.poke
	b.lines.conns = map[net.Conn]bool{}
	if err := b.configure(); err != nil {
		return nil, err
	}
	if err := b.connect(ctx); err != nil {
		b.end(driver.ErrClosed)
		b.closePool()
		return nil, opening(ctx, err)
	}
	b.caps = driver.Capabilities{
		Name: "postgres",
		Has: driver.NewSet(driver.SharedStore, driver.LeaseOutlivesProcess,
			driver.TokensSurviveRestart, driver.TokensSurviveDataLoss,
			driver.Notes, driver.Listing, driver.Breaking),
		SessionValidity: c.Validity,
		Granularity:     50 * time.Millisecond,
	}
	if b.listens {
		b.caps.Has |= driver.NewSet(driver.PromptLoss)
	}
	b.sessions = keeper.New(keeper.Config{Validity: c.Validity, Renew: b.renew, AtOnce: atOnce})
	b.background.Add(2)
	go b.attendant.run()
	go b.sweepLoop()
	return b, nil
}

// configure makes b.dial and, unless it was given, the pool, which does not connect yet.
func (b *backend) configure() error {
	c := b.config
	if !b.ours {
		given := b.pool.Config()
		b.dial, b.before, b.after = given.ConnConfig, given.BeforeConnect, given.AfterConnect
		if len(c.ListenHost) > 0 {
			direct, err := c.poolConfig(c.ListenHost)
			if err != nil {
				return err
			}
			lead(b.dial, direct.ConnConfig)
			if b.dial.ValidateConnect == nil && c.TargetSessionAttrs != "any" {
				b.dial.ValidateConnect = chosen(b.dial) // the program, with a pool for one host, had no need to
			}
		}
		if b.dial.ConnectTimeout <= 0 {
			b.dial.ConnectTimeout = time.Duration(c.ConnectTimeout) * time.Second
		}
		b.dial.BuildContextWatcherHandler = interrupts
		b.lines.follow(b.dial)
		return nil
	}
	pc, err := c.poolConfig(c.Host)
	if err != nil {
		return err
	}
	to := c.ListenHost
	if len(to) == 0 {
		to = c.Host
	}
	listen, err := c.poolConfig(to)
	if err != nil {
		return err
	}
	b.dial = listen.ConnConfig
	pc.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn(), DeadlineDelay: grace}
	}
	for _, cc := range []*pgx.ConnConfig{pc.ConnConfig, b.dial} {
		if c.TargetSessionAttrs != "any" {
			cc.ValidateConnect = chosen(cc)
		}
		if c.ConnConfig != nil {
			c.ConnConfig(cc)
		}
		b.lines.follow(cc)
	}
	b.dial.BuildContextWatcherHandler = interrupts
	pc.AfterConnect = b.prepare
	// A ping would be a second round trip. Whether the server has closed the connection can be
	// seen without one.
	pc.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	pc.MaxConnLifetimeJitter = pc.MaxConnLifetime / 10
	b.pool, err = pgxpool.NewWithConfig(context.Background(), pc)
	return err
}

// connect makes the connection that listens, finds out what stands in between, and sees to the
// schema.
func (b *backend) connect(ctx context.Context) error {
	// Each host has ConnectTimeout: of several the first may be silent.
	ctx, cancel := context.WithTimeout(ctx, time.Duration(1+len(b.dial.Fallbacks))*b.dial.ConnectTimeout+b.config.Timeout)
	defer cancel()
	pooled := false
	if !b.ours || len(b.config.ListenHost) > 0 { // the pool leads elsewhere, perhaps
		conn, err := b.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		pooled, err = behindPooler(ctx, conn.Conn())
		conn.Release()
		if err != nil {
			return err
		}
	}
	conn, err := b.dialOne(ctx)
	if err != nil {
		return err
	}
	deaf, err := behindPooler(ctx, conn)
	if err != nil {
		closeConn(conn)
		return err
	}
	b.prepares = b.ours && (b.config.Pooler == PoolerOff || b.config.Pooler == PoolerAuto && !pooled && !deaf)
	b.lines.pooled.Store(!b.prepares)
	b.listens = b.config.Listen == ListenOn || b.config.Listen == ListenAuto && !deaf
	if err := b.attendant.begin(ctx, conn, false); err != nil {
		closeConn(conn)
		return err
	}
	// The first connection of the pool now, so that one that does not work says so.
	first, err := b.pool.Acquire(ctx)
	if err != nil {
		closeConn(conn)
		return err
	}
	first.Release()
	return nil
}

// dialOne makes a connection outside of the pool. Each host, and what comes before and after
// it, has its ConnectTimeout.
func (b *backend) dialOne(ctx context.Context) (*pgx.Conn, error) {
	cc := b.dial.Copy()
	if b.before != nil {
		before, cancel := context.WithTimeout(ctx, b.dial.ConnectTimeout)
		err := b.before(before, cc)
		cancel()
		if err != nil {
			return nil, err
		}
	}
	cc.OnNotification = b.attendant.heard
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil || b.after == nil {
		return conn, err
	}
	after, cancel := context.WithTimeout(ctx, b.dial.ConnectTimeout)
	defer cancel()
	if err := b.after(after, conn); err != nil {
		closeConn(conn)
		return nil, err
	}
	return conn, nil
}

// interrupts is how the waiting for notifications ends: at once, and the connection stays. Whatever a
// program has chosen for its queries, such as a cancel request, is late and may hit what is asked next.
func interrupts(conn *pgconn.PgConn) ctxwatch.Handler {
	return &pgconn.DeadlineContextWatcherHandler{Conn: conn.Conn()}
}

// chosen looks for a server that takes writes where there are several. With one there is no choice, and
// what it refuses says enough: the question would be one more round trip.
func chosen(cc *pgx.ConnConfig) pgconn.ValidateConnectFunc {
	return func(ctx context.Context, conn *pgconn.PgConn) error {
		if oneServer(cc) { // asked only now: Config.ConnConfig may have changed them
			return nil
		}
		return takesWrites(ctx, conn)
	}
}

// servers are those of cc, in order, once for each way to speak to them: with TLS and without.
func servers(cc *pgx.ConnConfig) []*pgconn.FallbackConfig {
	return append([]*pgconn.FallbackConfig{{Host: cc.Host, Port: cc.Port, TLSConfig: cc.TLSConfig}}, cc.Fallbacks...)
}

func sameServer(a, b *pgconn.FallbackConfig) bool { return a.Host == b.Host && a.Port == b.Port }

// socket: pgx and libpq speak no TLS through one.
func socket(s *pgconn.FallbackConfig) bool {
	network, _ := pgconn.NetworkAddress(s.Host, s.Port)
	return network == "unix"
}

// lead makes cc lead to the hosts of to, in the ways in which it led to its own first one: whether with
// TLS, whom to trust, and what to do where a server has none. What to says of that is not what the
// program has configured, and counts only where cc leads to sockets alone.
func lead(cc, to *pgx.ConnConfig) {
	had, led := servers(cc), servers(to)
	if first := slices.IndexFunc(had, func(s *pgconn.FallbackConfig) bool { return !socket(s) }); first >= 0 {
		was := had[first]
		hosts := slices.CompactFunc(led, sameServer)
		led = nil
		for _, h := range hosts {
			if socket(h) {
				led = append(led, h)
				continue
			}
			for _, way := range had {
				if !sameServer(way, was) {
					continue
				}
				conf := way.TLSConfig.Clone() // nil stays nil
				if conf != nil && conf.ServerName == was.Host {
					conf.ServerName = h.Host
				}
				led = append(led, &pgconn.FallbackConfig{Host: h.Host, Port: h.Port, TLSConfig: conf})
			}
		}
	}
	cc.Host, cc.Port, cc.TLSConfig, cc.Fallbacks = led[0].Host, led[0].Port, led[0].TLSConfig, led[1:]
}

// oneServer says whether cc names one server only: fallbacks may be for the same one without TLS.
func oneServer(cc *pgx.ConnConfig) bool {
	return !slices.ContainsFunc(cc.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != cc.Host || f.Port != cc.Port })
}

// askReadOnly asks whether transactions may write: that is the server's, or its standby's, word.
const askReadOnly = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool"

// takesWrites refuses a standby, so that the next host is tried.
func takesWrites(ctx context.Context, conn *pgconn.PgConn) error {
	result := conn.ExecParams(ctx, askReadOnly, nil, nil, nil, binaryFormat).Read()
	if result.Err != nil {
		return result.Err
	}
	if len(result.Rows) != 1 || len(result.Rows[0]) != 1 {
		return errReply
	}
	if readOnly, err := readBool(result.Rows[0][0]); err != nil || readOnly {
		return errors.Join(driver.ErrWrongPeer, err)
	}
	return nil
}

// behindPooler: a pooler cannot tell its clients which server process they will have, and so
// tells them another number.
func behindPooler(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var pid uint32
	err := conn.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid)
	return pid != conn.PgConn().PID(), err
}

// prepare prepares all statements on a new connection, in one round trip: otherwise the first
// use of each would take one more.
func (b *backend) prepare(ctx context.Context, conn *pgx.Conn) error {
	if !b.prepares {
		return nil
	}
	pipeline := conn.PgConn().StartPipeline(ctx)
	defer pipeline.Close()
	var names []string
	for name, s := range b.statements {
		pipeline.SendPrepare(name, cmp.Or(s.prepared, s.sql), s.params)
		names = append(names, name)
	}
	if err := pipeline.Sync(); err != nil {
		return err
	}
	prepared := map[string]*pgconn.StatementDescription{}
	for _, name := range names {
		result, err := pipeline.GetResults()
		if missing(err) {
			return nil // what is asked without being prepared finds that out too, and mends it
		}
		if err != nil {
			return err
		}
		if d, ok := result.(*pgconn.StatementDescription); ok {
			d.Name, d.SQL = name, cmp.Or(b.statements[name].prepared, b.statements[name].sql) // which a pipeline leaves empty
			prepared[name] = d
		}
	}
	if err := pipeline.Close(); err != nil {
		return err
	}
	conn.PgConn().CustomData()[preparedKey] = prepared
	return nil
}

// grace is for how long after the end of its ctx a call waits for the answer. pgx closes a
// connection whose answer nobody waits for, and the next call makes a new one: where callers
// give up often, the clean-up after them would find no connection.
const grace = 50 * time.Millisecond

const preparedKey = "lockstep: prepared"

// Capabilities implements driver.Backend.
func (b *backend) Capabilities() driver.Capabilities { return b.caps }

// Close implements driver.Backend.
func (b *backend) Close(ctx context.Context) error {
	if b.ctx.Err() != nil {
		return nil
	}
	b.end(driver.ErrClosed)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		b.sessions.Close()
		b.background.Wait()
		b.closePool()
	}()
	select {
	case <-closed:
		return nil
	case <-ctx.Done():
	}
	// What a server that is silent keeps waiting is cut off.
	b.lines.cut()
	return fmt.Errorf("%w: the connections are still being closed: %w", driver.ErrUnavailable, ctx.Err())
}

func (b *backend) closePool() {
	if b.ours && b.pool != nil {
		b.pool.Close()
	}
	// pgx goes on with a connection that was given up: it asks the server to cancel what runs
	// there, and waits for the answer.
	b.lines.cut()
}

// closeConn closes a connection of which nothing is expected any more.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// lines are the network connections that b has made, so that none is left.
type lines struct {
	pooled atomic.Bool // a pooler stands in between

	mu    sync.Mutex
	conns map[net.Conn]bool
	done  bool
}

func (l *lines) follow(cc *pgx.ConnConfig) {
	dial := cc.DialFunc
	cc.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		followed := &line{Conn: conn, lines: l}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.done {
			_ = conn.Close()
			return nil, net.ErrClosed
		}
		l.conns[followed] = true
		return followed, nil
	}
}

func (l *lines) cut() {
	l.mu.Lock()
	l.done = true
	var all []net.Conn
	for c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}

// line is one of them.
type line struct {
	net.Conn
	lines *lines
}

func (l *line) Close() error {
	l.lines.mu.Lock()
	delete(l.lines.conns, l)
	l.lines.mu.Unlock()
	return l.Conn.Close()
}

// RemoteAddr is where pgconn sends a cancel request to when it gives a connection up, and nothing
// else asks for it. A pooler is sent none: PgBouncer 1.18 ends itself ("bad client state"), and
// with it everybody's connections, where its client has left by the time it has sent it on. What
// was cancelled so may then wait for a row until its turn comes; late as it is, it is refused.
func (l *line) RemoteAddr() net.Addr {
	if l.lines.pooled.Load() {
		return nowhere{}
	}
	return l.Conn.RemoteAddr()
}

// nowhere is an address that cannot be dialled.
type nowhere struct{}

func (nowhere) Network() string { return "none" }
func (nowhere) String() string  { return "a pooler" }

// NetConn lets a TLS connection's owner, and the liveness check, find the socket.
func (l *line) NetConn() net.Conn { return l.Conn }
