// Package command tests cmd/lockstep as its users have it: real processes, real servers, a real
// terminal. It is here because the command's own module may not require servers for tests.
package command
