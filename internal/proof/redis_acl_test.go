package proof

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// rights is what docs/configuration.md says of rights.
type rights struct {
	data, cluster, behindSentinels, sentinels []string

	without map[string]string // what happens then, by right; "" for all others
}

func readRights(t *testing.T) rights {
	t.Helper()
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^ACL SETUSER billing (?:on >… )?(.+)$`).FindAllSubmatch(text, -1)
	if len(lines) != 4 {
		t.Fatalf("docs/configuration.md has %d times ACL SETUSER; want 4", len(lines))
	}
	r := rights{without: map[string]string{}}
	for i, to := range []*[]string{&r.data, &r.cluster, &r.behindSentinels, &r.sentinels} {
		*to = strings.Fields(string(lines[i][1]))
	}
	_, table, _ := strings.Cut(string(text), "\n| Without | |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, row := range regexp.MustCompile(`(?m)^\| (.+) \| (.+) \|$`).FindAllStringSubmatch(table, -1) {
		names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1)
		if names == nil {
			r.without[""] = row[2]
		}
		for _, name := range names {
			r.without[strings.ReplaceAll(name[1], `\|`, "|")] = row[2]
		}
	}
	if len(r.without) < 8 || !strings.Contains(r.without[""], "fails and names it") {
		t.Fatalf("the table of rights reads as %q", r.without)
	}
	return r
}

// allow makes user the one with these rights alone.
func allow(t *testing.T, servers []*redistest.Server, rules ...[]string) {
	t.Helper()
	for _, srv := range servers {
		srv.Do(t, append([]string{"ACL", "SETUSER", "limited", "reset", "on", ">pass"}, slices.Concat(rules...)...)...)
	}
}

// expect opens c without a right, and compares with the page.
func (r rights) expect(t *testing.T, c redis.Config, right string) {
	t.Helper()
	says, ok := r.without[right]
	if !ok {
		says = r.without[""]
	}
	l, err := redis.New(t.Context(), c, locker.Config{})
	if err == nil {
		defer l.Close(context.Background())
	}
	older := strings.Contains(says, "older than version 8") && err == nil
	if strings.Contains(says, "`Open` fails and names it") && !older {
		if !errors.Is(err, locker.ErrInvalidConfig) || !strings.Contains(err.Error(), right) {
			t.Errorf("without %s: %v; want ErrInvalidConfig that names it", right, err)
		}
		return
	}
	if err != nil {
		t.Errorf("without %s: %v; the page says %q", right, err, says)
		return
	}
	if prompt := l.Capabilities().Has.Has(driver.PromptLoss); prompt == strings.Contains(says, "It polls") {
		t.Errorf("without %s: PromptLoss is %v; the page says %q", right, prompt, says)
	}
	for _, opts := range [][]locker.Option{nil, {minute}} {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 4 {
					ctx, cancel := context.WithTimeout(t.Context(), 5*promptly)
					defer cancel()
					lease, err := l.Lock(ctx, "k", opts...)
					if err == nil {
						err = lease.Unlock(ctx)
					}
					if err != nil {
						t.Errorf("without %s: %v; the page says %q", right, err, says)
					}
				}
			})
		}
		wg.Wait()
	}
	if err := l.Ping(t.Context()); err != nil {
		t.Errorf("without %s: Ping: %v", right, err)
	}
}

func without(rules []string, i int) []string { return slices.Delete(slices.Clone(rules), i, i+1) }

// nothing stands for no right taken away.
const nothing = "nothing"

// The documented rights are enough, and without each of them happens what the page says.
func TestACL(t *testing.T) {
	r := readRights(t)
	r.without[nothing] = "It works."
	for _, rule := range slices.Concat(r.data, r.cluster, r.behindSentinels, r.sentinels) {
		if strings.Contains(rule, "@") {
			t.Errorf("%s is a category: say which commands", rule)
		}
	}
	t.Run("single", func(t *testing.T) {
		t.Parallel()
		srv := redistest.Start(t)
		all := []*redistest.Server{srv}
		c := redis.Config{Addrs: []string{srv.Addr()}, Username: "limited", Password: locker.Secret("pass"), Validity: 3 * time.Second}
		allow(t, all, r.data)
		r.expect(t, c, nothing)
		for i, right := range r.data {
			allow(t, all, without(r.data, i))
			r.expect(t, c, right)
		}
		allow(t, all, r.data)
		c.DB = 1
		r.expect(t, c, "+select")
		allow(t, all, r.data, []string{"+select"})
		r.expect(t, c, nothing)
	})
	t.Run("Cluster", func(t *testing.T) {
		t.Parallel()
		cluster := redistest.StartCluster(t)
		c := redis.Config{Addrs: cluster.Addrs()[:1], Username: "limited", Password: locker.Secret("pass"), Validity: 3 * time.Second}
		allow(t, cluster.Nodes, r.data, r.cluster)
		r.expect(t, c, nothing)
		for i, right := range r.data {
			allow(t, cluster.Nodes, without(r.data, i), r.cluster)
			r.expect(t, c, right)
		}
		for i, right := range r.cluster {
			allow(t, cluster.Nodes, r.data, without(r.cluster, i))
			r.expect(t, c, right)
		}
	})
	t.Run("Sentinel", func(t *testing.T) {
		t.Parallel()
		set := redistest.StartSentinel(t)
		c := redis.Config{Addrs: set.Addrs(), MasterSet: set.MasterSet, Username: "limited", Password: locker.Secret("pass"),
			SentinelUsername: "limited", SentinelPassword: locker.Secret("pass"), Validity: 3 * time.Second}
		allow(t, set.Data, r.data, r.behindSentinels)
		allow(t, set.Sentinels, r.sentinels)
		r.expect(t, c, nothing)
		for i, right := range r.sentinels {
			allow(t, set.Sentinels, without(r.sentinels, i))
			if strings.HasPrefix(right, "&") {
				right = "&" // which channel the server does not say
			}
			r.expect(t, c, right)
		}
		allow(t, set.Sentinels, r.sentinels)
		for i, right := range r.behindSentinels {
			allow(t, set.Data, r.data, without(r.behindSentinels, i))
			r.expect(t, c, right)
		}
	})
}

// With the documented rights alone a planned failover is heard of.
func TestACLFailover(t *testing.T) {
	r := readRights(t)
	set := redistest.StartSentinel(t)
	allow(t, set.Data, r.data, r.behindSentinels)
	allow(t, set.Sentinels, r.sentinels)
	l := open(t, redis.Config{Addrs: set.Addrs(), MasterSet: set.MasterSet, Username: "limited", Password: locker.Secret("pass"),
		SentinelUsername: "limited", SentinelPassword: locker.Secret("pass")}, locker.Config{})
	mustLock(t, l, "before")
	next := set.Failover(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*promptly)
	defer cancel()
	began := time.Now()
	for i := 0; ; i++ {
		key := fmt.Sprint("after", i)
		if _, err := l.Lock(ctx, key, minute); err != nil {
			t.Fatal(err)
		}
		if n, _ := next.Do(t, "EXISTS", lockKey("lockstep", key)).AsInt64(); n == 1 {
			break
		}
	}
	t.Logf("locks came from the new master %s after the failover", time.Since(began))
	if took := time.Since(began); took > 5*time.Second { // without it the client looks again after 10 s
		t.Errorf("it took %s; the message of the Sentinels was not heard", took)
	}
}

// A lock whose slot is being migrated, and whose key has moved already, is freed.
func TestACLMigration(t *testing.T) {
	r := readRights(t)
	cluster := redistest.StartCluster(t)
	c := redis.Config{Addrs: cluster.Addrs()[:1], Username: "limited", Password: locker.Secret("pass")}
	allow(t, cluster.Nodes, r.data, r.cluster)
	l := open(t, c, locker.Config{})
	from, to := cluster.Nodes[0], cluster.Nodes[1]
	var lease *locker.Lease
	var lock string
	for i := 0; lease == nil; i++ {
		key := fmt.Sprint("k", i)
		got := mustLock(t, l, key, locker.WithTTL(time.Hour))
		lock = lockKey("lockstep", key)
		if n, err := from.Cmd(t.Context(), "EXISTS", lock).AsInt64(); n == 1 && err == nil {
			lease = got
		}
	}
	slot, err := from.Do(t, "CLUSTER", "KEYSLOT", lock).AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	id := func(srv *redistest.Server) string {
		name, err := srv.Do(t, "CLUSTER", "MYID").ToString()
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	to.Do(t, "CLUSTER", "SETSLOT", fmt.Sprint(slot), "IMPORTING", id(from))
	from.Do(t, "CLUSTER", "SETSLOT", fmt.Sprint(slot), "MIGRATING", id(to))
	host, port, _ := strings.Cut(to.Addr(), ":")
	from.Do(t, "MIGRATE", host, port, lock, "0", "1000")
	ctx, cancel := context.WithTimeout(t.Context(), promptly)
	defer cancel()
	if err := lease.Unlock(ctx); err != nil {
		t.Errorf("Unlock: %v", err)
	}
	if n, err := to.Do(t, "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(slot)).AsInt64(); n != 0 || err != nil {
		t.Errorf("%d keys are left where the slot goes to, %v", n, err)
	}
}
