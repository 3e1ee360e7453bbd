package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	sigKill     = syscall.SIGKILL
	sigStop     = syscall.SIGSTOP
	sigContinue = syscall.SIGCONT
)

// become makes cmd run as who.
func become(cmd *exec.Cmd, who *user.User) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // Ctrl-C in a terminal is for the test, which then ends the server
		Pdeathsig: syscall.SIGQUIT, // the postmaster then ends all of its processes at once
	}
	if os.Getuid() != 0 {
		return nil
	}
	uid, err1 := strconv.ParseUint(who.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(who.Gid, 10, 32)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false}
	return errors.Join(err1, err2)
}

// starter starts child processes on one thread that lives as long as the process: Pdeathsig is
// sent when the thread ends that forked.
var starter = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func startChild(cmd *exec.Cmd) error {
	result := make(chan error)
	starter() <- func() { result <- cmd.Start() }
	return <-result
}

// processes are those whose working directory is dir: all of a server's are.
func processes(dir string) []int {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	var all []int
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.TrimSuffix(target, " (deleted)") == dir {
			if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

// family are the processes that the first one has made, which are all of a server's. To look at
// every process of the machine, as processes does, takes long on one that is busy.
func family(dir string, first int) []int {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", first, first))
	if err != nil { // the kernel does not tell, or the first one has gone and left orphans
		return processes(dir)
	}
	all := []int{first}
	for _, field := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(field); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// signalAll signals the first process, which makes the others, before them.
func signalAll(dir string, first int, sig syscall.Signal) error {
	members := family(dir, first)
	if err := syscall.Kill(first, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	for n := range 100 {
		left := false
		switch {
		case sig == sigKill:
			if n > 0 {
				members = processes(dir) // what was being made just then
			}
		case n < 3:
			members = family(dir, first)
		}
		for _, pid := range members {
			if sig != sigContinue && state(pid) != "R" && state(pid) != "S" && state(pid) != "D" {
				continue
			}
			if err := syscall.Kill(pid, sig); err == nil && sig != sigContinue {
				left = true
			}
		}
		if !left {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return fmt.Errorf("the processes in %s do not heed signal %s", dir, sig)
}

// state is the process's, as the kernel shows it, or "".
func state(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// It follows the name, which is in parentheses and may hold any byte.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return fields[0]
}

// waitGone waits until no process of a killed server is left.
func waitGone(dir string) error {
	for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(time.Millisecond) {
		gone := true
		for _, pid := range processes(dir) {
			gone = gone && state(pid) == "Z"
		}
		if gone {
			return nil
		}
	}
	return fmt.Errorf("processes in %s are left", dir)
}

// mainMemory is a folder in main memory with room for many servers, or "" where there is none. To make
// and remove the thousand files of each on a disk takes half of a small machine's time.
var mainMemory = sync.OnceValue(func() string {
	const (
		dir    = "/dev/shm"
		tmpfs  = 0x01021994 // TMPFS_MAGIC of statfs(2)
		noExec = 0x8        // ST_NOEXEC: a server could not load a library from its folder
		room   = 4 << 30
	)
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || int64(fs.Type) != tmpfs || int64(fs.Flags)&noExec != 0 {
		return ""
	}
	if fs.Bavail*uint64(fs.Bsize) < room || available() < room {
		return ""
	}
	probe, err := os.MkdirTemp(dir, "pgtest-")
	if err != nil {
		return ""
	}
	_ = os.Remove(probe)
	return dir
})

// available is how many bytes of main memory are free for programs, by the kernel's estimate. A folder in
// it may have more room than there is memory.
func available() uint64 {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(info)) {
		if left, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kB, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(left), " kB"), 10, 64)
			return kB << 10
		}
	}
	return 0
}

// detach keeps a signal that is meant for the test and its group from cmd.
func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
