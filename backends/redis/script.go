package redis

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// The scripts are constants of the program: no byte of a user's is ever part of one.
// Keys and owners travel as KEYS and ARGV. Each begins with what it shares with others.
var (
	//go:embed lua/holder.lua
	holderSource string
	//go:embed lua/counter.lua
	counterSource string
	//go:embed lua/acquire.lua
	acquireSource string
	//go:embed lua/mint.lua
	mintSource string
	//go:embed lua/together.lua
	togetherSource string
	//go:embed lua/extend.lua
	extendSource string
	//go:embed lua/check.lua
	checkSource string
	//go:embed lua/release.lua
	releaseSource string
	//go:embed lua/takeback.lua
	takeBackSource string
	//go:embed lua/inspect.lua
	inspectSource string
	//go:embed lua/call.lua
	callSource string
	//go:embed lua/leave.lua
	leaveSource string
	//go:embed lua/queue.lua
	queueSource string
	//go:embed lua/handoff.lua
	handOffSource string
	//go:embed lua/list.lua
	listSource string
	//go:embed lua/break.lua
	breakSource string

	acquireScript  = rueidis.NewLuaScript(holderSource + counterSource + acquireSource + mintSource)
	extendScript   = rueidis.NewLuaScript(holderSource + extendSource)
	checkScript    = rueidis.NewLuaScript(holderSource + checkSource)
	releaseScript  = rueidis.NewLuaScript(holderSource + callSource + releaseSource)
	leaveScript    = rueidis.NewLuaScript(callSource + leaveSource)
	takeBackScript = rueidis.NewLuaScript(holderSource + counterSource + takeBackSource)
	inspectScript  = rueidis.NewLuaScript(holderSource + counterSource + inspectSource)
	handOffScript  = rueidis.NewLuaScript(holderSource + counterSource + callSource + handOffSource)
	functions      = "local function take()\n" + acquireSource + "end\nlocal function mint()\n" + mintSource + "end\n"
	queueScript    = rueidis.NewLuaScript(holderSource + counterSource + callSource + functions + queueSource)
	togetherScript = rueidis.NewLuaScript(holderSource + counterSource + functions + togetherSource)
	listScript     = rueidis.NewLuaScript(listSource)
	breakScript    = rueidis.NewLuaScript(holderSource + counterSource + breakSource)
)

// number is the reply of a script about key's lock that answers with one from least to most.
func (b *backend) number(ctx context.Context, key string, reply rueidis.RedisResult, least, most int64) (int64, error) {
	n, err := reply.AsInt64()
	switch {
	case err != nil:
		return 0, b.scriptError(ctx, key, reply, err)
	case n < least || n > most:
		return 0, b.malformed(key, fmt.Sprintf("%d, not a number from %d to %d", n, least, most))
	}
	return n, nil
}

// scriptError is err in the driver's words: reply's own error, or that of reading it.
func (b *backend) scriptError(ctx context.Context, key string, reply rueidis.RedisResult, err error) error {
	failed := reply.Error()
	if failed == nil || rueidis.IsRedisNil(failed) {
		return b.malformed(key, err.Error())
	}
	if said, ok := rueidis.IsRedisErr(failed); ok && !b.closed.Load() {
		if kind, ok := foreignKind(reply); ok {
			return b.foreignKey(b.layout.lockKey(key), kind)
		}
		if problem, ok := strings.CutPrefix(said.Error(), "LOCKSTEP COUNTER "); ok {
			return b.foreignCounter(b.layout.tokenKey(key), problem)
		}
	}
	return b.classify(ctx, failed)
}

// foreignKind is what a script found in the place of a lock.
func foreignKind(reply rueidis.RedisResult) (kind string, ok bool) {
	if said, isErr := rueidis.IsRedisErr(reply.Error()); isErr {
		return strings.CutPrefix(said.Error(), "LOCKSTEP FOREIGN ")
	}
	return "", false
}

// foreignKey and foreignCounter are refusals rather than mistakes in the configuration: most
// likely another program or an administrator put it there. Who waits gets the lock when it
// has been deleted.
func (b *backend) foreignKey(redisKey, kind string) error {
	return fmt.Errorf("%w: Redis key %q holds a %s, not a lock; delete it or change prefix", driver.ErrRefused, redisKey, b.secrets.words(kind))
}

func (b *backend) foreignCounter(redisKey, problem string) error {
	return fmt.Errorf("%w: Redis key %q is not a usable token counter (%s); delete it or change prefix", driver.ErrRefused, redisKey, b.secrets.words(problem))
}

// malformed is a reply that no script of ours gives. What was asked for may have happened.
func (b *backend) malformed(key, problem string) error {
	return fmt.Errorf("%w: Redis key %q: malformed reply: %s", driver.ErrUnavailable, b.layout.lockKey(key), b.secrets.words(problem))
}
