// Package sample has a configuration with the kinds of fields that no backend here has, for the
// tests of what lockgen writes.
package sample

import "github.com/lockstep-go/lockstep/locker/driver"

// Config is what no backend needs altogether.
//
//lockgen:check checkName
type Config struct {
	// Name is the name of a [Config].
	//lockgen:default "it's \"me\""
	//lockgen:maxlen MaxName
	//lockgen:pattern ^[^{}%]*$ -- holds a brace or 100%
	Name string `json:"name,omitempty"`

	// Kind has a type of its own.
	//lockgen:default KindA
	//lockgen:enum KindA KindB
	Kind Kind `json:"kind"`

	// Hosts are needed.
	//lockgen:required
	//lockgen:maxlen 3
	//lockgen:pattern ^[a-z]+$ -- is no host
	Hosts []string `json:"hosts"`

	// Count has no lower limit.
	//lockgen:max 1 << 40
	Count int64 `json:"count"`

	//lockgen:default MaxRate / 2
	//lockgen:min 0.125
	//lockgen:max MaxRate

	// Rate is a share.
	Rate float64 `json:"rate"`

	// Pool is an object that is always there.
	Pool Pool `json:"pool"`
	// TLS is an object that may be left out.
	TLS *TLS `json:"tls"`
	// Extra is anything.
	Extra any `json:"extra"`
}

// Pool is within.
type Pool struct {
	// Size is at least one.
	//lockgen:default 8
	//lockgen:min 1
	Size int `json:"size"`
}

// TLS may be left out.
type TLS struct {
	// Key is secret.
	//lockgen:maxlen 8
	Key driver.Secret `json:"key"`
	// Retry is deeper.
	Retry *Retry `json:"retry"`
}

// Retry has a zero with a meaning.
type Retry struct {
	// Attempts is how many; -1 for no limit.
	//lockgen:default Forever
	//lockgen:min Forever
	Attempts int `json:"attempts" lockstep:"none"`
}

// Kind is a string.
type Kind string

// Limits, and others.
const (
	MaxName      = 64
	MaxRate      = 0.5
	Forever      = -1
	KindA   Kind = "a"
	KindB   Kind = "b"
)

func (c *Config) checkName() error {
	if len(c.Hosts) > 0 && c.Name == c.Hosts[0] {
		return driver.Invalid("name", "%v is the first of hosts as well", c.Name).With("hosts")
	}
	return nil
}
