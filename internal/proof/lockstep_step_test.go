package proof

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// A step is one line of a program that runs on two stores at once. It is data, so that a
// program can be drawn, shrunk, printed as Go, and pasted into a test.
type step struct {
	do  string        // one of the verbs below
	by  int           // which client does it
	key string        // of try, lock, await, inspect
	ttl time.Duration // of try, lock, await, handOver, extend; 0 asks for a session
	as  string        // the name that a new hold is given, if there is one
	of  string        // the name of the hold that it is about; the step is left out if there is none
	ctx string        // "" for one that goes on, "canceled", "nil"
}

// The verbs.
const (
	doTry      = "try"      // TryLock
	doLock     = "lock"     // Lock with a few quick retries
	doAwait    = "await"    // Lock that outwaits short leases; afterwards all of those are over
	doExtend   = "extend"   // Extend
	doUnlock   = "unlock"   // Unlock
	doHandOver = "handOver" // Unlock while another client waits for the key with Lock; then as await
	doInspect  = "inspect"  // Inspect
	doLook     = "look"     // Done, Err and Context
	doPass     = "pass"     // time passes until all short leases are over
	doClose    = "close"    // Close of the client
	doOpen     = "open"     // a new client, if this one has been closed
)

// The ttls are so far apart that no outcome hangs on how fast the machine is: the first is
// over after a pass and not before, the others are not over at all.
const (
	shortTTL  = 80 * time.Millisecond
	longTTL   = 10 * time.Minute
	longerTTL = 25 * time.Minute
	wrongTTL  = -time.Millisecond
	hugeTTL   = locker.MaxTTL + time.Millisecond
)

var ttlNames = map[time.Duration]string{
	shortTTL: "shortTTL", longTTL: "longTTL", longerTTL: "longerTTL", wrongTTL: "wrongTTL", hugeTTL: "hugeTTL",
}

// longestKey is as long as a key may be, tooLongKey is not.
var (
	longestKey = strings.Repeat("k", locker.MaxKey)
	tooLongKey = longestKey + "k"
)

// hostile are keys that a store could take for something else, or for each other.
var hostile = []string{
	"k", "K", "a:b", ":", "{", "}", "{}", "}{", "{a}b", "{a}c", "}a{", " ", "*", "?", "[k]", "\x00", "k\x00", "\xff\xfe", "é", "e\u0301",
	"\r\n", "%s", `"`, "token:lockstep:{:k}", "lockstep:0:{:k}", "app:k", "../k", longestKey,
}

// program is what lockstep draws and shrinks.
type program []step

// GoString is the program as a composite literal.
func (p program) GoString() string {
	var b strings.Builder
	b.WriteString("[]step{\n")
	for _, s := range p {
		b.WriteString("\t\t{" + strings.Join(s.fields(), ", ") + "},\n")
	}
	b.WriteString("\t}")
	return b.String()
}

// fields are those that are not zero.
func (s step) fields() []string {
	all := []string{"do: " + strconv.Quote(s.do)}
	if s.by != 0 {
		all = append(all, fmt.Sprintf("by: %d", s.by))
	}
	switch s.key {
	case "":
	case longestKey:
		all = append(all, "key: longestKey")
	case tooLongKey:
		all = append(all, "key: tooLongKey")
	default:
		all = append(all, "key: "+strconv.QuoteToASCII(s.key))
	}
	if s.ttl != 0 {
		name, ok := ttlNames[s.ttl]
		if !ok {
			name = strconv.FormatInt(int64(s.ttl), 10)
		}
		all = append(all, "ttl: "+name)
	}
	for _, f := range []struct{ name, value string }{{"as", s.as}, {"of", s.of}, {"ctx", s.ctx}} {
		if f.value != "" {
			all = append(all, f.name+": "+strconv.Quote(f.value))
		}
	}
	return all
}

// test is the program as a test that runs it again.
func (p program) test(pair string) string {
	return fmt.Sprintf("func TestPasted(t *testing.T) {\n\treplay(t, %s, %s)\n}", pair, p.GoString())
}
