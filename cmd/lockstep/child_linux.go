package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// tie has the kernel kill the command when lockstep dies, even by SIGKILL: it would go on without
// a lock that is renewed. It is SIGKILL because there is nobody left who would count the grace
// after a SIGTERM. The kernel looks at the thread that started the command, so that its goroutine
// must stay there; and it kills the command alone, not what the command has started.
//
// Orphans of the command become lockstep's children, so that it hears of their end.
func tie(attr *syscall.SysProcAttr) {
	attr.Pdeathsig = syscall.SIGKILL
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}
