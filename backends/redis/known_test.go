package redis

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// Known: what a server can say in the right form after Open and still end the process, inside of rueidis. Each runs in a
// child. When one of these fails, upstream has mended it: delete it, and its sentence in decision 12.
var known = map[string]struct {
	masterAddr, role string
	panics           string
}{
	// sentinel.go, listWatch: m[0], m[1] of the master's address.
	"a Sentinel names a master without an address": {"*0\r\n", "", "index out of range"},
	// sentinel.go, _switchTarget: resp[0] of ROLE.
	"a master without a role": {"", "*0\r\n", "index out of range"},
}

func TestKnownCrashes(t *testing.T) {
	if name := os.Getenv("LOCKSTEP_TEST_KNOWN"); name != "" {
		openFakeSentinel(t, name)
		return
	}
	for name, k := range known {
		t.Run(name, func(t *testing.T) {
			// On a machine that is busy rueidis may have asked for the last time before the answers become bad.
			var out []byte
			var err error
			for range 5 {
				cmd := exec.Command(os.Args[0], "-test.run=^TestKnownCrashes$")
				cmd.Env = append(os.Environ(), "LOCKSTEP_TEST_KNOWN="+name)
				out, err = cmd.CombinedOutput()
				if err != nil && bytes.Contains(out, []byte(k.panics)) && bytes.Contains(out, []byte("rueidis.(*sentinelClient)")) {
					return
				}
			}
			t.Errorf("it no longer ends the process inside of rueidis: %v\n%s", err, out)
		})
	}
}

func openFakeSentinel(t *testing.T, name string) {
	k := known[name]
	var evil atomic.Bool
	master := serveFake(t, "", func(args []string) string {
		if strings.EqualFold(args[0], "ROLE") {
			if evil.Load() && k.role != "" {
				return k.role
			}
			return "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
		}
		return plausible("*0\r\n")(args)
	})
	host, port, _ := strings.Cut(master.addr, ":")
	sentinel := serveFake(t, "", func(args []string) string {
		switch verb := strings.ToUpper(strings.Join(args[:min(2, len(args))], " ")); {
		case strings.HasPrefix(verb, "SENTINEL SENTINELS"):
			return "*0\r\n"
		case strings.HasPrefix(verb, "SENTINEL GET-MASTER"):
			if evil.Load() && k.masterAddr != "" {
				return k.masterAddr
			}
			return string(appendCommand(nil, []string{host, port}))
		case strings.HasPrefix(verb, "UNSUBSCRIBE"):
			return ">3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"
		case strings.HasPrefix(verb, "SUBSCRIBE"):
			return ">3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"
		}
		return plausible("*0\r\n")(args)
	})
	b, err := Open(t.Context(), Config{
		Addrs: []string{sentinel.addr}, MasterSet: "m", Timeout: time.Second, DialTimeout: time.Second,
		ClientOption: func(opt *rueidis.ClientOption) { opt.Sentinel.TopologyRefreshInterval = 20 * time.Millisecond },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(t.Context())
	evil.Store(true)
	time.Sleep(5 * time.Second) // it ends much sooner
}
