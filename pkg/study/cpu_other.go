//go:build !unix

package study

// cpuSeconds returns 0: the CPU time is not to be had here.
func cpuSeconds() float64 { return 0 }
