package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// process is a redis-server as a child of the test process, in a temporary directory of its own.
type process struct {
	program string
	args    []string
	env     []string
	dir     string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// findServer returns the redis-server of this machine.
//
// redis-server and redis-check-rdb are one program, which looks at the name that it was called by. A distribution may
// have it under the second name only (Debian: redis-tools without redis-server).
func findServer() (string, error) {
	for _, name := range []string{"redis-server", "redis-check-rdb"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("neither redis-server nor redis-check-rdb is on PATH")
}

func startProcess(s spec, port, busPort int) (node, string, error) {
	program, err := findServer()
	if err != nil {
		return nil, "", err
	}
	dir, err := os.MkdirTemp("", "redistest-")
	if err != nil {
		return nil, "", err
	}
	if err := removeLater(dir); err != nil {
		return nil, "", err
	}
	for _, f := range s.files {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.content, 0o600); err != nil {
			return nil, "", err
		}
	}
	const host = "127.0.0.1"
	p := &process{program: program, args: s.commandLine(host, port, busPort), env: os.Environ(), dir: dir}
	for _, v := range s.env {
		p.env = append(p.env, v[0]+"="+v[1])
	}
	if err := p.restart(context.Background()); err != nil {
		return nil, "", errors.Join(err, os.RemoveAll(dir))
	}
	return p, net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func (p *process) restart(context.Context) error {
	log, err := os.OpenFile(filepath.Join(p.dir, "redis.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := &exec.Cmd{
		Path: p.program,
		Args: append([]string{"redis-server"}, p.args...),
		Env:  p.env, Dir: p.dir, Stdout: log, Stderr: log,
	}
	if err := startChild(cmd); err != nil {
		return fmt.Errorf("%s: %w", p.program, err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(done)
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.done = cmd, done
	return nil
}

func (p *process) running() (*exec.Cmd, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd, p.done
}

func (p *process) kill(ctx context.Context) error {
	cmd, done := p.running()
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *process) pause(ctx context.Context) error {
	cmd, _ := p.running()
	return stopChild(ctx, cmd.Process)
}

func (p *process) resume(context.Context) error {
	cmd, _ := p.running()
	return continueChild(cmd.Process)
}

func (p *process) terminate() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = p.kill(ctx) // SIGKILL cannot be refused, and the kernel repeats it when this process ends
	_ = os.RemoveAll(p.dir)
}

func (p *process) exited(context.Context) error {
	_, done := p.running()
	select {
	case <-done:
	default:
		return nil
	}
	log, _ := os.ReadFile(filepath.Join(p.dir, "redis.log"))
	return fmt.Errorf("redis-server has ended:\n%s", tail(string(log)))
}

// tail returns the last lines of a log.
func tail(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}
