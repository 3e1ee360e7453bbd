package peers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What Linux tells of processes. Elsewhere the rows that need it are not measurable.

// switches is how often all threads of a process have gone to sleep of their own will.
func switches(b *Bench, pid int) int64 {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if len(files) == 0 {
		b.Fatal("/proc does not tell the context switches of a process")
	}
	sum := int64(0)
	for _, file := range files {
		text, _ := os.ReadFile(file) // a thread may have ended
		sum += field(string(text), "voluntary_ctxt_switches:")
	}
	return sum
}

// field is the number after name at the beginning of a line.
func field(text, name string) int64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if words := strings.Fields(rest); len(words) > 0 {
				n, _ := strconv.ParseInt(words[0], 10, 64)
				return n
			}
		}
	}
	return 0
}

// pin keeps all threads of a process on the first of its cores; later threads inherit it.
func pin(pid int) error {
	text, _ := os.ReadFile("/proc/self/status")
	_, cores, _ := strings.Cut(string(text), "Cpus_allowed_list:")
	first, _, _ := strings.Cut(strings.TrimSpace(cores), "\n")
	first, _, _ = strings.Cut(first, ",")
	first, _, _ = strings.Cut(first, "-")
	out, err := exec.Command("taskset", "--all-tasks", "--cpu-list", "--pid", first, strconv.Itoa(pid)).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("taskset: %w: %s", err, out)
	}
	return err
}

// availableMemory is in bytes, or 0 where it is not known.
func availableMemory() int64 {
	text, _ := os.ReadFile("/proc/meminfo")
	return field(string(text), "MemAvailable:") << 10
}

// cpuTime is what this process has used so far.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}
