package peers

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// availableMemory is in bytes, or 0 where it is not known.
func availableMemory() int64 {
	text, _ := os.ReadFile("/proc/meminfo")
	return field(string(text), "MemAvailable:") << 10
}
