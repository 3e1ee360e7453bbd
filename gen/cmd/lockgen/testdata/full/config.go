// Package full has one of everything that a configuration may hold.
package full

import "time"

// Config is how the store is reached. It is found wherever it stands in the file.
type Config struct {
	// Addr is host:port. A | and a <b> and a *star* stay what they are.
	Addr string `json:"addr"`

	// Username and Password are the user's. See [Config.Addr].
	Username string `json:"username"`
	Password string `json:"password" lockstep:"secret"`

	Mode Mode `json:"mode"` // Mode is a trailing comment.

	// Every is a duration; 0 means DefaultEvery. At most
	// MaxEvery, or Unlimited (-1), or Name.
	Every time.Duration `json:"every,omitempty"`

	// Peers are names.
	//
	// A second paragraph.
	Peers []string `json:"peers"`
	// Ratio is a share.
	Ratio float64 `json:"ratio"`
	// TLS is nested twice.
	TLS *TLS `json:"tls"`
	// Other is anything.
	Other any `json:"other"`
	// Dial is for programs.
	Dial func(addr string) error `json:"-"`

	hidden int
}

// TLS is an object.
type TLS struct {
	// File is a path.
	File string `json:"file"`
	// Inner is deeper.
	Inner Inner `json:"inner"`
}

// Inner is an object within an object.
type Inner struct {
	// On turns it on.
	On bool `json:"on"`
	// Hook is for programs too.
	Hook func() `json:"-"`
}

// Mode is a string.
type Mode string
