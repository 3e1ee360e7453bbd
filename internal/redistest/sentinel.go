package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// SentinelServer is a master and a replica, watched by three Sentinels.
type SentinelServer struct {
	MasterSet string    // the name under which the Sentinels know the master
	Sentinels []*Server // ask these
	Data      []*Server // the master at the start, then its replica; see Master
}

// StartSentinel returns a master, a replica and three Sentinels of the test's own, which end with the test. Args,
// Password and File are for the master and the replica; the Sentinels ask for no password. TLS is not supported.
func StartSentinel(tb testing.TB, opts ...Option) *SentinelServer {
	tb.Helper()
	return startPrivate(tb, opts, startSentinel, (*SentinelServer).all)
}

func (s *SentinelServer) all() []*Server {
	return append(append([]*Server{}, s.Sentinels...), s.Data...)
}

// Addrs returns the Sentinels' addresses.
func (s *SentinelServer) Addrs() []string {
	addrs := make([]string, len(s.Sentinels))
	for i, n := range s.Sentinels {
		addrs[i] = n.addr
	}
	return addrs
}

// Master returns the server that the first Sentinel names as the master.
func (s *SentinelServer) Master(tb testing.TB) *Server {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	addr, err := s.masterOf(ctx, s.Sentinels[0])
	if err != nil {
		tb.Fatalf("redistest: %v", err)
	}
	for _, n := range s.Data {
		if n.addr == addr {
			return n
		}
	}
	tb.Fatalf("redistest: the Sentinels name %s as the master, which is none of theirs", addr)
	return nil
}

// Failover makes the Sentinels promote the replica, and returns the new master once it is one and all Sentinels
// name it. It takes one to three seconds.
//
// The old master is not told at once: for about ten more seconds it takes writes like a master, and then loses
// them. A second Failover waits until that is over.
func (s *SentinelServer) Failover(tb testing.TB) *Server {
	tb.Helper()
	old := s.Master(tb)
	next := s.Data[0]
	if next == old {
		next = s.Data[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.failover(ctx, old, next); err != nil {
		tb.Fatalf("redistest: fail-over from %s to %s: %v", old.addr, next.addr, err)
	}
	return next
}

func (s *SentinelServer) failover(ctx context.Context, old, next *Server) error {
	if err := waitFollows(ctx, next, old); err != nil {
		return err
	}
	// A Sentinel refuses while an earlier fail-over is still in its books.
	err := pollEvery(ctx, 50*time.Millisecond, "a Sentinel accepts the fail-over", func() error {
		return s.Sentinels[0].Cmd(ctx, "SENTINEL", "FAILOVER", s.MasterSet).Error()
	})
	if err != nil {
		return err
	}
	err = pollEvery(ctx, 20*time.Millisecond, next.addr+" is a master", func() error {
		text, err := next.Cmd(ctx, "INFO", "replication").ToString()
		if err != nil {
			return err
		}
		if role := parseInfo(text)["role"]; role != "master" {
			return fmt.Errorf("it is a %s", role)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.waitMaster(ctx, next)
}

func (s *SentinelServer) masterOf(ctx context.Context, sentinel *Server) (string, error) {
	reply, err := sentinel.Cmd(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.MasterSet).AsStrSlice()
	if err != nil {
		return "", fmt.Errorf("asking the Sentinel %s for the master: %w", sentinel.addr, err)
	}
	if len(reply) != 2 {
		return "", fmt.Errorf("the Sentinel %s names the master %q", sentinel.addr, reply)
	}
	return net.JoinHostPort(reply[0], reply[1]), nil
}

func startSentinel(ctx context.Context, s spec) (_ *SentinelServer, err error) {
	if s.tls {
		return nil, errors.New("StartSentinel does not support the option TLS")
	}
	set := &SentinelServer{MasterSet: "lockstep"}
	defer func() {
		if err != nil {
			terminateAll(set.all())
		}
	}()

	// The delay gathers replicas for one transfer; there is only one, and it would wait 5 s for company.
	s.args = append([]string{"--repl-diskless-sync-delay", "0"}, s.args...)
	set.Data, err = startAll(ctx, s, s)
	if err != nil {
		return nil, err
	}
	master, replica := set.Data[0], set.Data[1]
	host, port, err := net.SplitHostPort(master.addr)
	if err != nil {
		return nil, err
	}
	if err := replica.Cmd(ctx, "REPLICAOF", host, port).Error(); err != nil {
		return nil, err
	}
	// Before the Sentinels start: they look for replicas at once, and then only every 10 s.
	if err := waitFollows(ctx, replica, master); err != nil {
		return nil, err
	}

	var config strings.Builder
	fmt.Fprintf(&config, "sentinel monitor %s %s %s 2\n", set.MasterSet, host, port)
	fmt.Fprintf(&config, "sentinel down-after-milliseconds %s 1000\n", set.MasterSet)
	fmt.Fprintf(&config, "sentinel failover-timeout %s 5000\n", set.MasterSet)
	if s.password != "" {
		fmt.Fprintf(&config, "sentinel auth-pass %s %q\n", set.MasterSet, s.password)
	}
	watcher := spec{sentinel: true, files: []file{{"sentinel.conf", []byte(config.String())}}}
	set.Sentinels, err = startAll(ctx, watcher, watcher, watcher)
	if err != nil {
		return nil, err
	}
	return set, set.waitMaster(ctx, master)
}

// waitMaster waits until every Sentinel names master, and knows its replica and the other Sentinels.
func (s *SentinelServer) waitMaster(ctx context.Context, master *Server) error {
	for _, sentinel := range s.Sentinels {
		err := pollEvery(ctx, 20*time.Millisecond, "the Sentinel "+sentinel.addr+" knows all", func() error {
			view, err := sentinel.Cmd(ctx, "SENTINEL", "MASTER", s.MasterSet).AsStrMap()
			if err != nil {
				return err
			}
			addr := net.JoinHostPort(view["ip"], view["port"])
			replicas, others := view["num-slaves"], view["num-other-sentinels"]
			if addr != master.addr || view["flags"] != "master" || replicas != "1" || others != "2" {
				return fmt.Errorf("it names %s (%s), %s replicas, %s other Sentinels", addr, view["flags"], replicas, others)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func waitFollows(ctx context.Context, replica, master *Server) error {
	return pollEvery(ctx, 20*time.Millisecond, replica.addr+" follows "+master.addr, func() error {
		text, err := replica.Cmd(ctx, "INFO", "replication").ToString()
		if err != nil {
			return err
		}
		info := parseInfo(text)
		if net.JoinHostPort(info["master_host"], info["master_port"]) != master.addr || info["master_link_status"] != "up" {
			return errors.New("it does not yet")
		}
		return nil
	})
}
