//go:build notebooks

// Package workbench pins what the notebooks import, so that "go mod tidy" keeps it.
package workbench

import (
	_ "github.com/janpfeifer/gonb/gonbui"
	_ "github.com/janpfeifer/must"
)
