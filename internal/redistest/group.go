package redistest

import (
	"context"
	"errors"
	"sync"
)

// startAll starts servers side by side, by the same means. If one cannot be had, none is left.
func startAll(ctx context.Context, how means, specs ...spec) ([]*Server, error) {
	servers := make([]*Server, len(specs))
	errs := make([]error, len(specs))
	var wg sync.WaitGroup
	for i, s := range specs {
		wg.Go(func() { servers[i], errs[i] = start(ctx, how, s) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		terminateAll(servers)
		return nil, err
	}
	return servers, nil
}

func terminateAll(servers []*Server) {
	var wg sync.WaitGroup
	for _, srv := range servers {
		if srv != nil {
			wg.Go(srv.terminate)
		}
	}
	wg.Wait()
}
