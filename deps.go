//go:build deps

package workbench

import (
	_ "github.com/alecthomas/kong"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/janpfeifer/gonb/gonbui"
	_ "github.com/janpfeifer/must"
	_ "golang.org/x/sys/cpu"
	_ "golang.org/x/term"
	_ "golang.org/x/text/unicode/norm"
	_ "github.com/gomlx/gomlx/backends/default"
	_ "github.com/gomlx/go-huggingface/hub"
	_ "gonum.org/v1/plot"
	_ "github.com/posener/complete"
	_ "github.com/willabides/kongplete"
)
