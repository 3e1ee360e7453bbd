package locker

import (
	"context"
	"errors"
	"time"
)

const opLeave = "leave"

// Leave makes the lease end d from now, and gives it up without releasing it: the key stays taken
// for d, whatever Unlock, Close or the end of the process would do (KEEP-004). It is for what
// must not be done again for at least d. A store within this process ends with the process, or
// with its last Locker, and such a lease with it.
//
// From then on the Lease is over for this process, with ReasonLeft: Done is closed, and Unlock
// and Extend return ErrReleased, so that Leave can be called in a Do. The errors are Extend's,
// and then the Lease goes on as after a failed Extend: after ErrUnavailable, Leave may be called
// again, and an Unlock releases it. A session has no end to set: ErrUnsupported.
func (s *Lease) Leave(ctx context.Context, d time.Duration) error {
	d, err := s.checkExtend(ctx, opLeave, d)
	if err != nil {
		return err
	}
	if err := s.extend(ctx, opLeave, d); err != nil {
		return err
	}
	s.tellEnd(ctx, Event{Kind: EventReleased, TTL: d, Reason: ReasonLeft})
	return nil
}

// checkExtend is what can be said of an Extend, or a Leave, before any I/O. It returns the ttl
// to ask for.
func (s *Lease) checkExtend(ctx context.Context, op string, d time.Duration) (time.Duration, error) {
	if s == nil || s.l == nil {
		return 0, errNotALease(op)
	}
	if ctx == nil {
		return 0, s.fail(op, CodeInvalidArgument, errNilContext)
	}
	if s.session {
		if err := s.Err(); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			return 0, s.endedLocked(op)
		}
		return 0, s.fail(op, CodeUnsupported, errors.New("a session has no ttl to extend"))
	}
	if err := checkExtension(d); err != nil {
		return 0, s.fail(op, CodeInvalidTTL, err)
	}
	if d = roundTTL(d); d < s.l.caps.MinTTL {
		return 0, s.fail(op, CodeInvalidTTL, s.l.tooShort(d))
	}
	if err := ctx.Err(); err != nil {
		return 0, s.fail(op, CodeCanceled, ctxError(ctx))
	}
	return d, nil
}
