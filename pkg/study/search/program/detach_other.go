//go:build !unix

package program

import "os/exec"

// detach does nothing here.
func detach(*exec.Cmd) {}
