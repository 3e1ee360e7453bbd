package redis

import (
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// The layout of one lock in Redis, for the prefix "lockstep" and the key "orders:42":
//
//	lockstep:0:{:orders:42}      the lock, a string: the owner. Deleted or expired: free.
//	token:lockstep:{:orders:42}  the token counter, a string: the last token handed out.
//	token:lockstep:{:orders:42}:line  the processes that wait, a sorted set; see lua/line.lua.
//	token:lockstep:{:orders:42}:lease:…  an owner that gave its attempt up, for a while
//	                             (lua/takeback.lua).
//
// The first is rueidislock's own layout (prefix, number of the key, name), because its
// invalidation handler finds its locks by it. The counter's key must not begin with the
// prefix: that handler cuts what does and panics at a number it does not know.
//
// No counter's key is one of the third or fourth kind, which stand among them so that an ACL
// need not know of them: counters end with the brace.
//
// All stand in one Cluster slot, by the hash tag. The tag begins with a colon that no
// user chooses: in "{" + key + "}" a key that begins with "}" leaves the tag empty, and
// Redis then hashes the whole name, which differs between them. A "}" further on
// ends the tag early, in all alike.
type layout struct {
	lock  string // before the name
	token string
}

func newLayout(prefix string) layout {
	return layout{lock: prefix + ":0:", token: "token:" + prefix + ":"}
}

func (l layout) lockName(key string) string { return "{:" + key + "}" } // what rueidislock calls it
func (l layout) lockKey(key string) string  { return l.lock + "{:" + key + "}" }
func (l layout) tokenKey(key string) string { return l.token + "{:" + key + "}" }

func (l layout) lineKey(key string) string { return l.tokenKey(key) + ":line" }

func givenUpKey(counter, owner string) string { return counter + ":" + owner }

// isLock says whether a Redis key is one of our locks rather than something else that
// the server announces.
func (l layout) isLock(redisKey string) bool {
	return strings.HasPrefix(redisKey, l.lock) && strings.HasPrefix(redisKey[len(l.lock):], "{:")
}

// ownerValue is the lock's value: what kind of hold, and the owner.
func ownerValue(o driver.Owner, session bool) string {
	var buf [64]byte
	kind := "lease:"
	if session {
		kind = "session:"
	}
	return string(o.AppendText(append(buf[:0], kind...)))
}

func parseOwner(value string) (owner string, session bool) {
	if owner, ok := strings.CutPrefix(value, "session:"); ok {
		return owner, true
	}
	return strings.TrimPrefix(value, "lease:"), false
}
