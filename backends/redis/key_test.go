package redis

import (
	"strings"
	"testing"

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

func TestOwnerValue(t *testing.T) {
	o := driver.Owner{Instance: [16]byte{0xab}, Seq: 17}
	for _, session := range []bool{false, true} {
		owner, s := parseOwner(ownerValue(o, session))
		if owner != o.String() || s != session {
			t.Errorf("session %t: got %q, %t", session, owner, s)
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
