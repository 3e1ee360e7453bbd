package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

var _ driver.Together = (*backend)(nil)

// AcquireAll implements driver.Together: one call of one function.
func (b *backend) AcquireAll(ctx context.Context, rs []driver.Request) ([]driver.Grant, int, error) {
	session, life := rs[0].Session(), rs[0].TTL
	if session {
		life = b.config.Validity
	}
	holds := make([]*hold, len(rs))
	keys, owners, notes := make([][]byte, len(rs)), make([][]byte, len(rs)), make([][]byte, len(rs))
	for i := range rs {
		holds[i] = b.watched.hold(rs[i])
		keys[i], owners[i], notes[i] = []byte(rs[i].Key), ownerBytes(rs[i].Owner), []byte(rs[i].Note)
	}
	var sent time.Time
	row, err := b.call(ctx, "lockstep_acquire_all", func(left time.Duration) [][]byte {
		sent = time.Now() // now that there is a connection
		return [][]byte{byteas(keys), byteas(owners), micros(life), bools(session), micros(left), []byte(rs[0].Identity), byteas(notes)}
	})
	tokens, at, err := readGrants(row, err, len(rs))
	if err != nil {
		for i := range rs {
			b.watched.unhold(holds[i])
			b.doubts.note(rs[i].Owner, err)
		}
		return nil, at, err
	}
	grants := make([]driver.Grant, len(rs))
	for i := range rs {
		if session && !b.sessions.Keep(rs[i], tokens[i], sent) {
			for _, h := range holds[i:] {
				b.watched.unhold(h)
			}
			return nil, i, driver.ErrClosed
		}
		b.watched.granted(holds[i], sent.Add(life))
		grants[i] = driver.Grant{Token: tokens[i], TTL: rs[i].TTL}
	}
	return grants, -1, nil
}

// readGrants reads the reply of acquire_all to n requests: their tokens, or what readGrant reads of
// the key at at.
func readGrants(row [][]byte, err error, n int) (tokens []uint64, at int, _ error) {
	if err != nil {
		return nil, -1, err
	}
	malformed := fmt.Errorf("%w: %w", driver.ErrUnavailable, errReply)
	if len(row) != 1 {
		return nil, -1, malformed
	}
	if two, err := readArray(row[0], 2); err == nil {
		token, rest, err := readGrant(two[:1], nil)
		which, bad := readInt8(two[1])
		switch {
		case err != nil || token > 0:
		case bad != nil || which < 1 || which > int64(n):
			return nil, -1, malformed
		case rest == nil:
			return nil, int(which - 1), driver.ErrHeld
		default:
			return nil, int(which - 1), driver.Held(*rest)
		}
	}
	all, err := readArray(row[0], n)
	if err != nil {
		return nil, -1, malformed
	}
	tokens = make([]uint64, n)
	for i := range all {
		token, _, err := readGrant(all[i:i+1], nil)
		if err != nil || token == 0 {
			return nil, -1, malformed
		}
		tokens[i] = token
	}
	return tokens, -1, nil
}
