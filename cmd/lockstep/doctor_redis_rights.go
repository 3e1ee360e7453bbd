package main

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/rueidis"
)

// right is one right of an ACL user, and a command that needs it and changes nothing.
type right struct {
	name    string
	command []string // key: the probe lock, token: the probe counter
	without string   // what is missing without it; empty: programs do not start
	minor   bool     // nobody's lock is the worse for it
}

// rights are those of docs/configuration.md, in its order.
var redisRights = []right{
	{"+eval", []string{"EVAL", "return 1", "1", "key"}, "", false},
	{"+evalsha", []string{"EVALSHA", "0000000000000000000000000000000000000000", "1", "key"}, "", false},
	{"+getrange", []string{"GETRANGE", "key", "0", "0"}, "", false},
	{"+set", []string{"SET", "key", "", "XX", "PX", "1"}, "", false},
	{"+del", []string{"DEL", "key"}, "", false},
	{"+incr", nil, "", false}, // it would make the counter: see tryIncr
	{"+pttl", []string{"PTTL", "key"}, "", false},
	{"+pexpire", []string{"PEXPIRE", "key", "1"}, "", false},
	{"+time", []string{"TIME"}, "", false},
	{"+client|tracking", []string{"CLIENT", "TRACKING", "OFF"}, "waiters poll at their retry.delay, and a loss is noticed at the next renewal or the deadline", false},
	{"+info", []string{"INFO", "server"}, "the server counts as older than 7.0.5: a session costs one more command at each renewal", true},
	{"+type", []string{"TYPE", "key"}, "an error does not say what stands in the place of a lock", true},
	{"+pexpiretime", []string{"PEXPIRETIME", "key"}, "a grant asks for the time instead", true},
	{"+scan", []string{"SCAN", "0", "COUNT", "1"}, "List is refused, and with it lockstep ls, and watch without a KEY", true},
	{"+zcard", []string{"ZCARD", "token"}, "Inspect and List do not know how many processes wait", true},
	{"+zadd", []string{"ZADD", "token", "XX", "0", "m"}, "there is no order among the processes that wait", false},
	{"+zpopmin", []string{"ZPOPMIN", "token"}, "there is no order among the processes that wait", false},
	{"+zrem", []string{"ZREM", "token", "m"}, "there is no order among the processes that wait", false},
	{"+zrank", []string{"ZRANK", "token", "m"}, "each release is an attempt of every process that waits", false},
	{"~PREFIX:*", []string{"GETRANGE", "key", "0", "0"}, "", false},
	{"~token:PREFIX:*", []string{"GETRANGE", "token", "0", "0"}, "", false},
}

var clusterRights = []right{
	{"+cluster|slots", []string{"CLUSTER", "SLOTS"}, "", false},
	{"+asking", []string{"ASKING"}, "", false},
}

// rights tries every command once, on keys that do not exist, at one master. That all masters
// agree is seen by Open.
func (r *redisStore) rights(ctx context.Context) {
	var master *redisNode
	for _, n := range r.nodes {
		if n.info != nil && n.master() {
			master = n
		}
	}
	if master == nil {
		return
	}
	key := r.config.Prefix + ":probe:{doctor}"
	token := "token:" + key
	all := redisRights
	cluster := r.client.Mode() == rueidis.ClientModeCluster
	if cluster {
		all = append(all[:len(all):len(all)], clusterRights...)
	}
	if r.config.MasterSet != "" {
		all = append(all[:len(all):len(all)], right{"+role", []string{"ROLE"}, "", false})
	}
	has, seven := 0, versionAtLeast(master.info["redis_version"], 7, 0, 0)
	for _, want := range all {
		name := strings.ReplaceAll(want.name, "PREFIX", r.config.Prefix)
		ofKeys := strings.HasPrefix(name, "~")
		err := r.try(ctx, want.command, key, token)
		if want.command == nil {
			err = r.tryIncr(ctx, token)
		}
		refusal, missing := refusedBy(err)
		switch {
		case want.name == "+pexpiretime" && !seven:
			continue // the server does not know it
		case missing && refusal == ofKeys:
			f := finding{Severity: critical, Check: "rights", Node: master.addr, Found: "the user lacks " + name + ": " + err.Error(),
				Means: "programs do not start: Open names it", Clauses: []string{"ERR-003"}, Do: "ACL SETUSER " + r.user() + " " + name}
			if want.without != "" {
				f.Severity, f.Means, f.Clauses = warning, want.without, nil
			}
			if want.minor {
				f.Severity = note
			}
			r.add(f)
		default:
			has++
		}
	}
	if has > 0 {
		r.add(finding{Severity: fine, Check: "rights", Node: master.addr, Found: "the user has what else a program needs"})
	}
}

func (r *redisStore) user() string {
	if r.config.Username != "" {
		return plain(r.config.Username)
	}
	return "default"
}

func (r *redisStore) try(ctx context.Context, command []string, key, token string) error {
	if command == nil {
		return nil
	}
	build := r.client.B().Arbitrary(command[0])
	for _, arg := range command[1:] {
		switch arg {
		case "key":
			build = build.Keys(key)
		case "token":
			build = build.Keys(token)
		default:
			build = build.Args(arg)
		}
	}
	return r.client.Do(ctx, build.Build()).Error()
}

// tryIncr makes a counter, and only if it can be deleted.
func (r *redisStore) tryIncr(ctx context.Context, token string) error {
	if err := r.try(ctx, []string{"DEL", "token"}, "", token); err != nil {
		return nil // said of DEL
	}
	err := r.try(ctx, []string{"INCR", "token"}, "", token)
	return errors.Join(err, r.try(ctx, []string{"DEL", "token"}, "", token))
}

// refusedBy says whether err is a missing right, and whether it is one to keys rather than to a
// command.
func refusedBy(err error) (keys, missing bool) {
	var reply *rueidis.RedisError
	if !errors.As(err, &reply) {
		return false, false
	}
	text := reply.Error()
	if strings.HasPrefix(text, "ERR unknown command") || strings.HasPrefix(text, "unknown command") {
		return false, true
	}
	if !strings.Contains(text, "NOPERM") {
		return false, false
	}
	return strings.Contains(text, "access") && strings.Contains(text, "key"), true
}
