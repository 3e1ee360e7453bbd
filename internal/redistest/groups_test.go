package redistest

import (
	"testing"
	"time"

	"github.com/redis/rueidis"
)

func TestClusterIsShared(t *testing.T) {
	begin := time.Now()
	c := Cluster(t)
	took(t, "first use", begin)
	if Cluster(t) != c {
		t.Error("Cluster returned two")
	}
	for _, option := range []rueidis.ClientOption{c.ClientOption(), parseURL(t, c.URL())} {
		option.DisableCache = true
		client, err := rueidis.NewClient(option)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for _, key := range []string{"a", "b", "c", "d", "e", "f"} { // slots of all three nodes
			if err := client.Do(t.Context(), client.B().Set().Key(key).Value("1").Px(time.Minute).Build()).Error(); err != nil {
				t.Errorf("SET %s: %v", key, err)
			}
			if n, err := c.NodeOf(t, key).Do(t, "EXISTS", key).AsInt64(); n != 1 || err != nil {
				t.Errorf("NodeOf(%s) does not hold it: %d, %v", key, n, err)
			}
		}
	}
	if sets := c.CommandStats(t)["set"]; sets < 12 {
		t.Errorf("the nodes counted %d calls of SET, want 12", sets)
	}
	c.Flush(t)
}

func TestStartCluster(t *testing.T) {
	begin := time.Now()
	c := StartCluster(t)
	took(t, "start", begin)
	node := c.NodeOf(t, "key")
	node.Kill(t)
	begin = time.Now()
	node.Restart(t)
	c.WaitOK(t)
	took(t, "the Cluster is usable again after a restart of a node", begin)
	if c.NodeOf(t, "key") != node {
		t.Error("the node came back without its slots")
	}
}

func TestStartSentinel(t *testing.T) {
	begin := time.Now()
	s := StartSentinel(t, Password("secret"))
	took(t, "start", begin)
	old := s.Master(t)

	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: s.Addrs(), Password: "secret", DisableCache: true,
		Sentinel: rueidis.SentinelOption{MasterSet: s.MasterSet},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Do(t.Context(), client.B().Set().Key("a").Value("1").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	if n, err := old.Do(t, "EXISTS", "a").AsInt64(); n != 1 || err != nil {
		t.Errorf("the key is not on the master: %d, %v", n, err)
	}

	begin = time.Now()
	master := s.Failover(t)
	took(t, "fail-over", begin)
	if master == old || s.Master(t) != master {
		t.Errorf("the master was %s, Failover returned %s, the Sentinels name %s", old.Addr(), master.Addr(), s.Master(t).Addr())
	}
}

func parseURL(t *testing.T, url string) rueidis.ClientOption {
	t.Helper()
	option, err := rueidis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return option
}
