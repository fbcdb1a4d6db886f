package backend_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/pkg/backend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"golang.org/x/sys/unix"
)

// TestPureGoTrainingNeverHangs trains small networks in processes that own one
// CPU and two. The graph is the kind on which the engine's default mode waits
// for itself: many independent matrix products and error functions at once.
//
// ELASTIC_STRESS=100 does the hundred runs of each that we promise. To see the
// engine's default mode hang, set ELASTIC_STRESS_CONFIG=go:dependency_order.
func TestPureGoTrainingNeverHangs(t *testing.T) {
	const marker = "ELASTIC_TEST_STRESS_CPUS"
	if cpus := os.Getenv(marker); cpus != "" {
		stress(t, cpus)
		return
	}
	runs := os.Getenv("ELASTIC_STRESS")
	if runs == "" {
		runs = "10"
	}
	count, err := strconv.Atoi(runs)
	if err != nil || count < 1 {
		t.Fatalf("ELASTIC_STRESS is %q, want a number of runs", runs)
	}
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpus := 1; cpus <= 2; cpus++ {
		t.Run(fmt.Sprintf("cpus=%d", cpus), func(t *testing.T) {
			if all.Count() < cpus {
				t.Skipf("this machine has %d CPU", all.Count())
			}
			limit := 30*time.Second + time.Duration(count)*5*time.Second
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			// The watchdog is another process, so that nothing in a stuck one can stop it.
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestPureGoTrainingNeverHangs$", "-test.v", "-test.timeout=0")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", marker, cpus), "ELASTIC_STRESS="+runs)
			cmd.WaitDelay = time.Second
			start := time.Now()
			output, err := cmd.CombinedOutput()
			done := strings.Count(string(output), "run ended")
			if ctx.Err() != nil {
				t.Fatalf("hangs: %d of %d runs ended within %s", done, count, limit)
			}
			if err != nil || done != count {
				t.Fatalf("%d of %d runs ended (%v):\n%s", done, count, err, output)
			}
			t.Logf("%d runs on %d CPU in %.1f s", count, cpus, time.Since(start).Seconds())
		})
	}
}

// stress runs in a process of its own: it gives up all CPUs but some and trains.
func stress(t *testing.T, cpus string) {
	keep, err := strconv.Atoi(cpus)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GOMAXPROCS(keep) // as it would be in a process started with so many
	var all, some unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; some.Count() < keep; cpu++ {
		if all.IsSet(cpu) {
			some.Set(cpu)
		}
	}
	// Threads that exist already keep their CPUs, so each of them is told.
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SchedSetaffinity(id, &some); err != nil {
			t.Fatal(err)
		}
	}
	config := os.Getenv("ELASTIC_STRESS_CONFIG")
	if config == "" {
		config = backend.PureGo
	}
	runs, _ := strconv.Atoi(os.Getenv("ELASTIC_STRESS"))
	for run := range runs {
		first, last := trainBranches(t, config)
		if !(last < first) {
			t.Fatalf("run %d: loss went from %g to %g", run, first, last)
		}
		fmt.Println("run ended", run, first, last)
	}
}

// trainBranches trains a layer of independent branches for a few steps.
func trainBranches(t *testing.T, config string) (first, last float32) {
	t.Helper()
	engine, _, err := backend.Open(t.Context(), backend.Options{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Finalize()
	const branches, rows = 16, 256
	store := model.NewStore()
	for i := range branches {
		store.CreateVariable(fmt.Sprintf("/w%d", i), matrix(uint32(i+1), 0.1))
	}
	step, err := model.NewExec(engine, store, func(_ *model.Scope, x *Node) *Node {
		g := x.Graph()
		var values []*Node
		sum := ScalarZero(g, x.DType())
		for i := range branches {
			w := store.GetVariable(fmt.Sprintf("/w%d", i)).NodeValue(g)
			values = append(values, w)
			sum = Add(sum, ReduceAllMean(Square(AddScalar(Erf(MatMul(x, w)), -0.5))))
		}
		for i, grad := range Gradient(sum, values...) {
			store.GetVariable(fmt.Sprintf("/w%d", i)).SetNodeValue(Sub(values[i], MulScalar(grad, 1)))
		}
		return sum
	})
	if err != nil {
		t.Fatal(err)
	}
	flat := make([]float32, rows*width)
	for i := range flat {
		flat[i] = float32(i%11) / 11
	}
	for i := range 4 {
		outputs, err := step.Exec(tensors.FromFlatDataAndDimensions(flat, rows, width))
		if err != nil {
			t.Fatal(err)
		}
		last = tensors.MustCopyFlatData[float32](outputs[0])[0]
		if i == 0 {
			first = last
		}
	}
	return first, last
}
