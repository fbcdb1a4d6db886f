// Command bench times our packages so that they can be held against PyTorch and JAX.
// tools/bench/run.sh runs it in turn with those; each call prints one JSON line, whose
// fields tools/bench/README.md explains.
//
//	bench fwd|infer|train SHAPE [flags]   the encoder with seeded weights, see shape.go
//	bench attn SPEC [flags]               one attention of that spec (JSON), 8 heads of 64 unless it says
//	bench memory SPEC [flags]             what XLA reserves for it, forward and gradient
//	bench ner [flags]                     ner.Tagger.Train on UNER English-EWT
//	bench data DIR                        lays out weights and corpus of ner for the peer
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/gomlx/compute"

	"github.com/elastic-attention/workbench/pkg/backend"
)

// started is the start of the process but for the loading of the program.
var started = time.Now()

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags of all workloads, named as those of the peers.
type options struct {
	backend    string
	noDonation bool
	train      bool
	batch, seq int
	n, warm    int
	dropout    float64
	updates    int
	seed       uint64
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("no workload; want fwd, infer, train, attn, memory, ner or data")
	}
	workload, args := args[0], args[1:]
	name := ""
	if workload != "ner" {
		if len(args) == 0 {
			return fmt.Errorf("%s needs an argument: a shape, for attn and memory a spec, or for data a folder", workload)
		}
		name, args = args[0], args[1:]
	}
	var o options
	flags := flag.NewFlagSet(workload, flag.ContinueOnError)
	flags.StringVar(&o.backend, "backend", "", "backend; empty means as "+backend.ConfigEnv+" says, or the best one")
	flags.BoolVar(&o.noDonation, "no-donation", false, "leave GoMLX's XLA backend as it is")
	flags.BoolVar(&o.train, "train", false, "with the gradients of queries, keys and values (attn)")
	flags.IntVar(&o.batch, "batch", 16, "sequences a batch")
	flags.IntVar(&o.seq, "seq", 128, "tokens a sequence")
	flags.IntVar(&o.n, "n", 10, "timed calls")
	flags.IntVar(&o.warm, "warm", 2, "calls between the first and the timed ones")
	flags.Float64Var(&o.dropout, "dropout", 0, "rate of dropout (train); -1 keeps the model's own (ner)")
	flags.IntVar(&o.updates, "max-steps", 120, "updates (ner); 0 is a whole epoch")
	flags.Uint64Var(&o.seed, "seed", 42, "seed (ner)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not a flag", flags.Arg(0))
	}
	if o.batch < 1 || o.seq < 1 || o.n < 1 || o.warm < 0 {
		return errors.New("batch, seq and n must be at least 1, warm at least 0")
	}
	switch workload {
	case "data":
		return layOut(ctx, name)
	case "memory":
		return reportMemory(ctx, name, o)
	}
	engine, choice, err := backend.Open(ctx, backend.Options{Config: o.backend, NoDonation: o.noDonation})
	if err != nil {
		return err
	}
	defer engine.Finalize()
	r, err := measure(ctx, engine, workload, name, o)
	if err != nil {
		return err
	}
	r.Engine, r.Donation, r.RSS = "elastic-"+choice.Name, choice.Donation, peakRSS()
	return json.NewEncoder(os.Stdout).Encode(r)
}

func measure(ctx context.Context, engine compute.Backend, workload, name string, o options) (result, error) {
	if workload == "ner" {
		return timeNER(ctx, engine, o)
	}
	if workload == "attn" {
		return timeAttention(engine, name, o)
	}
	m, err := load(name)
	if err != nil {
		return result{}, err
	}
	switch workload {
	case "fwd", "infer":
		return timeForward(engine, m, workload, o)
	case "train":
		return timeTraining(ctx, engine, m, o)
	}
	return result{}, fmt.Errorf("no workload %q; want fwd, infer, train, attn, memory, ner or data", workload)
}
