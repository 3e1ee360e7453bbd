//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminal is the one that controls lockstep. A process group in the background that reads from it
// is stopped, so the command's group must be put into the foreground where lockstep is there; then
// Ctrl-C and Ctrl-Z reach the command alone.
type terminal struct{ file *os.File }

// openTerminal returns nil if there is none, as under cron or systemd. The terminal is not looked
// for at stdin: a command whose stdin is a pipe may still ask for a password at the terminal.
func openTerminal() *terminal {
	file, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	return &terminal{file}
}

func (t *terminal) fd() int { return int(t.file.Fd()) }

// shows says whether the group is in the foreground.
func (t *terminal) shows(group int) bool {
	if t == nil {
		return false
	}
	now, err := unix.IoctlGetInt(t.fd(), unix.TIOCGPGRP)
	return err == nil && now == group
}

// show puts the group into the foreground. Who does so from the background gets SIGTTOU.
func (t *terminal) show(group int) {
	signal.Ignore(syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTTOU)
	_ = unix.IoctlSetPointerInt(t.fd(), unix.TIOCSPGRP, group)
}

// suspends says whether somebody would resume lockstep after a Ctrl-Z: a shell with job control.
// Nobody does where lockstep's group is that of the session's leader, as in a container, or after
// ssh -t.
func (t *terminal) suspends() bool {
	if t == nil {
		return false
	}
	session, err := unix.Getsid(0)
	return err == nil && session != unix.Getpgrp()
}

// width is that of the terminal at f, or 0.
func width(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
