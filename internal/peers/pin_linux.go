package peers

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// pin keeps all threads of a process on the first of its cores.
func pin(pid int) error {
	var all, first unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &all); err != nil {
		return err
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			first.Set(cpu)
			break
		}
	}
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return err
	}
	for _, t := range threads { // later ones inherit it
		tid, err := strconv.Atoi(t.Name())
		if err == nil {
			err = unix.SchedSetaffinity(tid, &first)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
