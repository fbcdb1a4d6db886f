// Command elastic trains, evaluates and runs models with elastic attention.
//
//	elastic train ner            fine-tune a named-entity model, from nothing to a report
//	elastic predict RUN TEXT     find entities
//	elastic doctor               what this machine has, and what is missing
//
// "elastic help" lists all commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/elastic-attention/workbench/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	code := cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
