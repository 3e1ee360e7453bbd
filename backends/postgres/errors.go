package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// notSent is an error that came before anything was sent: nothing can have happened.
type notSent struct{ err error }

func (e *notSent) Error() string { return "nothing was sent: " + e.err.Error() }
func (e *notSent) Unwrap() error { return e.err }

// undone is the code by which acquire refuses an owner who was taken back or broken. A refusal would
// have the core repeat the attempt of one whose reply was lost and whose hold was then broken, in vain,
// until the tombstone's time is up: hours, with the key free.
const undone = "LS001"

// outcome is which of the driver's words an error is.
//
// An ERROR is the server's word that the statement, which is a transaction of its own here, was
// rolled back. After FATAL and PANIC, and without an answer, it may have been committed.
func outcome(err error) error {
	if errors.Is(err, driver.ErrWrongPeer) || wrongPeer(err) {
		return driver.ErrWrongPeer
	}
	var unsent *notSent
	if errors.As(err, &unsent) || pgconn.SafeToRetry(err) {
		return driver.ErrRefused
	}
	var e *pgconn.PgError
	if errors.As(err, &e) && severity(e) == "ERROR" {
		if e.Code == undone {
			return driver.ErrLost
		}
		return driver.ErrRefused
	}
	return driver.ErrUnavailable
}

// answeredNo: the server itself refused, and not the connection to it; nor for want of a right, which
// waiting does not mend, and of which the caller has to hear.
func answeredNo(err error) bool {
	var e *pgconn.PgError
	return errors.Is(err, driver.ErrRefused) && errors.As(err, &e) && e.Code != "42501" // insufficient_privilege
}

// wrongPeer: the server said that it is read-only.
func wrongPeer(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "25006" // read_only_sql_transaction
}

// severity is not translated into the server's language, from Postgres 9.6 on.
func severity(e *pgconn.PgError) string {
	if e.SeverityUnlocalized != "" {
		return e.SeverityUnlocalized
	}
	return e.Severity
}

// misconfigured: the server refused who asks, or does not have what is asked for.
func misconfigured(e *pgconn.PgError) (fields string, ok bool) {
	switch {
	case strings.HasPrefix(e.Code, "28"): // invalid_authorization_specification, invalid_password
		return "user, password", true
	case e.Code == "3D000": // invalid_catalog_name
		return "dbname", true
	}
	return "", false
}

// classify turns what pgx says into the driver's words. ctx is the caller's.
func (b *backend) classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if b.ctx.Err() != nil {
		return driver.ErrClosed
	}
	return classify(ctx, err)
}

func classify(ctx context.Context, err error) error {
	kind := outcome(err)
	err = withoutConfig(err)
	ended := ctx.Err()
	if d, ok := ctx.Deadline(); ok && ended == nil && !time.Now().Before(d) {
		// Its timer is late, and who asks the ctx next would find it alive.
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		ended = context.DeadlineExceeded
	}
	if ended != nil {
		if !errors.Is(err, ended) {
			err = fmt.Errorf("%w: %w", ended, err)
		}
	} else if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		// A timeout of our own, or of the pool: the caller's ctx has not ended.
		err = fmt.Errorf("%w: %s", errTimeout, err)
	}
	if errors.Is(err, kind) {
		return err
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// opening is classify for Open, where a server that does not know us is a wrong configuration.
func opening(ctx context.Context, err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		if fields, ok := misconfigured(e); ok {
			return fmt.Errorf("%w: %s: %w", driver.ErrInvalidConfig, fields, withoutConfig(err))
		}
	}
	if errors.Is(err, driver.ErrInvalidConfig) || errors.Is(err, driver.ErrUnsupported) {
		return withoutConfig(err)
	}
	return classify(ctx, err)
}

// unconnected is what a [pgconn.ConnectError] says and wraps, without the Config that it carries.
type unconnected struct {
	text string
	err  error
}

func (e *unconnected) Error() string { return e.text }
func (e *unconnected) Unwrap() error { return e.err }

// withoutConfig keeps the password out of the reach of whoever prints an error field by field: the
// Config in pgx's has it in plain text.
func withoutConfig(err error) error {
	var e *pgconn.ConnectError
	if !errors.As(err, &e) {
		return err
	}
	return &unconnected{err.Error(), e.Unwrap()}
}
