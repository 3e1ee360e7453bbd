package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
)

// means is a way to come by a Redis.
type means string

const (
	byURL       means = "url"
	byContainer means = "container"
	byProcess   means = "process"
)

const (
	meansVariable   = "LOCKSTEP_REDISTEST"
	urlVariable     = "LOCKSTEP_REDIS_URL"
	clusterVariable = "LOCKSTEP_REDIS_CLUSTER_URL"
	imageVariable   = "LOCKSTEP_REDIS_IMAGE"
)

var (
	sharedOrder  = []means{byURL, byContainer, byProcess}
	privateOrder = []means{byContainer, byProcess}
	processFirst = []means{byProcess, byContainer}
)

// errUnset is what a means returns that nobody asked for: not a failure, the next one is tried without a word.
var errUnset = errors.New("not set")

// errStop wraps a failure after which no other means may be tried, because the user named this one.
type errStop struct{ error }

func (e errStop) Unwrap() error { return e.error }

// ways says how to come by a T by each means.
type ways[T any] = map[means]func(context.Context) (T, error)

type logf = func(format string, args ...any)

// choose tries the means in order and returns what the first that works gives. It is a function of its arguments and
// of LOCKSTEP_REDISTEST only, and it returns its error, so that the failure can be tested.
//
// It tells logf when it had to pass over something that should have worked: a run that goes by other means than its
// author believes must show it.
func choose[T any](ctx context.Context, logf logf, what string, order []means, by ways[T]) (T, error) {
	var none T
	forced := means(os.Getenv(meansVariable))
	switch forced {
	case "":
	case byURL:
		// There is no URL of a private server, and a run against a URL wants its fault tests too.
		if _, ok := by[byURL]; ok {
			order = []means{byURL}
		}
	case byContainer, byProcess:
		order = []means{forced}
	default:
		return none, fmt.Errorf("redistest: %s=%q: want url, container or process", meansVariable, forced)
	}

	var failures []string
	for _, how := range order {
		value, err := by[how](ctx)
		if err == nil {
			if len(failures) > 0 {
				logf("redistest: %s by %s, because there was none by\n%s", what, how, strings.Join(failures, "\n"))
			}
			return value, nil
		}
		var stop errStop
		if errors.As(err, &stop) {
			return none, fmt.Errorf("redistest: %w", err)
		}
		if errors.Is(err, errUnset) && how != forced {
			continue
		}
		failures = append(failures, fmt.Sprintf("  %s: %s", how, indent(err)))
	}

	var b strings.Builder
	fmt.Fprintf(&b, "redistest: %s is needed and none can be had:\n%s\n", what, strings.Join(failures, "\n"))
	if forced != "" {
		fmt.Fprintf(&b, "No other means was tried because of %s=%s.\n", meansVariable, forced)
	}
	b.WriteString(`Do one of these:
  - install and start Docker (Debian: apt-get install docker.io);
    where it can pull no image, run internal/redistest/image/build.sh
  - install redis-server (Debian: apt-get install redis-tools is enough)
  - set ` + urlVariable + ` to a Redis for tests, for instance redis://127.0.0.1:6379,
    and for a Cluster ` + clusterVariable)
	return none, errors.New(b.String())
}

func indent(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "\n    ")
}
