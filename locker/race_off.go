//go:build !race

package locker

// checked says whether the transitions of a hold are checked as they happen.
const checked = false
