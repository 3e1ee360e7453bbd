package proof

import (
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/conformance"
)

// TestHolderProcess is the other process of FLT-009, which is killed and stopped.
func TestHolderProcess(t *testing.T) {
	source := os.Getenv(holderEnv)
	if source == "" {
		t.Skip("FLT-009 runs it, in a process of its own")
	}
	u, err := url.Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	validity, err := time.ParseDuration(q.Get("validity"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := redis.Open(t.Context(), redis.Config{Addrs: []string{u.Host}, Prefix: q.Get("prefix"), Validity: validity, Tracking: q.Get("tracking")})
	if err != nil {
		t.Fatal(err)
	}
	if err := conformance.Holder(b, os.Stdin, os.Stdout); err != nil {
		t.Fatal(err)
	}
}
