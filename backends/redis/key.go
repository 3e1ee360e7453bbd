package redis

import (
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// The layout of one lock in Redis, for the prefix "lockstep" and the key "orders:42":
//
//	lockstep:0:{:orders:42}      the lock, a string: the owner, a semicolon, the length of its
//	                             identity, a colon, the identity, and the note. Deleted or
//	                             expired: free. Older versions have the owner alone.
//	token:lockstep:{:orders:42}  the token counter, a string: the last token handed out.
//	token:lockstep:{:orders:42}:queue  the processes that wait, a sorted set; see lua/queue.lua.
//	token:lockstep:{:orders:42}:queue:…  the bell of a process that waits: written when it is called, and
//	                             deleted at once (lua/call.lua).
//	token:lockstep:{:orders:42}:lease:…  an owner that gave its attempt up, for a while
//	                             (lua/takeback.lua).
//	token:lockstep:{:orders:42}:broken:…  an owner whose hold was broken, until it has noticed
//	                             (lua/break.lua).
//
// The first is rueidislock's own layout (prefix, number of the key, name), because its
// invalidation handler finds its locks by it. The counter's key must not begin with the
// prefix: that handler cuts what does and panics at a number it does not know.
//
// No counter's key is one of the kinds below it, which stand among them so that an ACL
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

func (l layout) queueKey(key string) string { return l.tokenKey(key) + ":queue" }

// slotOf is where the Redis keys of key's lock are in a Cluster: by the hash tag, which a brace in key
// ends early.
func slotOf(key string) uint16 {
	tag, _, _ := strings.Cut(key, "}")
	return crc16([]byte(":"+tag)) % slots
}

// slotOf is where lock, which lockKey made, is in a Cluster.
func (l layout) slotOf(lock string) uint16 { return slotOf(lock[len(l.lock)+len("{:"):]) }

func givenUpKey(counter, owner string) string { return counter + ":" + owner }

func brokenKey(counter, owner string) string { return counter + ":broken:" + owner }

// counterOf is the tokenKey of lockKey's key.
func (l layout) counterOf(lock string) string { return l.token + lock[len(l.lock):] }

// isLock says whether a Redis key is one of our locks rather than something else that
// the server announces.
func (l layout) isLock(redisKey string) bool {
	return strings.HasPrefix(redisKey, l.lock) && strings.HasPrefix(redisKey[len(l.lock):], "{:")
}

// keyOf is the key whose lock a Redis key is.
func (l layout) keyOf(redisKey string) (key string, ok bool) {
	if !l.isLock(redisKey) {
		return "", false
	}
	key, ok = strings.CutSuffix(redisKey[len(l.lock)+len("{:"):], "}")
	return key, ok && key != ""
}

// pattern matches the locks whose keys begin with prefix.
func (l layout) pattern(prefix string) string {
	return globbed.Replace(l.lock+"{:"+prefix) + "*"
}

var globbed = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`)

// ownerValue is the beginning of the lock's value: what kind of hold, and the owner. It ends with
// a semicolon, so that no owner is the beginning of another.
func ownerValue(o driver.Owner, session bool) string {
	var buf [64]byte
	return string(appendOwner(buf[:0], o, session))
}

func appendOwner(b []byte, o driver.Owner, session bool) []byte {
	kind := "lease:"
	if session {
		kind = "session:"
	}
	return append(o.AppendText(append(b, kind...)), ';')
}

// about is the rest of the value: what a request says of itself to people.
func about(r *driver.Request) string {
	var buf [128]byte
	return string(appendAbout(buf[:0], r))
}

func appendAbout(b []byte, r *driver.Request) []byte {
	b = append(strconv.AppendInt(b, int64(len(r.Identity)), 10), ':')
	return append(append(b, r.Identity...), r.Note...)
}

// lockValue is the value of a lock that r is granted, and the owner, which is its beginning.
func lockValue(r *driver.Request) (value, owner string) {
	var buf [192]byte // on the stack: one allocation for both
	b := appendOwner(buf[:0], r.Owner, r.Session())
	n := len(b)
	value = string(appendAbout(b, r))
	return value, value[:n]
}

// maxValue is the greatest length of what lockValue makes.
const maxValue = 62 + len("256:") + 256 + 1024

// parseOwner is ok for what ownerValue makes, and what it made before there was a semicolon, and
// for nothing else.
func parseOwner(value string) (owner string, session, ok bool) {
	value = strings.TrimSuffix(value, ";")
	owner, session = strings.CutPrefix(value, "session:")
	if !session {
		owner, ok = strings.CutPrefix(value, "lease:")
	}
	instance, seq, found := strings.Cut(owner, "-")
	_, err1 := hex.DecodeString(instance)
	_, err2 := strconv.ParseUint(seq, 10, 64)
	return owner, session, (session || ok) && found && len(instance) == 32 && err1 == nil && err2 == nil
}

// parseValue reads what a lock holds. What an older version, or a newer one, or an administrator
// wrote behind the owner is nothing.
func parseValue(value string) (info driver.Info, owner string, ok bool) {
	owner = value
	end := strings.IndexByte(value, ';')
	if end >= 0 {
		owner = value[:end+1]
	}
	if info.Owner, info.Session, ok = parseOwner(owner); !ok {
		return driver.Info{}, "", false
	}
	length, said, _ := strings.Cut(value[len(owner):], ":")
	if n, err := strconv.ParseUint(length, 10, 16); err == nil && int(n) <= len(said) {
		info.Identity, info.Note = said[:n], said[n:]
	}
	return info, owner, true
}
