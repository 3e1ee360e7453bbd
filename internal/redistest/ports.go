package redistest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

var ports struct {
	sync.Mutex
	given map[int]bool
}

// freePort returns a port of this machine that nobody listens on, and never the same one twice.
//
// It does not let the kernel choose (port 0): the kernel takes those from the range that it also gives to outgoing
// connections, so that a killed server's port could be gone when it comes back. The ports here lie below that range.
func freePort() int {
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = make(map[int]bool)
	}
	for range 1000 {
		port := 12000 + rand.IntN(18000)
		if ports.given[port] {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		l.Close()
		ports.given[port] = true
		return port
	}
	panic("redistest: no free port between 12000 and 30000")
}
