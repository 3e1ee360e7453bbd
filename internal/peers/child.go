package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"
)

// A subject does its work in a child: this program again, which carries out tasks that it
// reads from its standard input, one JSON object a line, and ends with it.

// ChildArgument makes Main a child.
const ChildArgument = "child"

// An order is one task for a child. The locks that it needs are opened when first asked for,
// and stay.
type order struct {
	Task   string
	Locks  string // the subject's, in memoryLocks, redisLocks or postgresLocks; "" for none
	Server string // host:port, for those of Redis and of Postgres
	Args   json.RawMessage
}

type reply struct {
	Result json.RawMessage
	Error  string
}

// A task is what a child can do.
type task func(c *childState, args json.RawMessage) (any, error)

// childState is what a child has open.
type childState struct {
	order  order
	locks  map[string]*locks
	held   []any // what a task leaves held, for the next ones
	keys   []string
	client rueidis.Client
	conn   *pgx.Conn
}

// open returns the locks that the order names.
func (c *childState) open() (*locks, error) {
	if l := c.locks[c.order.Locks]; l != nil {
		return l, nil
	}
	l, err := openLocks(context.Background(), c.order.Locks, c.order.Server)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.order.Locks, err)
	}
	c.locks[c.order.Locks] = l
	return l, nil
}

// ServeChild is the child's main function.
func ServeChild(in io.Reader, out io.Writer) error {
	c := &childState{locks: make(map[string]*locks)}
	orders, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		c.order = order{}
		if err := orders.Decode(&c.order); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var r reply
		result, err := c.carryOut()
		if err == nil {
			r.Result, err = json.Marshal(result)
		}
		if err != nil {
			r.Error = err.Error()
		}
		if err := replies.Encode(r); err != nil {
			return err
		}
	}
}

func (c *childState) carryOut() (result any, err error) {
	t := tasks[c.order.Task]
	if t == nil {
		return nil, fmt.Errorf("no task %q", c.order.Task)
	}
	return t(c, c.order.Args)
}

// typed makes a task of a function that takes its arguments as a struct.
func typed[A any](f func(c *childState, a A) (any, error)) task {
	return func(c *childState, args json.RawMessage) (any, error) {
		var a A
		if len(args) > 0 {
			if err := json.Unmarshal(args, &a); err != nil {
				return nil, err
			}
		}
		return f(c, a)
	}
}

// A child, seen from the parent.
type child struct {
	b             *Bench
	locks, server string
	cmd           *exec.Cmd
	in            io.WriteCloser
	orders        *json.Encoder
	replies       *json.Decoder
}

// child starts one, which ends with the scenario.
func (b *Bench) child(locks, server string) *child {
	program, err := os.Executable()
	b.check(err)
	c := &child{b: b, locks: locks, server: server, cmd: exec.Command(program, ChildArgument)}
	c.cmd.Stderr = os.Stderr
	c.in, err = c.cmd.StdinPipe()
	b.check(err)
	out, err := c.cmd.StdoutPipe()
	b.check(err)
	c.orders, c.replies = json.NewEncoder(c.in), json.NewDecoder(out)
	b.check(c.cmd.Start())
	b.Cleanup(c.end)
	return c
}

// start gives an order; the function that it returns waits for the reply.
func (c *child) start(task string, args any) (wait func(result any)) {
	text, err := json.Marshal(args)
	c.b.check(err)
	c.b.check(c.orders.Encode(order{task, c.locks, c.server, text}))
	return func(result any) {
		var r reply
		if err := c.replies.Decode(&r); err != nil {
			c.b.Fatalf("the child that does %s has ended: %w", task, err)
		}
		if r.Error != "" {
			c.b.Fatalf("%s: %s", task, r.Error)
		}
		if result != nil {
			c.b.check(json.Unmarshal(r.Result, result))
		}
	}
}

// do is start and wait.
func (c *child) do(task string, args, result any) { c.start(task, args)(result) }

// sample is do for a task that returns a Sample.
func (c *child) sample(task string, args any) Sample {
	var s Sample
	c.do(task, args, &s)
	return s
}

// kill ends the child as a crash would.
func (c *child) kill() {
	_ = c.cmd.Process.Signal(syscall.SIGKILL)
	_ = c.cmd.Wait()
}

func (c *child) end() {
	if c.cmd.ProcessState != nil {
		return
	}
	_ = c.in.Close()
	force := time.AfterFunc(2*time.Second, func() { _ = c.cmd.Process.Kill() })
	_ = c.cmd.Wait()
	force.Stop()
}

// inChild is the usual subject: a child that does the same task each round.
func inChild(name, locks, task string, args any) Subject {
	return Subject{Name: name, Open: func(b *Bench) func() Sample {
		c := b.child(locks, "")
		return func() Sample { return c.sample(task, args) }
	}}
}
