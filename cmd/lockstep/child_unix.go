//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// child is the command, in a process group of its own, whose number is the command's.
type child struct {
	pid     int
	ended   bool
	status  syscall.WaitStatus // once ended
	stopped syscall.Signal     // by which it was stopped since the last look, or 0
}

// startChild starts the command. It inherits stdin, stdout, stderr and what else lockstep was
// given. The goroutine stays on its thread: see tie.
func startChild(f *runFlags, env []string, tty *terminal) (*child, error) {
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	tie(attr.Sys)
	pid, err := syscall.ForkExec(f.path, f.argv, attr)
	if err != nil {
		return nil, err
	}
	if tty.shows(syscall.Getpgrp()) {
		// Not by the child itself, before it becomes the command: a Ctrl-Z in between would stop it
		// there, and ForkExec would wait for it. A command that reads sooner is stopped: see suspend.
		tty.show(pid)
	}
	return &child{pid: pid}, nil
}

// signal sends sig to all of the group.
func (c *child) signal(sig syscall.Signal) {
	if !c.gone() {
		_ = syscall.Kill(-c.pid, sig)
	}
}

// gone says whether nobody is left in the group.
func (c *child) gone() bool { return syscall.Kill(-c.pid, 0) == syscall.ESRCH }

// reap takes note of what has ended or stopped.
func (c *child) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG|syscall.WUNTRACED, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil || pid <= 0:
			return
		case pid != c.pid: // an orphan of the command's: see tie
		case status.Stopped():
			c.stopped = status.StopSignal()
		default:
			c.ended, c.status = true, status
		}
	}
}

// code is the exit code that says how the command ended.
func (c *child) code() int {
	if c.status.Signaled() {
		return exitSignal + int(c.status.Signal())
	}
	return c.status.ExitStatus()
}

// dieBy ends this process by sig, so that whoever started it sees that. Shells stop a script only
// if a command died by SIGINT, and systemd takes death by SIGTERM for a clean end. It returns if
// that cannot be had: SIGQUIT makes Go print its stacks, and after SIGKILL nobody should be told
// that lockstep itself was killed.
func dieBy(sig syscall.Signal, group bool) {
	switch sig {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP:
	default:
		return
	}
	if signal.Ignored(sig) || os.Getpid() == 1 { // the kernel spares the first process of a container
		return
	}
	to := os.Getpid()
	if group {
		to = 0
	}
	defaultAction(sig)
	_ = syscall.Kill(to, sig)
	time.Sleep(time.Second) // it is on its way
}
