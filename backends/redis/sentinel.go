package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// rueidis looks for the master in a round of the Sentinels, and with each one that it can reach it starts a
// goroutine that subscribes. Where no master is found it closes that connection, and the goroutine, whose
// subscription has failed, begins a round of its own, and again, until one succeeds: with no master there are
// three more of them after each round (13,183 after a minute). Nothing outside of rueidis can end them. But no
// goroutine is started for a Sentinel that cannot be reached, and so the dialler does not reach one that knows
// no master. It asks on the connection that rueidis is about to get, and asks the master on one of its own,
// which it closes: what it asks is what rueidis would.

// sentinelDelay marks the dialler of connections to Sentinels: rueidis does not tell which of its options a
// dial is for, or whose password it asks for. It is the value that zero stands for, and a nanosecond.
const sentinelDelay = 300*time.Millisecond + 1

// ofSentinel says whether d is the dialler of connections to Sentinels.
func ofSentinel(d *net.Dialer) bool { return d.FallbackDelay == sentinelDelay }

// again is how long a Sentinel that knew no master is not asked again.
const again = 500 * time.Millisecond

// preflights are the Sentinels that knew no master.
type preflights struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (p *preflights) recent(addr string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.at[addr]) < again
}

func (p *preflights) note(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil {
		p.at = make(map[string]time.Time)
	}
	p.at[addr] = time.Now()
}

// preflight says whether the Sentinel behind conn knows a master that is one. It ends with ctx.
func preflight(ctx context.Context, opt rueidis.ClientOption, conn net.Conn) error {
	sentinel := newAsker(ctx, conn)
	reply, err := sentinel.askAs(opt, true, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", opt.Sentinel.MasterSet)
	if !sentinel.stop() {
		return ctx.Err() // and conn is closed
	}
	if err != nil {
		return fmt.Errorf("the Sentinel names no master: %w", err)
	}
	if len(reply) != 2 {
		return errors.New("the Sentinel names no master")
	}
	addr := net.JoinHostPort(reply[0], reply[1])
	conn, err = opt.DialCtxFn(ctx, addr, &opt.Dialer, opt.TLSConfig)
	if err != nil {
		return fmt.Errorf("the master that the Sentinel names: %w", err)
	}
	master := newAsker(ctx, conn)
	defer master.close()
	role, err := master.askAs(opt, false, "ROLE")
	if err != nil {
		return fmt.Errorf("the master that the Sentinel names: %w", err)
	}
	if len(role) == 0 || role[0] != "master" {
		return fmt.Errorf("the master that the Sentinel names, %s, is none", addr)
	}
	return nil
}

// askAs logs in and asks.
func (a *asker) askAs(opt rueidis.ClientOption, sentinel bool, question ...string) ([]string, error) {
	user, password, err := credentials(opt, sentinel, a.conn)
	if err != nil {
		return nil, err
	}
	if err := a.login(user, password); err != nil {
		return nil, fmt.Errorf("the login: %w", err)
	}
	return a.ask(question...)
}
