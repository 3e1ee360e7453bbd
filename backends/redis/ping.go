package redis

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// Ping implements driver.Pinger: every master takes writes. It changes a key that does not
// exist, which changes nothing, but is refused where a lock would be: by a replica, without
// memory, without a disk. PING and scripts that only read are answered there.
func (b *backend) Ping(ctx context.Context) error {
	if b.closed.Load() {
		return driver.ErrClosed
	}
	tags, err := b.tags(ctx)
	if err != nil {
		return b.classify(ctx, err)
	}
	pings := make([]rueidis.Completed, len(tags))
	for i, tag := range tags {
		pings[i] = b.client.B().Set().Key(b.layout.probeKey(tag)).Value("").Xx().PxMilliseconds(1).Build()
	}
	for _, reply := range b.client.DoMulti(ctx, pings...) {
		if err := reply.Error(); err != nil && !rueidis.IsRedisNil(err) {
			return b.classify(ctx, err)
		}
	}
	return nil
}

// probeKey is a key of this prefix that is no lock and never exists.
func (l layout) probeKey(tag string) string {
	return strings.TrimSuffix(l.lock, "0:") + "probe:{" + tag + "}"
}

// tags are hash tags that lead to every master, one each.
func (b *backend) tags(ctx context.Context) (tags []string, err error) {
	if b.client.Mode() != rueidis.ClientModeCluster {
		return []string{"0"}, nil
	}
	ranges, err := b.slots(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, r := range ranges {
		fields, err := r.ToArray()
		if err != nil || len(fields) < 3 {
			return nil, errMalformed
		}
		first, err1 := fields[0].AsInt64()
		master, err2 := fields[2].ToArray()
		if err1 != nil || err2 != nil || len(master) < 2 || first < 0 || first >= slots {
			return nil, errMalformed
		}
		host, _ := master[0].ToString() // null where the node does not know its own name
		port, _ := master[1].AsInt64()
		name := host + ":" + strconv.FormatInt(port, 10)
		if !seen[name] {
			seen[name] = true
			tags = append(tags, tagOf(uint16(first)))
		}
	}
	if len(tags) == 0 {
		return nil, errors.New("the Cluster has no slots")
	}
	return tags, nil
}

var errMalformed = errors.New("the server's answer to CLUSTER SLOTS is malformed")

// hedge is how long one node is asked alone what the slots are. It is not given up then: all may be slow.
const hedge = 250 * time.Millisecond

// slots asks what the slots are. Any node knows; one may be down, or hang, and then another is asked
// beside it. The first that answers is heard.
func (b *backend) slots(ctx context.Context) ([]rueidis.RedisMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	type answer struct {
		ranges []rueidis.RedisMessage
		err    error
	}
	nodes := b.client.Nodes()
	answers := make(chan answer, len(nodes))
	next := time.NewTimer(hedge)
	defer next.Stop()
	err, asked := errors.New("the Cluster has no nodes"), 0
	left := len(nodes) // to be asked
	for _, node := range nodes {
		go func() {
			ranges, err := node.Do(ctx, node.B().ClusterSlots().Build()).ToArray()
			answers <- answer{ranges, err}
		}()
		asked++
		next.Reset(hedge)
		left--
		for more := false; asked > 0 && !more; {
			select {
			case a := <-answers:
				if _, reply := rueidis.IsRedisErr(a.err); a.err == nil || reply {
					return a.ranges, a.err
				}
				err = a.err
				asked--
				more = left > 0
			case <-next.C:
				more = left > 0
			}
		}
	}
	return nil, err
}

// tagOf is a hash tag in a slot. It tries numbers: one in 16384 will do, which takes a
// millisecond.
func tagOf(slot uint16) string {
	var buf [20]byte
	for i := int64(0); ; i++ {
		if tag := strconv.AppendInt(buf[:0], i, 10); crc16(tag)%slots == slot {
			return string(tag)
		}
	}
}

// crc16 is the checksum by which a Cluster divides keys into slots (CRC-16/XMODEM).
func crc16(b []byte) (sum uint16) {
	for _, c := range b {
		sum ^= uint16(c) << 8
		for range 8 {
			if sum&0x8000 != 0 {
				sum = sum<<1 ^ 0x1021
			} else {
				sum <<= 1
			}
		}
	}
	return sum
}
