//go:build unix && !linux

package program

import (
	"os/exec"
	"syscall"
)

// detach keeps the terminal's Ctrl-C from a command, which is interrupted once and by us.
func detach(command *exec.Cmd) { command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
