package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

const (
	clusterNodes = 3
	slots        = 16384
)

// ClusterServer is a Redis Cluster of three masters without replicas.
type ClusterServer struct {
	Nodes []*Server
}

var cluster shared[*ClusterServer]

// Cluster returns the Cluster that all tests of this process share. The first call starts it, which takes some three
// seconds: a Redis that has just started as a master of a Cluster refuses to write for two.
func Cluster(tb testing.TB) *ClusterServer {
	tb.Helper()
	return cluster.get(tb, func(ctx context.Context) (*ClusterServer, error) {
		return startCluster(ctx, spec{})
	})
}

// StartCluster returns a Cluster of the test's own, which ends with the test. A test that breaks nodes needs it.
func StartCluster(tb testing.TB, opts ...Option) *ClusterServer {
	tb.Helper()
	return startPrivate(tb, opts, startCluster, func(c *ClusterServer) []*Server { return c.Nodes })
}

// Addrs returns the nodes' addresses.
func (c *ClusterServer) Addrs() []string {
	addrs := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		addrs[i] = n.addr
	}
	return addrs
}

// URL returns one URL that names all nodes, as rueidis.ParseURL takes it:
// redis://host:port?addr=host:port&addr=host:port.
func (c *ClusterServer) URL() string {
	u, err := url.Parse(c.Nodes[0].URL())
	if err != nil {
		panic(err) // it was made or parsed by this package
	}
	u.RawQuery = url.Values{"addr": c.Addrs()[1:]}.Encode()
	return u.String()
}

// ClientOption returns what a rueidis client needs to reach the Cluster.
func (c *ClusterServer) ClientOption() rueidis.ClientOption {
	option := c.Nodes[0].ClientOption()
	option.InitAddress = c.Addrs()
	return option
}

// NodeOf returns the node that holds the key.
func (c *ClusterServer) NodeOf(tb testing.TB, key string) *Server {
	tb.Helper()
	slot, err := c.Nodes[0].Do(tb, "CLUSTER", "KEYSLOT", key).AsInt64()
	if err != nil {
		tb.Fatalf("redistest: %v", err)
	}
	ranges, err := c.Nodes[0].Do(tb, "CLUSTER", "SLOTS").ToArray()
	if err != nil {
		tb.Fatalf("redistest: CLUSTER SLOTS: %v", err)
	}
	for _, r := range ranges {
		fields, err := r.ToArray()
		if err != nil || len(fields) < 3 {
			tb.Fatalf("redistest: CLUSTER SLOTS: unexpected reply %v", r)
		}
		first, _ := fields[0].AsInt64()
		last, _ := fields[1].AsInt64()
		master, _ := fields[2].ToArray()
		if slot < first || last < slot || len(master) < 2 {
			continue
		}
		host, _ := master[0].ToString()
		port, _ := master[1].AsInt64()
		addr := net.JoinHostPort(host, strconv.FormatInt(port, 10))
		for _, n := range c.Nodes {
			if n.addr == addr {
				return n
			}
		}
		tb.Fatalf("redistest: slot %d is on %s, which is none of %v", slot, addr, c.Addrs())
	}
	tb.Fatalf("redistest: nobody holds slot %d", slot)
	return nil
}

// CommandStats returns the sum over all nodes; see [Server.CommandStats].
func (c *ClusterServer) CommandStats(tb testing.TB) Stats {
	tb.Helper()
	sum := make(Stats)
	for _, n := range c.Nodes {
		for command, calls := range n.CommandStats(tb) {
			sum[command] += calls
		}
	}
	return sum
}

// Flush removes all keys.
func (c *ClusterServer) Flush(tb testing.TB) {
	tb.Helper()
	for _, n := range c.Nodes {
		n.Flush(tb)
	}
}

func startCluster(ctx context.Context, s spec) (_ *ClusterServer, err error) {
	s.cluster = true
	nodes, err := startAll(ctx, s, s, s)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			terminateAll(nodes)
		}
	}()

	// By hand instead of redis-cli --cluster create: that needs redis-cli on this machine, and returns before the
	// nodes agree that the Cluster can be used.
	per := slots/clusterNodes + 1
	for i, n := range nodes {
		add := []string{"CLUSTER", "ADDSLOTS"}
		for slot := i * per; slot < min((i+1)*per, slots); slot++ {
			add = append(add, strconv.Itoa(slot))
		}
		if err := n.Cmd(ctx, add...).Error(); err != nil {
			return nil, fmt.Errorf("giving slots to %s: %w", n.addr, err)
		}
		// Without epochs of their own the nodes would first have to resolve a collision.
		if err := n.Cmd(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)).Error(); err != nil {
			return nil, fmt.Errorf("giving an epoch to %s: %w", n.addr, err)
		}
	}
	for _, n := range nodes[1:] {
		host, port, err := net.SplitHostPort(n.addr)
		if err != nil {
			return nil, err
		}
		if err := nodes[0].Cmd(ctx, "CLUSTER", "MEET", host, port, strconv.Itoa(n.busPort)).Error(); err != nil {
			return nil, fmt.Errorf("introducing %s: %w", n.addr, err)
		}
	}
	c := &ClusterServer{Nodes: nodes}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return c, c.waitOK(ctx)
}

// WaitOK waits until every node finds the Cluster usable and knows all others, for instance after a node came back.
func (c *ClusterServer) WaitOK(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := c.waitOK(ctx); err != nil {
		tb.Fatalf("redistest: %v", err)
	}
}

// waitOK asks every node, because each comes to its own view of the Cluster in its own time.
func (c *ClusterServer) waitOK(ctx context.Context) error {
	for _, n := range c.Nodes {
		err := pollEvery(ctx, 20*time.Millisecond, n.addr+" finds the Cluster usable", func() error {
			text, err := n.Cmd(ctx, "CLUSTER", "INFO").ToString()
			if err != nil {
				return err
			}
			info := parseInfo(text)
			if info["cluster_state"] != "ok" {
				return errors.New("cluster_state is " + info["cluster_state"])
			}
			if size, _ := strconv.Atoi(info["cluster_size"]); size < clusterNodes {
				return fmt.Errorf("it knows %d masters", size)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
