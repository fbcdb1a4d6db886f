//go:build !unix

package kernel

import (
	"os"
	"os/exec"
)

func ownGroup(*exec.Cmd) {}

func interrupt(c *exec.Cmd) error { return c.Process.Signal(os.Interrupt) }

func killGroup(c *exec.Cmd) { _ = c.Process.Kill() }
