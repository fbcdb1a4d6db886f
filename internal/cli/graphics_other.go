//go:build !unix

package cli

// inForeground is always so here.
func inForeground() bool { return true }
