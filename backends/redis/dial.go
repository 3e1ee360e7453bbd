package redis

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// crowd is how many calls must be in flight for the connection's writer to yield the processor
// after each write.
//
// rueidis writes all commands of a connection in one goroutine, and those that are queued
// together in one system call. That goroutine loops faster than callers can queue, so that most
// writes carry one command. Yielding lets whoever is about to queue do so: measured with 64
// callers, 1.3 to 1.5 times the throughput at 55 % of the CPU time. A pause does less, and
// rueidis's own, MaxFlushDelay, makes two to four callers wait 20 % longer.
//
// With few callers there is nothing to gather. Nor is yielding free where other goroutines
// compute all the time, because it lasts until they have had their turn: with 20 of those on two
// cores, 32 callers waited half as long again, 0.9 s for a pair.
const crowd = 8

// counted is a client that knows how many calls are in flight.
type counted struct {
	rueidis.Client
	inFlight *atomic.Int64
}

func (c counted) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	c.inFlight.Add(1)
	defer c.inFlight.Add(-1)
	return c.Client.Do(ctx, cmd)
}

// gathering dials as opt says, for connections whose writer yields where there is a crowd.
func gathering(opt rueidis.ClientOption, inFlight *atomic.Int64) func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
	return func(ctx context.Context, addr string, d *net.Dialer, conf *tls.Config) (conn net.Conn, err error) {
		switch {
		case opt.DialCtxFn != nil:
			conn, err = opt.DialCtxFn(ctx, addr, d, conf)
		case opt.DialFn != nil: // deprecated, but rueidis would ask it
			conn, err = opt.DialFn(addr, d, conf)
		case conf != nil:
			conn, err = (&tls.Dialer{NetDialer: d, Config: conf}).DialContext(ctx, "tcp", addr)
		default:
			conn, err = d.DialContext(ctx, "tcp", addr)
		}
		if err != nil {
			return nil, err
		}
		return gatheringConn{conn, inFlight}, nil
	}
}

type gatheringConn struct {
	net.Conn
	inFlight *atomic.Int64
}

func (c gatheringConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if c.inFlight.Load() >= crowd {
		runtime.Gosched()
	}
	return n, err
}
