// Package sample has a configuration with every kind of field and every directive that
// lockgen knows, for the tests of what it generates.
package sample

import (
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
)

// Config is what no backend needs altogether.
//
//lockgen:together user password
//lockgen:requires mode user
//lockgen:atmost least most
//lockgen:check checkName
type Config struct {
	// Name is the name of a [Config].
	//
	//lockgen:default "it's \"me\""
	//lockgen:minlen 2
	//lockgen:maxlen MaxName
	//lockgen:not : -- holds a colon
	//lockgen:not ^token -- begins with token
	//lockgen:pattern ^[^{}%]*$ -- holds a brace or 100%
	Name string `json:"name,omitempty"`

	// User and Password are the user's.
	User     string `json:"user"`
	Password string `json:"password" lockstep:"secret"`

	// Mode has a type of its own.
	//
	//lockgen:enum Fast slow
	Mode *Mode `json:"mode"`
	// Kind is one of its kind.
	//lockgen:default KindA
	//lockgen:enum KindA KindB
	Kind Mode `json:"kind"`

	// Hosts are needed.
	//
	//lockgen:required
	//lockgen:maxlen 3
	//lockgen:pattern ^[a-z]+$ -- is no host
	Hosts []string `json:"hosts"`
	// Waits are durations.
	//
	//lockgen:default 1s, 2m, 90s
	Waits []time.Duration `json:"waits"`

	// Least and Most are durations.
	//
	//lockgen:min 0s
	Least time.Duration `json:"least"`
	// Most is above Least.
	//
	//lockgen:default time.Hour + 30*time.Minute
	//lockgen:min 1ns
	//lockgen:max MaxWait
	Most time.Duration `json:"most"`

	// Small is small.
	Small int8 `json:"small"`
	// Count is not negative.
	//
	//lockgen:max 1 << 40
	Count uint64 `json:"count"`
	// Level has no upper limit.
	//
	//lockgen:min -3
	Level int `json:"level"`
	// Rate is a share.
	//
	//lockgen:default MaxRate / 2
	//lockgen:min 0.125
	//lockgen:max MaxRate
	Rate float64 `json:"rate"`
	// Flag is a flag.
	Flag bool `json:"flag"`
	// PIN is a number, and Keys are many.
	PIN  int      `json:"pin" lockstep:"secret"`
	Keys []string `json:"keys" lockstep:"secret"`

	// Pool is an object that is always there.
	Pool Pool `json:"pool"`
	// TLS is an object that may be left out.
	TLS *TLS `json:"tls"`
	// Extra is anything.
	Extra any `json:"extra"`

	// Dial is for Go.
	Dial func() error `json:"-"`
}

// Pool is within.
type Pool struct {
	// Size is at least one.
	//
	//lockgen:default 8
	//lockgen:min 1
	Size int `json:"size"`
}

// TLS may be left out.
type TLS struct {
	// CAFile is a file.
	CAFile string `json:"caFile"`
	// Key is secret.
	//
	//lockgen:maxlen 8
	Key string `json:"key" lockstep:"secret"`
	// Retry is deeper.
	Retry *Retry `json:"retry"`
}

// Retry has a zero with a meaning.
type Retry struct {
	// Attempts is how many; -1 for no limit.
	//
	//lockgen:initial Forever
	//lockgen:min Forever
	Attempts int `json:"attempts"`
}

// Mode is a string.
type Mode string

// Limits, and others.
const (
	MaxName      = 64
	MaxWait      = 24 * time.Hour
	MaxRate      = 0.5
	Forever      = -1
	KindA   Mode = "a"
	KindB   Mode = "b"
	Fast         = "fast"
)

func (c *Config) checkName() error {
	if c.Name == c.User {
		return driver.Invalid("name", "%v is user as well", c.Name).With("user")
	}
	return nil
}
