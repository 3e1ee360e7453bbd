package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

type dialFunc = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error)

// peers are the open connections of this client, so that they can be given up: rueidis keeps
// one for as long as the server at its other end answers, whatever it answers.
type peers struct {
	mu    sync.Mutex
	conns map[*peer]struct{}

	calls atomic.Int64                  // that are in flight
	shut  atomic.Pointer[chan struct{}] // while connections are given up
	round atomic.Int64                  // how often connections were given up
}

type peer struct {
	net.Conn
	of       *peers
	since    time.Time
	sentinel bool
	closed   chan struct{} // rueidis has done with it
	once     sync.Once
	givenUp  atomic.Bool
	round    atomic.Int64 // in which it was, once rueidis has done with it
}

// goneError is the end of a connection that was given up.
type goneError struct {
	error
	peer *peer
}

func (e goneError) Unwrap() error { return e.error }

// Read implements net.Conn.
func (p *peer) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	return n, p.gone(err)
}

// Write implements net.Conn.
func (p *peer) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	return n, p.gone(err)
}

func (p *peer) gone(err error) error {
	if err == nil || !p.givenUp.Load() {
		return err
	}
	return goneError{err, p}
}

// track has the connections that dial makes noted.
func (ps *peers) track(dial dialFunc) dialFunc {
	return func(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, addr, d, conf)
		if err != nil {
			return nil, err
		}
		p := &peer{Conn: conn, of: ps, since: time.Now(), sentinel: ofSentinel(d), closed: make(chan struct{})}
		ps.mu.Lock()
		defer ps.mu.Unlock()
		if ps.conns == nil {
			ps.conns = make(map[*peer]struct{})
		}
		ps.conns[p] = struct{}{}
		return p, nil
	}
}

// RemoteAddr implements net.Conn. It tells Config.login whose connection it is.
func (p *peer) RemoteAddr() net.Addr {
	if p.sentinel {
		return sentinelAddr{p.Conn.RemoteAddr()}
	}
	return p.Conn.RemoteAddr()
}

// Close implements net.Conn.
func (p *peer) Close() error {
	p.once.Do(func() { close(p.closed) })
	p.of.mu.Lock()
	delete(p.of.conns, p)
	p.of.mu.Unlock()
	return p.Conn.Close()
}

// drops is how often, at most, connections are given up: each is made anew with a login, and
// a name may go on leading to the same server.
const drops = 100 * time.Millisecond

// drain is how long a connection that is given up is waited for at most: until the calls on it
// are answered, and until rueidis has noticed. A server that refuses answers at once; on a machine
// that is busy, what it has answered is read some tenths of a second later.
const (
	drain = 250 * time.Millisecond
	look  = time.Millisecond / 2 // between looks at how many calls are left
)

// dropConnections gives up the connections to data servers that are no younger than drops.
// rueidis connects again with the next command, by the same address: behind a Service, a VIP or a
// DNS name that is another server after a failover. Sentinels tell of a new master by themselves.
//
// Calls that are in flight are answered first, and new ones wait: those that a closing connection
// cut off would have an unknown outcome.
func (b *backend) dropConnections() {
	ps := &b.peers
	now := time.Now()
	var old []*peer
	ps.mu.Lock()
	for p := range ps.conns {
		if !p.sentinel && now.Sub(p.since) >= drops {
			old = append(old, p)
		}
	}
	ps.mu.Unlock()
	again := make(chan struct{})
	if len(old) == 0 || !ps.shut.CompareAndSwap(nil, &again) {
		return
	}
	go func() {
		defer func() {
			ps.shut.Store(nil)
			close(again)
		}()
		for end := time.Now().Add(drain); ps.calls.Load() > 0 && time.Now().Before(end); {
			time.Sleep(look)
		}
		for _, p := range old {
			p.givenUp.Store(true)
			go p.Conn.Close() // closing TLS writes to the connection
		}
		round := ps.round.Load() + 1
		defer ps.round.Store(round) // before the gate opens
		end := time.NewTimer(drain)
		defer end.Stop()
		for _, p := range old {
			select {
			case <-p.closed:
				p.round.Store(round)
			case <-end.C:
				return
			}
		}
	}()
}

// notSent says whether err is the end of a connection that took no commands any more when
// that round was over. rueidis refuses commands before it closes, and looks for another connection only
// after it: what comes in between fails with the old connection's error.
func notSent(err error, round int64) bool {
	if err == nil { // which costs nothing: gone is an allocation
		return false
	}
	var gone goneError
	if !errors.As(err, &gone) {
		return false
	}
	ended := gone.peer.round.Load()
	return ended != 0 && ended <= round
}

// gated is a client whose calls wait while connections are given up.
type gated struct {
	rueidis.Client
	peers *peers
}

func (g gated) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	for {
		if err := g.peers.enter(ctx); err != nil {
			return rueidis.NewErrorResult(err)
		}
		round := g.peers.round.Load()
		reply := g.Client.Do(ctx, cmd)
		g.peers.calls.Add(-1)
		if !notSent(reply.NonRedisError(), round) {
			return reply
		}
	}
}

func (g gated) DoMulti(ctx context.Context, cmds ...rueidis.Completed) []rueidis.RedisResult {
	for {
		if err := g.peers.enter(ctx); err != nil {
			replies := make([]rueidis.RedisResult, len(cmds))
			for i := range replies {
				replies[i] = rueidis.NewErrorResult(err)
			}
			return replies
		}
		round := g.peers.round.Load()
		replies := g.Client.DoMulti(ctx, cmds...)
		g.peers.calls.Add(-1)
		if len(replies) == 0 || slices.ContainsFunc(replies, func(r rueidis.RedisResult) bool { return !notSent(r.NonRedisError(), round) }) {
			return replies
		}
	}
}

func (ps *peers) enter(ctx context.Context) error {
	for {
		ps.calls.Add(1) // before looking: who shuts looks at it after shutting
		shut := ps.shut.Load()
		if shut == nil {
			return nil
		}
		ps.calls.Add(-1)
		select {
		case <-*shut:
		case <-ctx.Done():
			return fmt.Errorf("not sent: %w: %w", driver.ErrRefused, ctx.Err())
		}
	}
}
