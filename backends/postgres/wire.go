package postgres

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// The types of parameters and results, in Postgres's binary format.
const (
	oidBool   = 16
	oidBytea  = 17
	oidInt8   = 20
	oidInt4   = 23
	oidByteas = 1001
)

func int8s(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func int4s(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

func bools(v bool) []byte {
	if v {
		return []byte{1}
	}
	return []byte{0}
}

func micros(d time.Duration) []byte { return int8s(d.Microseconds()) }

// byteas is an array.
func byteas(all [][]byte) []byte {
	size := 20
	for _, a := range all {
		size += 4 + len(a)
	}
	out := make([]byte, 0, size)
	put := func(n int) { out = binary.BigEndian.AppendUint32(out, uint32(n)) }
	if len(all) == 0 {
		put(0)
	} else {
		put(1)
	}
	put(0) // no NULLs
	put(oidBytea)
	if len(all) > 0 {
		put(len(all))
		put(1)
	}
	for _, a := range all {
		put(len(a))
		out = append(out, a...)
	}
	return out
}

var errReply = errors.New("the reply is not what schema.sql promises")

// readInt8 reads an int8 that is not NULL.
func readInt8(data []byte) (int64, error) {
	if len(data) != 8 {
		return 0, errReply
	}
	return int64(binary.BigEndian.Uint64(data)), nil
}

func readBool(data []byte) (bool, error) {
	if len(data) != 1 {
		return false, errReply
	}
	return data[0] != 0, nil
}

// readArray takes an array of n elements apart, none of them NULL.
func readArray(data []byte, n int) ([][]byte, error) {
	if n == 0 {
		return nil, nil // array_agg of nothing is NULL
	}
	if len(data) < 20 || binary.BigEndian.Uint32(data) != 1 || int(binary.BigEndian.Uint32(data[12:])) != n {
		return nil, errReply
	}
	data = data[20:]
	all := make([][]byte, n)
	for i := range all {
		if len(data) < 4 {
			return nil, errReply
		}
		size := int(int32(binary.BigEndian.Uint32(data)))
		if data = data[4:]; size < 0 || size > len(data) {
			return nil, errReply
		}
		all[i], data = data[:size], data[size:]
	}
	return all, nil
}

// readBools reads an array of n booleans.
func readBools(data []byte, n int) ([]bool, error) {
	array, err := readArray(data, n)
	if err != nil {
		return nil, err
	}
	all := make([]bool, n)
	for i, a := range array {
		if all[i], err = readBool(a); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ownerSize is the length of an owner in the table.
const ownerSize = 16 + 8

func ownerBytes(o driver.Owner) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, ownerSize), o.Instance[:]...), o.Seq)
}

// readOwner is false for what none of ours is.
func readOwner(data []byte) (o driver.Owner, ok bool) {
	if len(data) != ownerSize {
		return o, false
	}
	copy(o.Instance[:], data)
	o.Seq = binary.BigEndian.Uint64(data[16:])
	return o, true
}
