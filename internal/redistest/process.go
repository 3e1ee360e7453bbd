package redistest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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

// findServer returns the program that LOCKSTEP_REDIS_SERVER names, or else the redis-server of this machine.
//
// redis-server and redis-check-rdb are one program, which looks at the name that it was called by. A distribution may
// have it under the second name only (Debian: redis-tools without redis-server).
func findServer() (string, error) {
	if name := os.Getenv(serverVariable); name != "" {
		path, err := exec.LookPath(name)
		if err != nil {
			err = fmt.Errorf("%s: %w", serverVariable, err)
		}
		return path, err
	}
	for _, name := range []string{"redis-server", "redis-check-rdb"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("a Redis is needed, and neither redis-server nor redis-check-rdb is on PATH\n" +
		"Do one of these:\n" +
		"  - install redis-server (Debian: apt-get install redis-tools is enough; macOS: brew install redis),\n" +
		"    or name the program in " + serverVariable + "\n" +
		"  - set " + urlVariable + " to a Redis for tests, for instance redis://127.0.0.1:6379; tests that break their\n" +
		"    server, or want a Cluster, need the program all the same")
}

func startProcess(s spec, port, busPort int) (*process, error) {
	program, err := findServer()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "redistest-")
	if err != nil {
		return nil, err
	}
	if err := removeLater(dir); err != nil {
		return nil, err
	}
	for _, f := range s.files {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.content, 0o600); err != nil {
			return nil, err
		}
	}
	p := &process{program: program, args: s.commandLine(port, busPort), env: os.Environ(), dir: dir}
	for _, v := range s.env {
		p.env = append(p.env, v[0]+"="+v[1])
	}
	if err := p.restart(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

// restart starts it, again with the same arguments, and does not wait until it answers.
func (p *process) restart() error {
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

// kill ends it at once, as a crash does.
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

// pause stops it and waits until it stands still: the signal is only on its way when Signal returns.
func (p *process) pause(ctx context.Context) error {
	cmd, _ := p.running()
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return poll(ctx, "the process stands still", func() error {
		state, err := stateOf(cmd.Process.Pid)
		if err == nil && state != "T" {
			err = fmt.Errorf("its state is %s", state)
		}
		return err
	})
}

func (p *process) resume() error {
	cmd, _ := p.running()
	return cmd.Process.Signal(syscall.SIGCONT)
}

// terminate ends it for good and removes all traces.
func (p *process) terminate() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = p.kill(ctx) // SIGKILL cannot be refused, and the kernel repeats it when this process ends
	_ = os.RemoveAll(p.dir)
}

// exited is nil as long as it runs; then it quotes the end of the log.
func (p *process) exited() error {
	_, done := p.running()
	select {
	case <-done:
	default:
		return nil
	}
	log, _ := os.ReadFile(filepath.Join(p.dir, "redis.log"))
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return fmt.Errorf("redis-server has ended:\n%s", strings.Join(lines[max(0, len(lines)-8):], "\n"))
}
