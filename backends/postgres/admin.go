package postgres

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lockstep-go/lockstep/locker/driver"
)

var (
	_ driver.Lister  = (*backend)(nil)
	_ driver.Breaker = (*backend)(nil)
)

// Inspect implements driver.Inspector.
func (b *backend) Inspect(ctx context.Context, key string) (driver.Info, bool, error) {
	row, err := b.call(ctx, "lockstep_inspect", func(time.Duration) [][]byte { return [][]byte{[]byte(key)} })
	if err != nil || row == nil {
		return driver.Info{}, false, err
	}
	info, err := readInfo(key, row)
	return info, err == nil, err
}

// readInfo reads what described asks for.
func readInfo(key string, row [][]byte) (driver.Info, error) {
	if len(row) < 7 {
		return driver.Info{}, fmt.Errorf("%w: %w", driver.ErrUnavailable, errReply)
	}
	info := driver.Info{Key: key, Identity: string(row[4]), Note: string(row[5]), Waiters: -1}
	if o, ok := readOwner(row[0]); ok {
		info.Owner = o.String()
	} else {
		info.Owner = hex.EncodeToString(row[0])
	}
	if token, err := readInt8(row[1]); err == nil {
		info.Token = uint64(token)
	}
	info.Session, _ = readBool(row[2])
	if rest, err := readInt8(row[3]); err == nil { // NULL: for ever
		info.Remaining = max(0, time.Duration(min(rest, math.MaxInt64/1000))*time.Microsecond)
	}
	if age, err := readInt8(row[6]); err == nil && age >= 0 {
		info.Since = time.Now().Add(-time.Duration(min(age, math.MaxInt64/1000)) * time.Microsecond)
	}
	return info, nil
}

// listed is how many rows one page of a List has, those of keys that were released included.
const listed = 1000

// List implements driver.Lister: page by page, in the order of the keys.
func (b *backend) List(ctx context.Context, prefix string) iter.Seq2[driver.Info, error] {
	return func(yield func(driver.Info, error) bool) {
		first, end, last := []byte(prefix), behind(prefix), []byte{}
		for {
			rows, err := b.callAll(ctx, b.config.Timeout, "lockstep_list", func(time.Duration) [][]byte { return [][]byte{last, first, end, int8s(listed)} })
			if err != nil {
				yield(driver.Info{}, err)
				return
			}
			for _, row := range rows {
				if len(row) != 9 {
					yield(driver.Info{}, fmt.Errorf("%w: %w", driver.ErrUnavailable, errReply))
					return
				}
				last = row[7]
				if err := ctx.Err(); err != nil {
					yield(driver.Info{}, b.classify(ctx, err))
					return
				}
				if held, err := readBool(row[8]); err != nil || !held {
					continue
				}
				if _, ours := readOwner(row[0]); !ours {
					continue // Inspect shows people what is in their way; here it would pass for a hold (ADM-003)
				}
				info, err := readInfo(string(row[7]), row)
				if !yield(info, err) || err != nil {
					return
				}
			}
			if len(rows) == 0 {
				return
			}
		}
	}
}

// behind is the first key after all that begin with prefix; nil where there is none.
func behind(prefix string) []byte {
	for end := []byte(prefix); len(end) > 0; end = end[:len(end)-1] {
		if end[len(end)-1] < 0xff {
			end[len(end)-1]++
			return end
		}
	}
	return nil
}

// Break implements driver.Breaker. It takes the right to execute the function, which is granted to
// nobody by itself.
func (b *backend) Break(ctx context.Context, key string, token uint64) error {
	row, err := b.call(ctx, "lockstep_break", func(time.Duration) [][]byte {
		return [][]byte{[]byte(key), int8s(int64(token)), micros(lateness)}
	})
	switch {
	case err != nil:
		return err
	case len(row) != 1:
		return fmt.Errorf("%w: %w", driver.ErrUnavailable, errReply)
	case row[0] == nil:
		return driver.ErrLost
	}
	if owner, ok := readOwner(row[0]); ok {
		b.broken(key, owner)
	}
	b.watched.wakeKey(key)
	return nil
}

// broken tells the holder, if it is this client's: it need not wait for the announcement.
func (b *backend) broken(key string, owner driver.Owner) {
	b.watched.mu.Lock()
	var own []*hold
	for _, h := range b.watched.holds[hashOf(key)] {
		if h.owner == owner && h.granted {
			own = append(own, h)
		}
	}
	b.watched.mu.Unlock()
	for _, h := range own {
		b.lose(h, driver.ErrBroken)
	}
}

// whyLost is the cause of a loss that the server has told of: ErrBroken, or ErrLost.
func (b *backend) whyLost(ctx context.Context, owner driver.Owner) error {
	row, err := b.call(ctx, "lockstep_broken", func(time.Duration) [][]byte { return [][]byte{byteas([][]byte{ownerBytes(owner)})} })
	return readCauses(1, row, err)[0]
}

// causes is whyLost of many, on a certain connection.
func (b *backend) causes(ctx context.Context, conn *pgconn.PgConn, owners [][]byte) []error {
	if len(owners) == 0 {
		return nil
	}
	row, err := b.exec(ctx, conn, "lockstep_broken", [][]byte{byteas(owners)})
	return readCauses(len(owners), row, err)
}

// readCauses: whatever went wrong with the question, the holds are lost.
func readCauses(n int, row [][]byte, err error) []error {
	var broken []bool
	if err == nil && len(row) == 1 {
		broken, _ = readBools(row[0], n)
	}
	all := make([]error, n)
	for i := range all {
		all[i] = driver.ErrLost
		if i < len(broken) && broken[i] {
			all[i] = driver.ErrBroken
		}
	}
	return all
}
