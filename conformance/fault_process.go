package conformance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lockstep-go/lockstep/conformance/internal/harness"
	"github.com/lockstep-go/lockstep/locker"
	"github.com/lockstep-go/lockstep/locker/driver"
)

// Holder is all that a process of [Inject.Process] has to call: it holds what the suite, at the
// other end of in and out, tells it to, and returns when in ends. in is os.Stdin and out is
// os.Stdout; what else the process writes there does no harm.
//
//	func TestHolder(t *testing.T) {
//		addr := os.Getenv("HOLDER_STORE")
//		if addr == "" {
//			t.Skip("FLT-009 runs it, in a process of its own")
//		}
//		b, err := yourbackend.Open(t.Context(), yourbackend.Config{Addr: addr})
//		if err != nil {
//			t.Fatal(err)
//		}
//		if err := conformance.Holder(b, os.Stdin, os.Stdout); err != nil {
//			t.Fatal(err)
//		}
//	}
func Holder(b driver.Backend, in io.Reader, out io.Writer) error {
	l, err := locker.New(b, locker.Config{})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = l.Close(ctx)
	}()
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, holderMark+format+"\n", args...)
	}
	say("ready")
	var held *locker.Lease
	orders := bufio.NewScanner(in)
	for orders.Scan() {
		var order, key string
		var ttl time.Duration
		if _, err := fmt.Sscanf(orders.Text(), "%s %q %d", &order, &key, &ttl); err != nil {
			return fmt.Errorf("conformance: the suite says %q: %w", orders.Text(), err)
		}
		switch order {
		case "hold":
			var opts []locker.Option
			if ttl > 0 {
				opts = append(opts, locker.WithTTL(ttl))
			}
			if held, err = l.TryLock(context.Background(), key, opts...); err != nil {
				return err
			}
			say("held %d", held.Token())
			go func() {
				<-held.Done()
				say("ended %v", held.Err())
			}()
		case "look":
			if err := held.Err(); err != nil {
				say("lost %v", err)
			} else {
				say("live")
			}
		case "write": // without a look: that was before
			say("token %d", held.Token())
		}
	}
	return orders.Err()
}

// holderMark begins the lines that are meant for the suite.
const holderMark = "lockstep-holder: "

// Process is a process that runs [Holder].
type Process interface {
	io.Reader // what it writes; ends when the process has
	io.Writer // what it reads
	// Kill ends it at once: SIGKILL. The suite kills every process in the end; it may have ended.
	Kill() error
	// Stop makes it stand still until Continue: SIGSTOP and SIGCONT. The errors match
	// errors.ErrUnsupported where that cannot be done.
	Stop() error
	Continue() error
}

// Command starts cmd. A failure to do so fails the test.
func Command(tb testing.TB, cmd *exec.Cmd) Process {
	tb.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		tb.Fatalf("starting a process: %v", err)
	}
	go func() {
		_ = cmd.Wait() // that it was killed is no news
		_ = w.Close()
	}()
	return &command{r, in, cmd.Process}
}

type command struct {
	io.Reader
	io.Writer
	p *os.Process
}

func (c *command) Kill() error {
	if err := c.p.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func (c *command) Stop() error     { return stopProcess(c.p) }
func (c *command) Continue() error { return continueProcess(c.p) }

// process is a Holder as the suite sees it.
type process struct {
	Process
	c       *trial
	answers chan string
	ended   *harness.Moment // when it said that its hold has ended
	said    strings.Builder // what else it has written, to be read when it is gone
	gone    chan struct{}
}

func (c *trial) process() *process {
	p := &process{Process: c.inject().Process(c.T), c: c, answers: make(chan string, 64), gone: make(chan struct{})}
	c.OnClose(func(context.Context) {
		_ = p.Kill() // whether it runs or stands still
		<-p.gone
	})
	p.ended = &harness.Moment{Seen: make(chan struct{})}
	c.Spawn(func() {
		defer close(p.gone)
		lines := bufio.NewScanner(p)
		for lines.Scan() {
			switch text, ok := strings.CutPrefix(lines.Text(), holderMark); {
			case !ok:
				p.said.WriteString(lines.Text() + "\n")
			case strings.HasPrefix(text, "ended "):
				p.ended.At = time.Now()
				c.Hist.Add("   process: %s", text)
				close(p.ended.Seen)
			default:
				p.answers <- text
			}
		}
	})
	p.answer("ready")
	return p
}

func (p *process) say(order, key string, ttl time.Duration) {
	p.c.Hist.Add("   process: %s …", order)
	_, err := fmt.Fprintf(p, "%s %q %d\n", order, key, ttl)
	p.c.OK(err, "an order to a process")
}

// answer waits for the process to say word, and returns what follows it.
func (p *process) answer(word string) string {
	timer := time.NewTimer(p.c.Limit())
	defer timer.Stop()
	select {
	case text := <-p.answers:
		p.c.Hist.Add("   process: %s", text)
		rest, ok := strings.CutPrefix(text, word)
		p.c.Must(ok, "the process says: "+word, "%s", text)
		return strings.TrimSpace(rest)
	case <-p.gone:
		p.c.Fatal("the process says: "+word, "it has ended: %s", p.said.String())
	case <-timer.C:
		p.c.Fatal("the process says: "+word, "nothing within %s", p.c.Limit())
	}
	return ""
}

func (p *process) token(word string) (token uint64) {
	_, err := fmt.Sscan(p.answer(word), &token)
	p.c.OK(err, "a token")
	return token
}

func (p *process) hold(key string) (token uint64) {
	ttl := time.Duration(0)
	if p.c.leaf.kind == Lease {
		ttl = p.c.life()
	}
	p.say("hold", key, ttl)
	return p.token("held")
}

// register is a store that checks tokens, as the one that a lock protects should.
type register struct{ greatest uint64 }

func (r *register) write(token uint64) error {
	if token < r.greatest {
		return fmt.Errorf("%w: %d after %d", errStale, token, r.greatest)
	}
	r.greatest = token
	return nil
}

var errStale = errors.New("an old token")
