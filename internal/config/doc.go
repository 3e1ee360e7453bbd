// Package config holds the tests that what lockgen writes agrees with itself: the JSON
// Schemas, the loader with the generated validation, and the environment loader accept and
// refuse the same configurations, and make the same of them.
package config
