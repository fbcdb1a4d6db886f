package kernel

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc, USER_HZ, which is 1/100 s for all programs whatever the kernel's own clock is.
const tick = 10 * time.Millisecond

// cpuTime returns the processor time that a process, the processes it has started, and those these have started have used
// up to now. Of those that have ended it counts what their parents have waited for.
//
// Source: proc_pid_stat(5).
func cpuTime(pid int) time.Duration {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	used, children := map[int]time.Duration{}, map[int][]int{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil { // it has ended
			continue
		}
		id, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		// The name, in parentheses, may hold anything. Behind it: state, parent, and as 12th to 15th the times.
		_, rest, _ := strings.Cut(string(content[max(0, strings.LastIndex(string(content), ")")):]), " ")
		fields := strings.Fields(rest)
		if len(fields) < 15 {
			continue
		}
		for _, field := range fields[11:15] {
			ticks, _ := strconv.Atoi(field)
			used[id] += time.Duration(ticks) * tick
		}
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], id)
	}
	return sum(pid, used, children)
}

func sum(pid int, used map[int]time.Duration, children map[int][]int) time.Duration {
	total := used[pid]
	for _, child := range children[pid] {
		total += sum(child, used, children)
	}
	return total
}
