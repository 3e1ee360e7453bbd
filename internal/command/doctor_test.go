//go:build unix

package command

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/lockstep-go/lockstep/internal/pgtest"
	"github.com/lockstep-go/lockstep/internal/redistest"
)

// report is what doctor --json prints.
type report struct {
	Store    string
	Verdict  string
	Findings []found
}

type found struct {
	Severity, Check, Node, Found, Means, Do string
	Clauses                                 []string
}

// doctor runs it, and checks that the exit code is that of the verdict.
func doctor(t *testing.T, url string) report {
	t.Helper()
	lookedAt()
	cmd := exec.Command(program, "doctor", "--json")
	cmd.Env = append(cmd.Environ(), "LOCKSTEP_CONFIG="+url)
	out, err := cmd.Output()
	var r report
	if bad := json.Unmarshal(out, &r); bad != nil {
		t.Fatalf("%v, %v:\n%s", err, bad, out)
	}
	want, known := map[string]int{"note": 0, "warning": 1, "critical": 2}[r.Verdict]
	if got := cmd.ProcessState.ExitCode(); got != want || !known {
		t.Errorf("exit code %d with the verdict %s", got, r.Verdict)
	}
	worst := 0
	for _, f := range r.Findings {
		severity, known := map[string]int{"ok": 0, "note": 0, "warning": 1, "critical": 2}[f.Severity]
		worst = max(worst, severity)
		if !known || f.Check == "" || f.Found == "" {
			t.Errorf("a finding is not whole: %+v", f)
		}
		if severity > 0 && (f.Means == "" || f.Do == "") {
			t.Errorf("it does not say what this means, or what to do: %+v", f)
		}
	}
	if worst != want {
		t.Errorf("the verdict is %s, the worst finding %d", r.Verdict, worst)
	}
	return r
}

// of are the findings of one check that are worse than ok, as "severity: what was found".
func (r report) of(check string) (all []string) {
	for _, f := range r.Findings {
		if f.Check == check && f.Severity != "ok" {
			all = append(all, f.Severity+": "+f.Found)
		}
	}
	return all
}

// wants checks that a check has found one thing, or nothing.
func (r report) wants(t *testing.T, check, want string) {
	t.Helper()
	got := r.of(check)
	if want == "" && len(got) == 0 || len(got) == 1 && want != "" && strings.HasPrefix(got[0], want) {
		return
	}
	t.Errorf("%s: got %q, want %q", check, got, want)
}

func TestDoctorMemory(t *testing.T) {
	t.Parallel()
	r := doctor(t, "memory://")
	r.wants(t, "store", "note: its locks live within one process")
}

// durable are the settings of a Redis with which nothing is wrong.
var durable = []string{"--appendonly", "yes", "--appendfsync", "always", "--maxmemory", "100mb", "--maxmemory-policy", "noeviction"}

func with(more ...string) redistest.Option {
	return redistest.Args(append(slices.Clone(durable), more...)...)
}

func TestDoctorRedisHealthy(t *testing.T) {
	t.Parallel()
	r := doctor(t, redistest.Start(t, with()).URL())
	if r.Verdict != "note" {
		t.Errorf("a server with nothing wrong: %+v", r)
	}
	checks := map[string]bool{}
	for _, f := range r.Findings {
		checks[f.Check] = true
		if f.Severity != "ok" {
			t.Errorf("a server with nothing wrong: %+v", f)
		}
	}
	for _, want := range []string{"lock", "version", "persistence", "eviction", "memory", "tracking", "failover", "rights", "latency", "clock", "drift"} {
		if !checks[want] {
			t.Errorf("nothing is said of %s", want)
		}
	}
}

// Each mistake is found, and nothing else is.
func TestDoctorRedisMisconfigured(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args        []string
		check, want string
		exec        [][]string // before the doctor comes
	}{
		"evicts":                {[]string{"--maxmemory-policy", "allkeys-lru"}, "eviction", "critical: maxmemory-policy allkeys-lru", nil},
		"evicts volatile keys":  {[]string{"--maxmemory-policy", "volatile-ttl"}, "eviction", "critical: maxmemory-policy volatile-ttl", nil},
		"would evict":           {[]string{"--maxmemory-policy", "allkeys-lru", "--maxmemory", "0"}, "eviction", "warning: maxmemory-policy allkeys-lru", nil},
		"no persistence":        {[]string{"--appendonly", "no"}, "persistence", "warning: there is no persistence", nil},
		"snapshots":             {[]string{"--appendonly", "no", "--save", "3600 1"}, "persistence", "warning: snapshots only", nil},
		"everysec":              {[]string{"--appendfsync", "everysec"}, "persistence", "note: appendfsync everysec", nil},
		"no fsync":              {[]string{"--appendfsync", "no"}, "persistence", "note: appendfsync no", nil},
		"a small table":         {[]string{"--tracking-table-max-keys", "500"}, "tracking", "warning: ", nil},
		"needs replicas":        {[]string{"--min-replicas-to-write", "1"}, "failover", "critical: min-replicas-to-write is 1, and 0 replicas", nil},
		"no memory left":        {nil, "memory", "critical: ", [][]string{{"CONFIG", "SET", "maxmemory", "1mb"}}},
		"connections were lost": {[]string{"--maxclients", "40"}, "clients", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := redistest.Start(t, with(test.args...))
			for _, command := range test.exec {
				srv.Do(t, command...)
			}
			r := doctor(t, srv.URL())
			r.wants(t, test.check, test.want)
			for _, f := range r.Findings {
				// A server that refuses is found by who tries, too.
				if f.Check != test.check && f.Severity != "ok" && f.Check != "lock" && f.Check != "open" {
					t.Errorf("also: %+v", f)
				}
			}
		})
	}
}

// A right that is missing is named, each by itself, as docs/configuration.md lists them.
func TestDoctorRedisRights(t *testing.T) {
	t.Parallel()
	required := []string{"eval", "evalsha", "getrange", "set", "del", "incr", "pttl", "pexpire", "time"}
	optional := []string{"client|tracking", "info", "type", "pexpiretime", "zadd", "zpopmin", "zrem", "zrank", "scan", "zcard"}
	minor := []string{"info", "type", "pexpiretime", "scan", "zcard"}
	all := append(slices.Clone(required), optional...)
	srv := redistest.Start(t, with())
	user := func(name string, rules ...string) string {
		t.Helper()
		srv.Do(t, append([]string{"ACL", "SETUSER", name, "reset", "on", ">secret"}, rules...)...)
		return strings.Replace(srv.URL(), "redis://", "redis://"+name+":secret@", 1)
	}
	rules := func(without string) (rules []string) {
		rules = []string{"~lockstep:*", "~token:lockstep:*"}
		for _, command := range all {
			if command != without {
				rules = append(rules, "+"+command)
			}
		}
		return rules
	}
	r := doctor(t, user("least", rules("")...))
	r.wants(t, "rights", "")
	r.wants(t, "tracking", "note: tracking-table-max-keys could not be seen")
	r.wants(t, "persistence", "note: appendfsync could not be seen")
	for i, command := range all {
		severity := "critical"
		if slices.Contains(optional, command) {
			severity = "warning"
		}
		if slices.Contains(minor, command) {
			severity = "note"
		}
		r := doctor(t, user(fmt.Sprintf("user%d", i), rules(command)...))
		r.wants(t, "rights", severity+": the user lacks +"+command+":")
	}
	r = doctor(t, user("nolocks", append(rules(""), "resetkeys", "~token:lockstep:*")...))
	r.wants(t, "rights", "critical: the user lacks ~lockstep:*:")
	r = doctor(t, user("nocounters", append(rules(""), "resetkeys", "~lockstep:*")...))
	r.wants(t, "rights", "critical: the user lacks ~token:lockstep:*:")
	r = doctor(t, user("noclock", rules("time")...))
	r.wants(t, "clock", "note: its clock's offset could not be seen")
}

// A renamed command is a missing one.
func TestDoctorRedisRenamed(t *testing.T) {
	t.Parallel()
	r := doctor(t, redistest.Start(t, with("--rename-command", "CONFIG", "")).URL())
	r.wants(t, "tracking", "note: tracking-table-max-keys could not be seen")
	r.wants(t, "rights", "")
}

func TestDoctorRedisReplica(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinel(t)
	master := sentinel.Master(t)
	r := doctor(t, master.URL())
	r.wants(t, "failover", "warning: 1 replicas are connected, and min-replicas-to-write is 0")
	master.Do(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	doctor(t, master.URL()).wants(t, "failover", "note: 1 replicas are connected, min-replicas-to-write is 1")
	for _, srv := range sentinel.Data {
		if srv != master {
			doctor(t, srv.URL()).wants(t, "role", "critical: it is a replica of")
		}
	}
	r = doctor(t, "redis:///?masterSet="+sentinel.MasterSet+"&addrs="+strings.Join(sentinel.Addrs(), "&addrs="))
	r.wants(t, "failover", "note: 1 replicas are connected, min-replicas-to-write is 1")
}

func TestDoctorRedisCluster(t *testing.T) {
	t.Parallel()
	r := doctor(t, "redis:///?addrs="+strings.Join(redistest.Cluster(t).Addrs(), "&addrs="))
	r.wants(t, "cluster", "")
	nodes := map[string]bool{}
	for _, f := range r.Findings {
		if f.Check == "latency" {
			nodes[f.Node] = true
		}
		if f.Check == "failover" && f.Severity != "warning" {
			t.Errorf("a master without a replica: %+v", f)
		}
	}
	if len(nodes) != 3 {
		t.Errorf("latencies to %v, want three nodes", nodes)
	}
}

// What does not answer, or is no Redis, is no finding but an exit code.
func TestDoctorUnreachable(t *testing.T) {
	t.Parallel()
	start(t, "redis://127.0.0.1:1", []string{"doctor"}).exits(122)
	start(t, "postgres://127.0.0.1:1/x?connect_timeout=1", []string{"doctor"}).exits(122)
	start(t, "", []string{"doctor"}).exits(123)
	start(t, "redis://127.0.0.1:1?validity=5h", []string{"doctor"}).exits(123)
}

func TestDoctorText(t *testing.T) {
	t.Parallel()
	p := start(t, redistest.Start(t, with("--maxmemory-policy", "allkeys-lru")).URL(), []string{"doctor"})
	p.exits(2)
	var all []string
	for line := range p.lines {
		all = append(all, line)
		if len(line) > 120 || strings.Contains(line, "\x1b") {
			t.Errorf("not fit for a pipe: %q", line)
		}
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{"critical  eviction at", "means: a lock is a key", "(MX-001, LOSS-002)", "do:    CONFIG SET", "This Redis is not fit to hold locks in."} {
		if !strings.Contains(text, want) {
			t.Errorf("the text has no %q:\n%s", want, text)
		}
	}
	p = start(t, redistest.Start(t, with()).URL(), []string{"doctor", "--quiet"})
	p.exits(0)
}

func TestDoctorPostgresHealthy(t *testing.T) {
	t.Parallel()
	srv := pgtest.Single(t)
	r := doctor(t, srv.URL(srv.Database(t)))
	checks := map[string]bool{}
	for _, f := range r.Findings {
		checks[f.Check] = true
		if f.Severity != "ok" {
			t.Errorf("a server with nothing wrong: %+v", f)
		}
	}
	for _, want := range []string{"lock", "version", "durability", "failover", "pooler", "table", "rights", "bloat", "latency", "clock", "drift"} {
		if !checks[want] {
			t.Errorf("nothing is said of %s", want)
		}
	}
}

// What a role may not do, one right after the other, and what it has set.
func TestDoctorPostgresRole(t *testing.T) {
	t.Parallel()
	srv := pgtest.Single(t)
	db := srv.Database(t)
	doctor(t, srv.URL(db)) // makes the schema
	admin := srv.Admin(t, db)
	role := "doctor_" + db
	exec := func(sql string) {
		t.Helper()
		if _, err := admin.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec("CREATE ROLE " + role + " LOGIN PASSWORD 'secret'")
	t.Cleanup(func() { srv.Do(t, "DROP OWNED BY "+role); srv.Do(t, "DROP ROLE "+role) })
	as, err := url.Parse(srv.URL(db))
	if err != nil {
		t.Fatal(err)
	}
	as.User = url.UserPassword(role, "secret")
	q := as.Query()
	q.Set("migrate", "off")
	as.RawQuery = q.Encode()
	look := func() report { t.Helper(); return doctor(t, as.String()) }

	look().wants(t, "rights", "critical: the user lacks USAGE ON SCHEMA")
	grants := []string{"USAGE ON SCHEMA lockstep"}
	for _, table := range []string{"locks", "locks_undone"} {
		for _, right := range []string{"SELECT", "INSERT", "UPDATE", "DELETE"} {
			grants = append(grants, right+" ON lockstep."+table)
		}
	}
	grants = append(grants, "SELECT ON lockstep.locks_swept", "UPDATE ON lockstep.locks_swept")
	for _, g := range grants {
		exec("GRANT " + g + " TO " + role)
	}
	look().wants(t, "rights", "")
	for _, g := range grants[1:] {
		exec("REVOKE " + g + " FROM " + role)
		right, table, _ := strings.Cut(g, " ON lockstep.")
		severity := "critical"
		if table == "locks_swept" {
			severity = "note"
		}
		look().wants(t, "rights", severity+": the user lacks "+right+` ON "lockstep"."`+table+`"`)
		exec("GRANT " + g + " TO " + role)
	}
	for _, setting := range []struct{ name, value, check, want string }{
		{"synchronous_commit", "off", "durability", "warning: synchronous_commit is off"},
		{"default_transaction_read_only", "on", "standby", "critical: default_transaction_read_only is on"},
		{"statement_timeout", "500ms", "limits", "warning: statement_timeout is 500ms"},
		{"statement_timeout", "30s", "limits", "note: statement_timeout is 30s"},
	} {
		exec("ALTER ROLE " + role + " SET " + setting.name + " = '" + setting.value + "'")
		look().wants(t, setting.check, setting.want)
		exec("ALTER ROLE " + role + " RESET ALL")
	}
	exec("ALTER TABLE lockstep.locks SET UNLOGGED")
	look().wants(t, "durability", "warning: the table is unlogged")
	exec("ALTER TABLE lockstep.locks SET (autovacuum_enabled = false)")
	look().wants(t, "bloat", "warning: autovacuum is off")
	exec("DROP SCHEMA lockstep CASCADE")
	look().wants(t, "table", `critical: "lockstep"."locks" is not there, and migrate is off`)
}

func TestDoctorPostgresServer(t *testing.T) {
	t.Parallel()
	srv := pgtest.Start(t, pgtest.Param("fsync", "off"), pgtest.Param("full_page_writes", "off"))
	r := doctor(t, srv.URL("postgres"))
	if got := r.of("durability"); len(got) != 2 || !strings.HasPrefix(got[0], "critical: fsync is off") || !strings.HasPrefix(got[1], "warning: full_page_writes is off") {
		t.Errorf("got %q", got)
	}
	standby := srv.Standby(t)
	until(t, "the standby is known", func() bool {
		return pgtest.Value[int](t, srv, "postgres", "SELECT count(*)::int FROM pg_stat_replication WHERE state = 'streaming'") == 1
	})
	doctor(t, srv.URL("postgres")).wants(t, "failover", "warning: 1 standbys, 0 of them synchronous")
	doctor(t, standby.URL("postgres")).wants(t, "standby", "critical: this is a standby")
	doctor(t, "postgres://postgres@"+pgtest.StartBouncer(t, srv).Addr()+"/postgres?sslmode=disable").wants(t, "pooler", "warning: a pooler in transaction mode")
}
