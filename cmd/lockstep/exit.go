package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/lockstep-go/lockstep/locker"
)

// The exit codes that are lockstep's own, of all its commands. They lie between those that programs
// use themselves and those of shells: 126 and 127 mean what they mean there, 128+n is a signal, and
// 124 is left to timeout(1). sysexits.h is no way out: programs that lockstep runs use it.
const (
	exitLost        = 120 // the lock was lost while the command was running
	exitNotAcquired = 121 // another holder has it
	exitUnavailable = 122 // the store does not answer, or refuses
	exitConfig      = 123 // the configuration, or the command line
	exitFailed      = 125 // anything else
	exitNoExec      = 126 // the command cannot be executed
	exitNotFound    = 127 // there is no such command
	exitSignal      = 128 // and the signal's number
)

// exitError is an error with the code to exit with. Without err nothing is printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitCode is what an error of package locker, or of cobra, means for who called lockstep.
func exitCode(err error) int {
	var own *exitError
	var from *locker.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own.code
	case errors.Is(err, locker.ErrLost):
		return exitLost
	case errors.Is(err, locker.ErrHeld) && !errors.Is(err, locker.ErrUnavailable):
		return exitNotAcquired
	case errors.Is(err, locker.ErrUnavailable):
		return exitUnavailable
	case errors.As(err, &from) && from.Code != locker.CodeClosed && from.Code != locker.CodeCanceled:
		return exitConfig // an invalid key, ttl, configuration; an ability that the store has not
	}
	return exitFailed
}

// report prints err, on one line.
func report(err error) {
	var own *exitError
	if errors.As(err, &own) && own.err == nil {
		return
	}
	say("%s", strings.TrimPrefix(err.Error(), "lockstep: "))
}

// say writes a line to stderr. What it says may be all that is known of a lock that was lost: an
// error of stderr itself is nobody's to hear.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "lockstep: "+format+"\n", args...)
}

// without is err without what matches one of its parts, of errors.Join.
func without(err, part error) error {
	if err == part {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		if e = without(e, part); e != nil {
			rest = append(rest, e)
		}
	}
	return errors.Join(rest...)
}
