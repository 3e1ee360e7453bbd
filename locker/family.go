package locker

import (
	"context"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// FamilyKey is what tells the locks of one Family apart.
type FamilyKey interface {
	~string | ~[16]byte |
		~int | ~int8 | ~int16 | ~int32 | ~int64 |
		~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// Family is the locks of one kind of thing, such as invoices: declared once, with their options
// and the type K of what tells them apart. It holds no Locker, so that it can be a package's
// variable. Its name is the label of its Events (WithLabel).
type Family[K FamilyKey] struct {
	name  string
	opts  []Option
	wrong error
}

// NewFamily declares a family. The key of each of its locks is name, a slash, and the K: a number
// in decimal, 16 bytes (a UUID) in hexadecimal, a string as it is. No two families share a key,
// and no two K of a family, because name may hold no slash (FAM-001). Keys that are not a
// family's may begin in the same way: a namespace keeps them apart. With a wrong name the calls
// return ErrInvalidKey. opts are the defaults of the calls.
func NewFamily[K FamilyKey](name string, opts ...Option) Family[K] {
	f := Family[K]{name: name, opts: append(slices.Clip(opts), WithLabel(name))}
	switch {
	case name == "":
		f.wrong = fmt.Errorf("the family has no name")
	case strings.Contains(name, "/"):
		f.wrong = fmt.Errorf("the family's name %s holds a slash, which ends the name in its keys", quote(name))
	}
	return f
}

// Name is the family's name and its label.
func (f Family[K]) Name() string { return f.name }

// Key is the key of one of the family's locks, without a namespace.
func (f Family[K]) Key(k K) string { return f.name + "/" + encodeKey(k) }

func encodeKey[K FamilyKey](k K) string {
	switch k := any(k).(type) {
	case string:
		return k
	case int64:
		return strconv.FormatInt(k, 10)
	case int:
		return strconv.Itoa(k)
	}
	switch v := reflect.ValueOf(k); v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Array:
		var b [16]byte
		reflect.Copy(reflect.ValueOf(b[:]), v)
		return hex.EncodeToString(b[:])
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	default:
		return strconv.FormatInt(v.Int(), 10)
	}
}

func (f Family[K]) options(opts []Option) []Option {
	if len(opts) == 0 {
		return f.opts
	}
	return slices.Concat(f.opts, opts)
}

func (f Family[K]) check(l *Locker, op string, k K) error {
	switch {
	case f.name == "" && f.wrong == nil:
		return &Error{Op: op, Code: CodeInvalidArgument, Err: fmt.Errorf("the Family was not made by NewFamily")}
	case f.wrong != nil:
		return &Error{Op: op, Key: f.Key(k), Code: CodeInvalidKey, Err: f.wrong}
	case !l.made():
		return errNoLocker(op)
	}
	return nil
}

// Lock is l.Lock of one of the family's keys. Options of the call override those of the family.
func (f Family[K]) Lock(ctx context.Context, l *Locker, k K, opts ...Option) (*Lease, error) {
	if err := f.check(l, "lock", k); err != nil {
		return nil, err
	}
	return l.Lock(ctx, f.Key(k), f.options(opts)...)
}

// TryLock is l.TryLock of one of the family's keys.
func (f Family[K]) TryLock(ctx context.Context, l *Locker, k K, opts ...Option) (*Lease, error) {
	if err := f.check(l, "trylock", k); err != nil {
		return nil, err
	}
	return l.TryLock(ctx, f.Key(k), f.options(opts)...)
}

// LockAll is l.LockAll of several of the family's keys.
func (f Family[K]) LockAll(ctx context.Context, l *Locker, ks []K, opts ...Option) (*Leases, error) {
	keys := make([]string, len(ks))
	for i, k := range ks {
		if err := f.check(l, "lockall", k); err != nil {
			return nil, err
		}
		keys[i] = f.Key(k)
	}
	return l.LockAll(ctx, keys, f.options(opts)...)
}

// Do is l.Do under one of the family's locks.
func (f Family[K]) Do(ctx context.Context, l *Locker, k K, fn func(ctx context.Context, lease *Lease) error, opts ...Option) error {
	if err := f.check(l, "do", k); err != nil {
		return err
	}
	return l.Do(ctx, f.Key(k), fn, f.options(opts)...)
}

// TryDo is l.TryDo under one of the family's locks.
func (f Family[K]) TryDo(ctx context.Context, l *Locker, k K, fn func(ctx context.Context, lease *Lease) error, opts ...Option) error {
	if err := f.check(l, "do", k); err != nil {
		return err
	}
	return l.TryDo(ctx, f.Key(k), fn, f.options(opts)...)
}
