package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/redis/rueidis"
)

// classify turns what rueidis says into the driver's words. The messages are Redis's and
// the network's own; neither repeats a password.
func (b *backend) classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if b.closed.Load() {
		return driver.ErrClosed
	}
	return classify(ctx, err)
}

func classify(ctx context.Context, err error) error {
	if reply, ok := rueidis.IsRedisErr(err); ok {
		word, _, _ := strings.Cut(reply.Error(), " ")
		switch word {
		case "NOAUTH", "WRONGPASS":
			return fmt.Errorf("%w: username, password: the server refused them: %w", driver.ErrInvalidConfig, err)
		case "NOPERM":
			return fmt.Errorf("%w: the server's ACL does not allow it: %w", driver.ErrUnsupported, err)
		case "WRONGTYPE", "LOCKSTEP":
			return fmt.Errorf("%w: something else stands where the lock should: %w", driver.ErrUnsupported, err)
		}
		if strings.Contains(reply.Error(), "can't run this command") { // how a script says NOPERM
			return fmt.Errorf("%w: the server's ACL does not allow it: %w", driver.ErrUnsupported, err)
		}
		if strings.Contains(reply.Error(), "DB index is out of range") {
			return fmt.Errorf("%w: db: the server does not have so many: %w", driver.ErrInvalidConfig, err)
		}
		if strings.Contains(reply.Error(), "unknown command") {
			return fmt.Errorf("%w: the server lacks a command: %w", driver.ErrUnsupported, err)
		}
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return fmt.Errorf("%w: %w", driver.ErrUnavailable, err)
}
