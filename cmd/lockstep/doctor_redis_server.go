package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// What one server's settings mean for locks.

func (r *redisStore) version(n *redisNode) {
	name, version := "Redis", n.info["redis_version"]
	if v := n.info["valkey_version"]; v != "" {
		name, version = "Valkey", v
	}
	f := finding{Severity: fine, Check: "version", Node: n.addr, Found: name + " " + version}
	switch {
	case version == "":
		r.add(finding{Severity: note, Check: "version", Node: n.addr, Found: "the server does not say its version",
			Means: "it counts as older than 7.0.5: a session costs one more command at each renewal", Do: "grant +info"})
		return
	case name == "Valkey" || versionAtLeast(version, 7, 0, 5):
	case versionAtLeast(version, 6, 2, 0):
		f.Severity = note
		f.Means = "before 7.0.5 a session costs one more command at each renewal"
	case versionAtLeast(version, 5, 0, 0):
		f.Severity = warning
		f.Means = "before 6.2 the server does not announce changes: waiters poll at their retry.delay, and a loss is noticed at the next renewal or the deadline"
		f.Clauses = []string{"LOSS-003", "WAIT-001"}
		f.Do = "upgrade to Redis 7.0.5 or later"
	default:
		f.Severity = critical
		f.Means = "scripts do not work as they are used here"
		f.Do = "upgrade: Redis 5 is the least"
	}
	r.add(f)
}

func versionAtLeast(version string, want ...int) bool {
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

func (r *redisStore) persistence(n *redisNode) {
	add := func(s severity, found, means, do string) {
		r.add(finding{Severity: s, Check: "persistence", Node: n.addr, Found: found, Means: means, Clauses: []string{"FLT-004", "MX-001"}, Do: do})
	}
	if n.info["redis_version"] == "" {
		return
	}
	aof := n.info["aof_enabled"] == "1"
	fsync, save := n.config["appendfsync"], n.config["save"]
	switch {
	case aof && fsync == "always":
		r.add(finding{Severity: fine, Check: "persistence", Node: n.addr, Found: "every write is on disk before it is answered (appendfsync always)"})
	case aof && n.config == nil:
		r.unseen("persistence", n.addr, "appendfsync", n.unseen)
	case aof:
		add(note, "appendfsync "+fsync, "a crash loses the last second or two, grants and releases: another may take a lock whose holder is still at work",
			"appendfsync always, at the price of a disk write for each lock; or fencing tokens")
	case n.config == nil:
		add(warning, "there is no append-only file; whether there are snapshots could not be seen", "after a crash and a restart locks are gone, or as they were at the last snapshot",
			"appendonly yes; or fencing tokens; or start a server that has lost its data only after the longest ttl")
	case save != "":
		add(warning, "snapshots only (save "+save+")", "after a crash, locks are as of the last snapshot: newer ones are free while their holders work, and released ones are back",
			"appendonly yes; or fencing tokens")
	default:
		add(warning, "there is no persistence", "after a crash and a restart all locks are free while their holders work; they hear of it when their connections come back",
			"appendonly yes; or fencing tokens; or start a server that has lost its data only after the longest ttl")
	}
	if n.info["aof_last_write_status"] == "err" || aof && n.info["aof_last_bgrewrite_status"] == "err" {
		add(critical, "the last write of the append-only file failed", "the server refuses writes: no lock can be taken", "see the server's disk and log")
	}
	if n.info["rdb_last_bgsave_status"] == "err" {
		s := warning
		if n.config["stop-writes-on-bgsave-error"] == "yes" {
			s = critical
		}
		add(s, "the last snapshot failed", "with stop-writes-on-bgsave-error the server refuses writes: no lock can be taken", "see the server's disk and log")
	}
}

func (r *redisStore) eviction(n *redisNode) {
	policy := n.info["maxmemory_policy"]
	if policy == "" {
		return
	}
	f := finding{Severity: fine, Check: "eviction", Node: n.addr, Found: "maxmemory-policy " + policy}
	if policy != "noeviction" {
		f.Severity = warning
		f.Means = "a lock is a key, and may be evicted once there is a limit: it is then granted a second time while its holder works"
		if n.number("maxmemory") > 0 {
			f.Severity = critical
			f.Means = "a lock is a key, and may be evicted: it is then granted a second time while its holder works. volatile-* is no way out: locks are volatile"
		}
		f.Clauses = []string{"MX-001", "LOSS-002"}
		f.Do = "CONFIG SET maxmemory-policy noeviction, and in the configuration file; or a Redis of its own for locks"
		if evicted := n.number("evicted_keys"); evicted > 0 {
			f.Found += fmt.Sprintf("; %d keys were evicted since the server was started", evicted)
		}
	}
	r.add(f)
}

func (r *redisStore) memory(n *redisNode) {
	used, most := n.number("used_memory"), n.number("maxmemory")
	if n.info["used_memory"] == "" {
		return
	}
	f := finding{Severity: fine, Check: "memory", Node: n.addr, Found: fmt.Sprintf("%s used, no maxmemory", mib(used))}
	limit := "maxmemory"
	if most == 0 {
		limit = "the machine's memory"
		most = n.number("total_system_memory")
	} else {
		f.Found = fmt.Sprintf("%s of %s used", mib(used), mib(most))
	}
	if most > 0 {
		share := float64(used) / float64(most)
		switch {
		case share > 0.95:
			f.Severity = critical
		case share > 0.8:
			f.Severity = warning
		}
		if f.Severity > fine {
			f.Found += fmt.Sprintf(": %.0f %% of %s", 100*share, limit)
			f.Means = "a server that is full refuses: a new lock is ErrUnavailable. What is held stays held"
			f.Clauses = []string{"ERR-002"}
			f.Do = "raise maxmemory; a lock takes some 500 bytes, and each name that was locked in the last hour 170"
		}
	}
	r.add(f)
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// tracking is about the table in which the server remembers whom to tell of what.
func (r *redisStore) tracking(ctx context.Context, n *redisNode) {
	if r.option.DisableCache {
		r.add(finding{Severity: note, Check: "tracking", Node: n.addr, Found: `the configuration has tracking "off"`,
			Means: "waiters poll at their retry.delay, and a loss is noticed at the next renewal or the deadline", Clauses: []string{"LOSS-003", "WAIT-001"}})
		return
	}
	limit, known := n.setting("tracking-table-max-keys")
	now := n.number("tracking_total_keys")
	f := finding{Severity: fine, Check: "tracking", Node: n.addr, Found: fmt.Sprintf("%d of %d places in the tracking table are taken", now, limit)}
	switch {
	case !known && n.config == nil:
		r.unseen("tracking", n.addr, "tracking-table-max-keys", n.unseen)
		return
	case !known:
		return // a server without announcements, said above
	case limit == 0:
		f.Found = fmt.Sprintf("%d places in the tracking table are taken, without a limit", now)
	case now >= limit-limit/50:
		f.Severity = critical
	case now > limit/5*4 || limit < 10_000:
		f.Severity = warning
	}
	if f.Severity > fine {
		f.Means = "the table has a place for each lock that is held or waited for, of all clients together. Beyond it the server forgets at random: losses are noticed late, and acquiring takes longer"
		f.Clauses = []string{"LOSS-003", "WAIT-001"}
		f.Do = "CONFIG SET tracking-table-max-keys above the number of locks held and waited for (the default is 1000000), and in the configuration file"
	}
	r.add(f)
}

func (r *redisStore) clients(n *redisNode) {
	if rejected := n.number("rejected_connections"); rejected > 0 {
		r.add(finding{Severity: warning, Check: "clients", Node: n.addr, Found: fmt.Sprintf("%d connections were rejected since the server was started (maxclients %s)", rejected, n.config["maxclients"]),
			Means: "a client that cannot connect renews nothing, and loses its sessions", Clauses: []string{"LOSS-001"}, Do: "raise maxclients"})
	}
}

// replicas is about failover: what a replica that takes over may lack.
func (r *redisStore) replicas(n *redisNode) {
	if n.info["role"] == "" {
		return
	}
	if !n.master() {
		if r.client.Mode() != rueidis.ClientModeCluster && r.config.MasterSet == "" {
			r.add(finding{Severity: critical, Check: "role", Node: n.addr, Found: "it is a replica of " + n.info["master_host"] + ":" + n.info["master_port"],
				Means: "it refuses writes: no lock can be taken", Clauses: []string{"ERR-002"}, Do: "configure the master, or a name that follows it"})
		}
		if n.info["master_link_status"] == "down" {
			r.add(finding{Severity: warning, Check: "replication", Node: n.addr, Found: "its link to the master is down",
				Means: "if it is promoted, it lacks all locks since then", Clauses: []string{"MX-001"}, Do: "see why"})
		}
		return
	}
	connected := n.number("connected_slaves")
	least, known := n.setting("min-replicas-to-write")
	lag := n.config["min-replicas-max-lag"]
	f := finding{Severity: fine, Check: "failover", Node: n.addr}
	switch {
	case known && least > connected || n.info["min_slaves_good_slaves"] != "" && n.number("min_slaves_good_slaves") < least:
		f.Severity = critical
		f.Found = fmt.Sprintf("min-replicas-to-write is %d, and %d replicas are connected", least, connected)
		f.Means = "the master refuses writes: no lock can be taken"
		f.Clauses = []string{"ERR-002"}
		f.Do = "bring the replicas back"
	case connected == 0 && (r.config.MasterSet != "" || r.client.Mode() == rueidis.ClientModeCluster):
		f.Severity = warning
		f.Found = "it has no replica"
		f.Means = "if it dies, its locks cannot be taken until it is back"
		f.Clauses = []string{"FLT-004"}
		f.Do = "give it a replica"
	case connected == 0:
		f.Found = "one server without a replica: there is no failover, and nothing that one could lose"
	case !known:
		f.Severity = note
		f.Found = fmt.Sprintf("%d replicas are connected; min-replicas-to-write could not be seen", connected)
		f.Means = "replication is asynchronous: a replica that takes over may lack the newest grants and releases. Only fencing tokens tell"
		f.Clauses = []string{"MX-001", "TOK-001"}
	case least == 0:
		f.Severity = warning
		f.Found = fmt.Sprintf("%d replicas are connected, and min-replicas-to-write is 0", connected)
		f.Means = "in a split brain the old master goes on granting for as long as the partition lasts: two holders at a time"
		f.Clauses = []string{"MX-001", "TOK-001"}
		f.Do = "min-replicas-to-write 1 and a small min-replicas-max-lag (now " + lag + " s); or fencing tokens"
	default:
		f.Severity = note
		f.Found = fmt.Sprintf("%d replicas are connected, min-replicas-to-write is %d, min-replicas-max-lag %s s", connected, least, lag)
		f.Means = "replication is asynchronous: a replica that takes over may lack the newest grants and releases, and for " + lag + " s both may grant. Only fencing tokens tell"
		f.Clauses = []string{"MX-001", "TOK-001"}
	}
	r.add(f)
}

// cluster is about the whole of a Cluster.
func (r *redisStore) cluster(ctx context.Context) {
	if r.client.Mode() != rueidis.ClientModeCluster || len(r.nodes) == 0 {
		return
	}
	text, err := r.nodes[0].do(ctx, "CLUSTER", "INFO").ToString()
	if err != nil {
		r.unseen("cluster", r.nodes[0].addr, "CLUSTER INFO", err)
		return
	}
	info := parseInfo(text)
	f := finding{Severity: fine, Check: "cluster", Found: "cluster_state " + info["cluster_state"] + ", " + info["cluster_size"] + " masters, " + info["cluster_slots_ok"] + " slots ok"}
	if info["cluster_state"] != "ok" || info["cluster_slots_ok"] != "16384" {
		f.Severity = critical
		f.Means = "locks in slots that are not served cannot be taken, renewed or released"
		f.Clauses = []string{"ERR-002"}
		f.Do = "bring the missing masters back, or assign their slots"
	}
	r.add(f)
}
