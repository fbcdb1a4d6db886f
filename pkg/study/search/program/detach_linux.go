package program

import (
	"os/exec"
	"syscall"
)

// detach keeps the terminal's Ctrl-C from a command, which is interrupted once and by us, and ends it with this process.
func detach(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
