package conformance

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/adler32"
	"hash/crc32"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"sync"
	"unicode/utf16"
)

// weak are ways to make a short name, or a number, of a key. Each merges keys.
var weak = []struct {
	name string
	of   func(key string) uint32
}{
	{"CRC-32", func(k string) uint32 { return crc32.ChecksumIEEE([]byte(k)) }},
	{"CRC-32C", func(k string) uint32 { return crc32.Checksum([]byte(k), crc32.MakeTable(crc32.Castagnoli)) }},
	{"Adler-32", func(k string) uint32 { return adler32.Checksum([]byte(k)) }},
	{"FNV-1", func(k string) uint32 { h := fnv.New32(); h.Write([]byte(k)); return h.Sum32() }},
	{"FNV-1a", func(k string) uint32 { h := fnv.New32a(); h.Write([]byte(k)); return h.Sum32() }},
	{"FNV-1a of 64 bits, folded", func(k string) uint32 { h := fnv.New64a(); h.Write([]byte(k)); return uint32(h.Sum64() ^ h.Sum64()>>32) }},
	{"FNV-1a of 64 bits, cut", func(k string) uint32 { h := fnv.New64a(); h.Write([]byte(k)); return uint32(h.Sum64()) }},
	{"Java's hashCode", javaHash},
	{"djb2", func(k string) uint32 {
		h := uint32(5381)
		for i := range len(k) {
			h = h*33 + uint32(k[i])
		}
		return h
	}},
	{"PostgreSQL's hashtext", hashtext},
	{"32 bits of MD5", func(k string) uint32 { s := md5.Sum([]byte(k)); return binary.BigEndian.Uint32(s[:]) }},
	{"32 bits of SHA-1", func(k string) uint32 { s := sha1.Sum([]byte(k)); return binary.BigEndian.Uint32(s[:]) }},
	{"32 bits of SHA-256", func(k string) uint32 { s := sha256.Sum256([]byte(k)); return binary.BigEndian.Uint32(s[:]) }},
	{"the last 32 bits of SHA-256", func(k string) uint32 { s := sha256.Sum256([]byte(k)); return binary.BigEndian.Uint32(s[28:]) }},
	{"16 bits of SHA-256", func(k string) uint32 { s := sha256.Sum256([]byte(k)); return uint32(binary.BigEndian.Uint16(s[:])) }},
	{"the sum of the bytes", func(k string) (h uint32) {
		for i := range len(k) {
			h += uint32(k[i])
		}
		return h
	}},
}

func javaHash(k string) (h uint32) {
	for _, u := range utf16.Encode([]rune(k)) {
		h = h*31 + uint32(u)
	}
	return h
}

// hashtext is what PostgreSQL's function of that name gives on a little-endian machine: lookup3
// by Bob Jenkins, as pg_advisory_lock(hashtext(key)) uses it.
func hashtext(key string) uint32 {
	k, n := []byte(key), uint32(len(key))
	a := uint32(0x9e3779b9) + n + 3923095
	b, c := a, a
	rot := func(x uint32, r int) uint32 { return x<<r | x>>(32-r) }
	for len(k) >= 12 {
		a += binary.LittleEndian.Uint32(k)
		b += binary.LittleEndian.Uint32(k[4:])
		c += binary.LittleEndian.Uint32(k[8:])
		a -= c
		a ^= rot(c, 4)
		c += b
		b -= a
		b ^= rot(a, 6)
		a += c
		c -= b
		c ^= rot(b, 8)
		b += a
		a -= c
		a ^= rot(c, 16)
		c += b
		b -= a
		b ^= rot(a, 19)
		a += c
		c -= b
		c ^= rot(b, 4)
		b += a
		k = k[12:]
	}
	for i, x := range k {
		switch {
		case i < 4:
			a += uint32(x) << (8 * i)
		case i < 8:
			b += uint32(x) << (8 * (i - 4))
		default:
			c += uint32(x) << (8*(i-8) + 8) // the lowest byte of c is for the length
		}
	}
	c ^= b
	c -= rot(b, 14)
	a ^= c
	a -= rot(c, 11)
	b ^= a
	b -= rot(a, 25)
	c ^= b
	c -= rot(b, 16)
	a ^= c
	a -= rot(c, 4)
	b ^= a
	b -= rot(a, 14)
	c ^= b
	c -= rot(b, 24)
	return c
}

// collision finds two keys that of makes equal: about 80,000 tries for 32 bits.
func collision(prefix string, of func(string) uint32) (string, string) {
	seen := make(map[uint32]int32, 1<<17)
	for i := int32(0); ; i++ {
		h := of(pairKey(prefix, i))
		if j, ok := seen[h]; ok {
			return pairKey(prefix, j), pairKey(prefix, i)
		}
		seen[h] = i
	}
}

// pairKey scatters the numbers: keys that follow each other do not collide in some of the hashes.
func pairKey(prefix string, i int32) string {
	const least = 1 << 63 // all of one length
	return prefix + strconv.FormatUint(uint64(i)*0x9e3779b97f4a7c15|least, 16)
}

// colliding is a pair of keys for each of weak. It takes a good part of a second, and so all
// trials of a process share it.
var colliding = sync.OnceValue(func() [][2]string {
	prefix := fmt.Sprintf("conformance/KEY-002/%016x/", rand.Uint64())
	pairs := make([][2]string, len(weak))
	for i, w := range weak {
		pairs[i][0], pairs[i][1] = collision(prefix, w.of)
	}
	return pairs
})

// collidingHashes: keys that a weak hash makes one are two. Other trials may use the same ones at
// this moment: they wait for each other, in order.
func collidingHashes(c *trial) {
	a, b := c.client(), c.client()
	for i, pair := range colliding() {
		what := "keys that are one for " + weak[i].name
		take := func(cl *client, key string) *hold {
			h, err := cl.lock(c.CtxFor(c.Limit()), key, append(c.shortHold(), c.Polling())...)
			c.OK(err, "Lock of one of two %s, while the other may be held,", what)
			return h
		}
		x, y := take(a, pair[0]), take(b, pair[1])
		x.mustLive(b)
		y.mustLive(a)
		if c.leaf.kind == Lease {
			c.OK(y.extend(c.Limit()), "Extend of one of two %s", what)
		}
		x.mustUnlock()
		y.mustLive(a)
		y.mustUnlock()
	}
}
