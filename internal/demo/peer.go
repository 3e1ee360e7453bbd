package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"time"

	"github.com/lockstep-go/lockstep/locker"
)

// The second process is this program again. It talks to the first one's stage by JSON-RPC
// over its standard input and output, one JSON object a line.

const (
	peerArgument  = "peer"
	secondProcess = "process 2"
)

// peer is the second process, seen from the first.
type peer struct {
	waiting chan struct{}  // it has played its part and asks for the next one
	sheets  chan CallSheet // what to play next; closed at the end
}

// A CallSheet tells the second process what to play.
type CallSheet struct {
	Act   int // the index in acts, or -1: the end
	Key   string
	Start int64 // of the common clock, in Unix nanoseconds
}

// startPeer starts the second process. The ctx that it returns ends when that process
// fails, with the reason as its cause; stop ends the process.
func startPeer(parent context.Context, s *house) (ctx context.Context, p *peer, stop func(), err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer func() {
		if err != nil {
			cancel(err)
			err = fmt.Errorf("the second process cannot be started: %w", err)
		}
	}()
	program, err := os.Executable()
	if err != nil {
		return nil, nil, nil, err
	}
	cmd := exec.CommandContext(ctx, program, peerArgument)
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, nil, err
	}

	// A call that waits, for a cue or for the end, ends with serving at the latest.
	serving, hangUp := context.WithCancel(ctx)
	p = &peer{waiting: make(chan struct{}), sheets: make(chan CallSheet)}
	server := rpc.NewServer()
	if err := server.RegisterName("Stage", &desk{serving, s, p}); err != nil {
		panic(err) // desk is not what net/rpc wants
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		server.ServeCodec(jsonrpc.NewServerCodec(pipe{Reader: out, Writer: in, Closer: in, onEnd: hangUp}))
		if err := cmd.Wait(); err != nil {
			cancel(fmt.Errorf("the second process: %w", err))
		}
	}()
	return ctx, p, func() {
		_ = in.Close() // it ends when it cannot reach the stage any more
		killed := time.AfterFunc(2*closeTimeout, func() { cancel(nil) })
		<-ended
		killed.Stop()
		cancel(nil)
	}, nil
}

// ready waits until the second process has nothing to do.
func (p *peer) ready(ctx context.Context) error {
	select {
	case <-p.waiting:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *peer) begin(ctx context.Context, c CallSheet) error {
	select {
	case p.sheets <- c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *peer) dismiss() { close(p.sheets) }

// desk is the stage as net/rpc wants it: an argument, a pointer to the reply, an error.
type desk struct {
	ctx   context.Context
	house *house
	peer  *peer
}

// None stands where net/rpc wants a value and there is nothing to say.
type None struct{}

// Next says that the second process is ready and waits for what it is to play.
func (d *desk) Next(_ None, reply *CallSheet) error {
	select {
	case d.peer.waiting <- struct{}{}:
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	}
	select {
	case c, ok := <-d.peer.sheets:
		if !ok {
			c.Act = -1
		}
		*reply = c
		return nil
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	}
}

func (d *desk) Tell(l Line, _ *None) error      { d.house.Tell(l); return nil }
func (d *desk) Count(h Hold, _ *None) error     { d.house.Count(h); return nil }
func (d *desk) Cue(name string, _ *None) error  { d.house.Cue(name); return nil }
func (d *desk) Await(cue string, _ *None) error { return d.house.Await(d.ctx, cue) }
func (d *desk) Read(_ None, reply *int) error   { *reply = d.house.Read(); return nil }
func (d *desk) Write(w Update, reply *Verdict) error {
	*reply = d.house.Write(w.Token, w.Value)
	return nil
}

// An Update is the arguments of Write.
type Update struct {
	Token uint64
	Value int
}

// pipe joins the two ends of a pair of pipes, and says when the other side has hung up.
type pipe struct {
	io.Reader
	io.Writer
	io.Closer
	onEnd func()
}

func (p pipe) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if err != nil {
		p.onEnd()
	}
	return n, err
}

// errStageGone: the first process has ended or has broken off.
var errStageGone = errors.New("the first process is gone")

// remoteStage is the stage, seen from the second process. Without it that process has
// nothing more to do: its ctx ends when the other side hangs up.
type remoteStage struct{ client *rpc.Client }

var _ stage = (*remoteStage)(nil)

func (r *remoteStage) call(method string, args, reply any) {
	_ = r.client.Call("Stage."+method, args, reply) // it fails only when the stage is gone
}

func (r *remoteStage) Tell(l Line)     { r.call("Tell", l, new(None)) }
func (r *remoteStage) Count(h Hold)    { r.call("Count", h, new(None)) }
func (r *remoteStage) Cue(name string) { r.call("Cue", name, new(None)) }

func (r *remoteStage) Read() (value int) {
	r.call("Read", None{}, &value)
	return value
}

func (r *remoteStage) Write(token uint64, value int) (v Verdict) {
	r.call("Write", Update{token, value}, &v)
	return v
}

func (r *remoteStage) Await(ctx context.Context, cue string) error {
	c := r.client.Go("Stage.Await", cue, new(None), make(chan *rpc.Call, 1))
	select {
	case <-c.Done:
		if c.Error != nil {
			return errStageGone
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// performAsPeer is the second process.
func performAsPeer(ctx context.Context, in io.ReadCloser, out io.WriteCloser) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hungUp := func() { cancel(errStageGone) }
	s := &remoteStage{jsonrpc.NewClient(pipe{Reader: in, Writer: out, Closer: out, onEnd: hungUp})}

	admin := &administrator{}
	l, err := open(ctx, source(), admin)
	if err != nil {
		return err
	}
	defer func() {
		closing, stop := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer stop()
		if closeErr := l.Close(closing); err == nil {
			err = closeErr
		}
	}()

	var cast []*worker
	for n := 1; n <= workers; n++ {
		cast = append(cast, &worker{number: n, process: secondProcess, locker: l, stage: s, admin: admin,
			open: func(ctx context.Context) (*locker.Locker, error) { return open(ctx, source(), admin) }})
	}
	_, cast = split(cast)
	for {
		var sheet CallSheet
		if err := s.client.Call("Stage.Next", None{}, &sheet); err != nil {
			return errStageGone
		}
		if sheet.Act < 0 {
			return nil
		}
		for _, w := range cast {
			w.key = sheet.Key
			if w.clock == (clock{}) {
				w.clock = newClock(time.Unix(0, sheet.Start))
			}
		}
		if err := play(ctx, acts[sheet.Act], cast); err != nil {
			return err
		}
	}
}
