package proof

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/backends/redis"
	"github.com/lockstep-go/lockstep/internal/redistest"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/once"
)

// A fleet whose clocks are up to 2 s off, either way, does a job of 1 ms in each slot.
// LOCKSTEP_ONCE_SLOTS is the number of slots, 60 unless it says otherwise.

const (
	onceEnv   = "LOCKSTEP_PROOF_ONCE"
	slotsEnv  = "LOCKSTEP_ONCE_SLOTS"
	onceEvery = 20 * time.Millisecond
)

// TestOnceProcess is one of the fleet: address, skew, first slot in ns, number of slots.
func TestOnceProcess(t *testing.T) {
	text := os.Getenv(onceEnv)
	if text == "" {
		t.Skip("TestOnceFleet runs it, in processes of their own")
	}
	f := strings.Fields(text)
	skew, err := time.ParseDuration(f[1])
	if err != nil {
		t.Fatal(err)
	}
	first, err1 := strconv.ParseInt(f[2], 10, 64)
	n, err2 := strconv.Atoi(f[3])
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	l, err := redis.New(t.Context(), redis.Config{Addrs: []string{f[0]}, Prefix: "once"}, locker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	clock := func() time.Time { return time.Now().Add(skew) } // this process's, which is off
	slots := once.Slots(onceEvery)
	for i := range n {
		fire := time.Unix(0, first).Add(time.Duration(i) * onceEvery)
		time.Sleep(fire.Sub(clock()))
		// The scheduler fires a little late, by its own clock: what it was to fire for is rounded.
		late := min(clock().Sub(fire), onceEvery/3)
		slot := slots.At(fire.Add(max(late, 0)))
		err := once.Do(t.Context(), l, "job", slot, func(context.Context, *locker.Lease) error {
			fmt.Printf("ran %d\n", slot.UnixNano())
			time.Sleep(time.Millisecond)
			return nil
		}, once.AtLeast(time.Minute), once.TTL(2*time.Second))
		switch {
		case err == nil, errors.Is(err, once.ErrDone), errors.Is(err, once.ErrRunning):
		default:
			fmt.Printf("error %v\n", err)
		}
	}
}

func TestOnceFleet(t *testing.T) {
	n := number(t, slotsEnv, 60)
	srv := redistest.Start(t)
	first := time.Now().Add(4 * time.Second).Truncate(onceEvery)
	type heard struct {
		line string
		err  error
	}
	lines := make(chan heard)
	skews := []time.Duration{-2 * time.Second, -time.Second, 0, time.Second, 2 * time.Second}
	for _, skew := range skews {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOnceProcess$")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d %d", onceEnv, srv.Addr(), skew, first.UnixNano(), n))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		go func() {
			in := bufio.NewScanner(out)
			for in.Scan() {
				lines <- heard{line: in.Text()}
			}
			lines <- heard{err: errors.Join(cmd.Wait(), errEnded)}
		}()
	}
	ran := map[int64]int{}
	limit := time.After(time.Duration(n)*onceEvery + 2*time.Minute)
	for ended := 0; ended < len(skews); {
		select {
		case h := <-lines:
			var slot int64
			switch {
			case h.err != nil:
				ended++
				if h.err.Error() != errEnded.Error() {
					t.Errorf("one of the fleet: %v", h.err)
				}
			case strings.HasPrefix(h.line, "error "):
				t.Error(h.line)
			default:
				if k, _ := fmt.Sscanf(h.line, "ran %d", &slot); k == 1 {
					ran[slot]++
				}
			}
		case <-limit:
			t.Fatal("the fleet does not end")
		}
	}
	for i := range n {
		slot := first.Add(time.Duration(i) * onceEvery).UnixNano()
		if ran[slot] != 1 {
			t.Errorf("slot %d ran %d times", i, ran[slot])
		}
		delete(ran, slot)
	}
	if len(ran) > 0 {
		t.Errorf("slots that are none: %v", ran)
	}
	t.Logf("%d slots, 5 processes with clocks from -2 s to +2 s: each once", n)
}

var errEnded = errors.New("it has ended")
