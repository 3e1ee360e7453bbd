package full

import "time"

// What the comments of Config speak of.
const (
	DefaultEvery = 90 * time.Second
	MaxEvery     = 7 * 24 * time.Hour
	Unlimited    = -1
	Name         = "a name"
	TooClever    = len(Name)
)
