package nb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
)

// interrupted is why the context of an interrupted cell ended.
type interrupted struct{}

func (interrupted) Error() string { return "the cell was interrupted" }

func (interrupted) Unwrap() error { return context.Canceled }

// ErrInterrupted is the cause of the end of [Context]. It wraps [context.Canceled].
var ErrInterrupted error = interrupted{}

var cell = sync.OnceValue(func() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	go func() {
		<-signals
		signal.Stop(signals)
		fmt.Fprintln(os.Stderr, "interrupted: the cell ends as soon as it can; interrupt it again to end it at once")
		cancel(ErrInterrupted)
	}()
	return ctx
})

// Context returns the context of the cell, which ends when the cell is interrupted: by the button of JupyterLab, by a runner
// whose time is up, or, in an exported program, by Ctrl-C. A training with a run folder then saves a checkpoint; without
// Context an interrupt ends the program where it stands. The kernel kills a cell 30 s after it was interrupted; a second
// interrupt ends it at once.
//
//	var ctx = nb.Context()
//
//	%%
//	result, err := experiment.Run(ctx, engine, config, experiment.Options{Dir: dir, Resume: true})
//	nb.EndInterrupted(err)
//	must.M(err)
func Context() context.Context { return cell() }

// EndInterrupted ends the program if it was interrupted and err comes of that, with err as its last words and as if the
// interrupt had ended it: the kernel then gives up the cells that are queued behind this one. Else it does nothing.
func EndInterrupted(err error) {
	if cell().Err() == nil || !errors.Is(err, context.Canceled) {
		return
	}
	fmt.Fprintln(os.Stderr, err)
	self, findErr := os.FindProcess(os.Getpid())
	if findErr != nil || self.Signal(os.Interrupt) != nil { // there are no such signals on Windows
		panic(err)
	}
	select {} // until the signal is delivered
}
