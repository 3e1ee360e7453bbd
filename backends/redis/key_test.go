package redis

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Both keys of one lock share a Cluster slot, whatever bytes the user chose, and no two
// locks share a key.
func TestLayout(t *testing.T) {
	l := newLayout("lockstep")
	seen := map[string]string{}
	for _, key := range []string{
		"a", "a:b", ":", "{", "}", "{}", "}{", "}x", "{x}", "a}b", "a{b}c", "\x00", " ", "\xff\xfe", "*", "?[a]", "\r\n",
		"lockstep:0:{:a}", "token:lockstep:{:a}", strings.Repeat("k", 1024),
	} {
		lock, counter := l.lockKey(key), l.tokenKey(key)
		if a, b := slot(lock), slot(counter); a != b {
			t.Errorf("%q: slots %d and %d", key, a, b)
		}
		if a, b := slot(lock), slotOf(key); a != b {
			t.Errorf("%q: slotOf says %d, the Cluster %d", key, b, a)
		}
		if a, b := slot(lock), l.slotOf(lock); a != b {
			t.Errorf("%q: slotOf says %d of its lock, the Cluster %d", key, b, a)
		}
		if !l.isLock(lock) || l.isLock(counter) {
			t.Errorf("%q: isLock tells %q and %q apart wrongly", key, lock, counter)
		}
		if strings.HasPrefix(counter, "lockstep") {
			t.Errorf("%q: the counter's key begins with the prefix, which rueidislock takes for one of its own", key)
		}
		for _, k := range []string{lock, counter} {
			if other, ok := seen[k]; ok {
				t.Errorf("%q and %q share the key %q", key, other, k)
			}
			seen[k] = key
		}
	}
}

// slot is the Cluster's: CRC16 of the hash tag, or of the whole key where there is none
// (Redis Cluster specification, "Hash tags").
func slot(key string) uint16 {
	if open := strings.IndexByte(key, '{'); open >= 0 {
		if end := strings.IndexByte(key[open+1:], '}'); end > 0 {
			key = key[open+1 : open+1+end]
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % 16384
}

func TestLockValue(t *testing.T) {
	o := driver.Owner{Instance: [16]byte{0xab}, Seq: 17}
	longest := driver.Request{
		Owner:    driver.Owner{Seq: math.MaxUint64},
		Identity: strings.Repeat("i", 256), Note: strings.Repeat("n", 1024),
	}
	for name, r := range map[string]driver.Request{
		"a lease":   {Owner: o, TTL: time.Second},
		"a session": {Owner: o},
		"with both": {Owner: o, Identity: "host:1 me", Note: "a note"},
		"hostile":   {Owner: o, Identity: "1:;\x00\xff", Note: ";:9:\n"},
		"the note":  {Owner: o, Note: "5:only"},
		"longest":   longest,
	} {
		value, owner := lockValue(&r)
		if owner != ownerValue(r.Owner, r.Session()) || value != owner+about(&r) || len(value) > maxValue || len(owner) > 62 {
			t.Errorf("%s: %q, %q", name, owner, value)
		}
		info, of, ok := parseValue(value)
		if !ok || of != owner || info.Owner != r.Owner.String() || info.Session != r.Session() || info.Identity != r.Identity || info.Note != r.Note {
			t.Errorf("%s: %q is read as %q, %+v, %v", name, value, of, info, ok)
		}
	}
	if value, _ := lockValue(&longest); len(value) != maxValue {
		t.Errorf("the longest value has %d bytes, not %d", len(value), maxValue)
	}
	if b := ownerValue(driver.Owner{Seq: 1}, false); strings.HasPrefix(ownerValue(driver.Owner{Seq: 12}, false), b) {
		t.Error("an owner is the beginning of another")
	}

	// What others wrote: an older version, a newer one, nobody.
	old := "lease:" + o.String()
	for value, want := range map[string]bool{
		old: true, "session:" + o.String(): true, old + ";": true, old + ";x": true, old + ";300:short": true, old + ";3": true,
		"": false, ";": false, "lease:": false, "lease:;": false, "set by hand": false, old + "x;": false,
	} {
		if info, _, ok := parseValue(value); ok != want || ok && (info.Owner != o.String() || info.Identity != "" || info.Note != "") {
			t.Errorf("%q: %+v, %v", value, info, ok)
		}
	}
}

func TestPattern(t *testing.T) {
	l := newLayout(`a*b`)
	if got, want := l.pattern(`x?[y]\z*{`), `a\*b:0:{:x\?\[y\]\\z\*{*`; got != want {
		t.Errorf("%s instead of %s", got, want)
	}
	for _, key := range []string{"k", "}{", "{:}", "a:b", "\x00"} {
		if got, ok := l.keyOf(l.lockKey(key)); got != key || !ok {
			t.Errorf("%q: %q, %v", key, got, ok)
		}
	}
	for _, name := range []string{"", "a*b:0:", "a*b:0:{:}", "a*b:0:{:k", "a*b:0:k}", "a*b:1:{:k}", "b:0:{:k}"} {
		if key, ok := l.keyOf(name); ok {
			t.Errorf("%q is the lock of %q", name, key)
		}
	}
}

func TestAtLeast(t *testing.T) {
	for version, want := range map[string]bool{
		"7.0.5": true, "7.0.15": true, "7.2.0": true, "8.0.1": true, "10.0.0": true,
		"7.0.4": false, "6.2.14": false, "7.0": false, "": false, "x.y.z": false,
	} {
		info := "# Server\r\nredis_version:" + version + "\r\nredis_mode:standalone\r\n"
		if got := atLeast(info, 7, 0, 5); got != want {
			t.Errorf("%q: %t, want %t", version, got, want)
		}
	}
}
