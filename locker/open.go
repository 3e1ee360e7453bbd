package locker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/lockstep-go/lockstep/locker/driver"
	"github.com/lockstep-go/lockstep/locker/internal/conf"
	"github.com/lockstep-go/lockstep/locker/internal/registry"
)

// Backends lists the types that are registered.
func Backends() []string { return conf.Backends() }

// Open makes a Locker of cfg: it finds the backend by cfg.Type, connects, and returns
// when the backend answers. ctx bounds the opening only. With cfg.OpenWait, Open waits for a
// store that is not there yet.
//
//   - ErrUnknownBackend: nothing is registered as cfg.Type; the message lists what is.
//   - ErrInvalidConfig: the message names the field, its value and what would be right.
//   - ErrUnavailable: the backend does not answer.
func Open(ctx context.Context, cfg Config) (*Locker, error) {
	const op = "open"
	b, err := conf.Find(cfg.Type)
	if err != nil {
		return nil, configError(op, err)
	}
	fail := func(code Code, err error) error {
		return &Error{Op: op, Backend: cfg.Type, Code: code, Err: err}
	}
	if ctx == nil {
		return nil, fail(CodeInvalidArgument, errNilContext)
	}
	if _, err := cfg.settings(); err != nil {
		return nil, fail(CodeInvalidConfig, err)
	}
	merged, err := conf.Merge(b, cfg.Backend, cfg.sources, true)
	if err != nil {
		return nil, fail(CodeInvalidConfig, err)
	}
	if ctx.Err() != nil {
		return nil, fail(CodeCanceled, ctxError(ctx))
	}
	backend, err := openBackend(ctx, b, merged, cfg)
	if err != nil {
		return nil, fail(codeOf(err), withContext(ctx, err))
	}
	cfg.Type, cfg.Backend, cfg.sources = "", nil, conf.Sources{}
	return New(backend, cfg) // its errors: only a nil backend is left to find fault with
}

// Open tries again after these. A store that is being started answers within seconds; many
// processes that start with it should not be in its way.
const (
	firstOpenDelay = 100 * time.Millisecond
	lastOpenDelay  = time.Second
)

// openBackend opens b once, and again while it is unavailable and cfg.OpenWait is not over. An
// attempt that is under way then is not cut short: the backend bounds it, and it may succeed.
func openBackend(ctx context.Context, b *registry.Backend, merged any, cfg Config) (driver.Backend, error) {
	began := time.Now()
	for delay := firstOpenDelay; ; delay = min(2*delay, lastOpenDelay) {
		opened, err := b.Open(ctx, merged)
		if err == nil {
			backend, _ := opened.(driver.Backend)
			return backend, nil
		}
		waited := time.Since(began)
		if codeOf(err) != CodeUnavailable || ctx.Err() != nil || waited >= cfg.OpenWait {
			if delay > firstOpenDelay && codeOf(err) == CodeUnavailable {
				err = fmt.Errorf("%w (waited %s for it)", err, waited.Round(time.Millisecond))
			}
			return nil, err
		}
		if delay == firstOpenDelay && cfg.Logger != nil {
			cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "open waits for the store", slog.String("backend", b.Name),
				slog.Duration("at_most", cfg.OpenWait), slog.Any("error", err))
		}
		retry := time.NewTimer(min(Retry{Delay: delay, Jitter: delay / 2}.next(), cfg.OpenWait-waited))
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return nil, fmt.Errorf("%w (waited %s for it)", err, time.Since(began).Round(time.Millisecond))
		}
	}
}

// configError is an error of package conf as one of this package.
func configError(op string, err error) error {
	code := CodeInvalidConfig
	var unknown *conf.Unknown
	if errors.As(err, &unknown) {
		code = CodeUnknownBackend
	}
	return &Error{Op: op, Code: code, Err: err}
}
