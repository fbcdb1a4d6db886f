//go:build unix

package kernel

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the kernel and what it starts into a process group: Ctrl-C in the terminal does not reach it, and all of
// it can be killed together.
func ownGroup(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func interrupt(c *exec.Cmd) error { return syscall.Kill(-c.Process.Pid, syscall.SIGINT) }

func killGroup(c *exec.Cmd) { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
