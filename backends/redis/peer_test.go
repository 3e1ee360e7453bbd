package redis

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// slowConn takes its time over every Close but the first, so that rueidis, which calls it again,
// is held up between refusing commands and looking for another connection.
type slowConn struct {
	net.Conn
	closes atomic.Int32
}

func (c *slowConn) Close() error {
	if c.closes.Add(1) > 1 {
		time.Sleep(100 * time.Millisecond)
	}
	return c.Conn.Close()
}

// A call that comes when a connection has just been given up goes to the next one: it is not
// answered with the end of the old one, which would leave its outcome unknown.
func TestCallAfterDrop(t *testing.T) {
	srv := serveFake(t, "", plausible(":1\r\n"))
	b := new(backend)
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{srv.addr}, ForceSingleClient: true, AlwaysPipelining: true, DisableRetry: true, DisableCache: true,
		DialCtxFn: b.peers.track(func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			conn, err := d.DialContext(ctx, "tcp", addr)
			return &slowConn{Conn: conn}, err
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	g := gated{client, &b.peers}
	calls := map[string]func() error{
		"Do": func() error { return g.Do(t.Context(), client.B().Ping().Build()).Error() },
		"DoMulti": func() error {
			return g.DoMulti(t.Context(), client.B().Ping().Build())[0].Error()
		},
	}
	for name, call := range calls {
		if err := call(); err != nil {
			t.Fatal(err)
		}
		var failed error
		for range 3 { // a machine that is busy may not be done with a connection in time
			time.Sleep(drops) // a younger connection is not given up
			before := b.peers.round.Load()
			b.dropConnections()
			if failed = call(); failed == nil {
				if b.peers.round.Load() == before {
					t.Fatal("nothing was given up")
				}
				break
			}
		}
		if failed != nil {
			t.Errorf("%s after a drop: %v", name, failed)
		}
	}
}
