//go:build selftest

package kernel_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/nb/kernel"
)

// goKernel starts the real kernel, which sees this module.
func goKernel(t *testing.T, cells ...string) *kernel.Kernel {
	t.Helper()
	spec, err := kernel.Find(kernel.Name, kernel.DataDirs())
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Start(t.Context(), spec, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	for _, code := range append([]string{"%noautoget"}, cells...) {
		if reply, said, err := says(t.Context(), k, code, nil); err != nil || reply.Status != "ok" {
			t.Fatalf("cell %q: %+v, error %v\n%s", code, reply, err, said)
		}
	}
	return k
}

// says executes a cell and returns what it wrote; heard is called with all of that whenever there is more.
func says(ctx context.Context, k *kernel.Kernel, code string, heard func(said string)) (kernel.Reply, string, error) {
	said := ""
	reply, err := k.Execute(ctx, kernel.Request{Code: code, Grace: time.Minute, Output: func(m kernel.Message) {
		var stream struct{ Text string }
		if m.Header.Type == "stream" && json.Unmarshal(m.Content, &stream) == nil {
			said += stream.Text
			if heard != nil {
				heard(said)
			}
		}
	}})
	return reply, said, err
}

// imports is a cell that makes some of our packages known to those after it.
const imports = `import (
	"fmt"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/viz/nb"
)

var (
	spec = attention.Spec{Heads: 4}
	ctx  = nb.Context()
)

%%
fmt.Println(spec.Heads)`

func TestGoNBComplete(t *testing.T) {
	k := goKernel(t, imports)
	for _, test := range []struct {
		code string // | is the cursor
		want []string
	}{
		{"%%\nattention.|", []string{"Spec", "Entmax", "Blockwise"}},
		{"%%\nfmt.Println(attention.Sp|)", []string{"Spec", "Sparsemax"}},
		{"%%\nspec.|", []string{"Heads", "Normalizer", "Validate"}},
		{"%%\ns := attention.Spec{|}", []string{"Heads", "KVHeads", "Mask"}},
		{"import \"github.com/elastic-attention/workbench/pkg/elastic/pooling\"\n%%\npooling.|", []string{"Descent"}},
		{"var onlyHere int\n%%\nfmt.Println(only|)", []string{"onlyHere"}},
		{"// ein Satz mit Umlauten: äöü\n%%\nfmt.Prin|", []string{"Println"}},
		{"%%\nfmt.Println(\"äöü€\", attention.Sp|)", []string{"Spec"}},
	} {
		code, cursor := cut(t, test.code)
		got, err := k.Complete(t.Context(), code, cursor)
		if err != nil || got.Status != "ok" {
			t.Errorf("%q: completion %+v, error %v", test.code, got, err)
			continue
		}
		for _, want := range test.want {
			if !slices.Contains(got.Matches, want) {
				t.Errorf("%q: matches %q, want %s among them", test.code, got.Matches, want)
			}
		}
		// Putting the match in the place that the kernel names makes sense.
		runes := []rune(code)
		whole := string(runes[:got.Start]) + test.want[0] + string(runes[got.End:])
		if before, _, _ := strings.Cut(test.code, "|"); !strings.HasPrefix(whole, strings.TrimRightFunc(before, func(r rune) bool { return !strings.ContainsRune(".{(", r) })+test.want[0]) {
			t.Errorf("%q becomes %q", test.code, whole)
		}
	}
}

// TestGoNBForgets: what a cell that was not executed declared is nothing that the next one has.
func TestGoNBForgets(t *testing.T) {
	k := goKernel(t, imports)
	for i := range 3 {
		code, cursor := cut(t, fmt.Sprintf("var only%d int\n%%%%\nfmt.Println(only|)", i))
		got, err := k.Complete(t.Context(), code, cursor)
		if want := []string{fmt.Sprint("only", i)}; err != nil || !slices.Equal(got.Matches, want) {
			t.Errorf("matches %q, error %v, want %q", got.Matches, err, want)
		}
	}
}

func TestGoNBInspect(t *testing.T) {
	k := goKernel(t, imports)
	for _, test := range []struct {
		code string
		want []string
	}{
		{"%%\nvar s attention.Sp|ec\nfmt.Println(s)", []string{"type Spec struct", "Heads is the number of query heads"}},
		{"%%\nfmt.Println(spec.Vali|date(48))", []string{"func (s attention.Spec) Validate(", "error"}},
		{"%%\n_ = nb.Con|text()", []string{"func nb.Context() context.Context", "ends when the cell is interrupted"}},
		{"%%\nfmt.Println(sp|ec)", []string{"var spec attention.Spec"}},
		{"%%\nfmt.Println(\"äöü€\", attention.Sp|ec{})", []string{"type Spec struct"}},
	} {
		code, cursor := cut(t, test.code)
		got, err := k.Inspect(t.Context(), code, cursor)
		for _, want := range test.want {
			if err != nil || !got.Found || !strings.Contains(got.Text(), want) {
				t.Errorf("%q: found %v, error %v, want %q in\n%s", test.code, got.Found, err, want, got.Text())
			}
		}
	}
}

func cut(t *testing.T, code string) (string, int) {
	t.Helper()
	before, after, ok := strings.Cut(code, "|")
	if !ok {
		t.Fatalf("no cursor in %q", code)
	}
	return before + after, len([]rune(before))
}

// TestGoNBOrder: what a cell prints and what it shows come in the order of the program.
func TestGoNBOrder(t *testing.T) {
	k := goKernel(t, imports)
	const times = 200
	code := "%%\n_ = ctx\nfor i := range 200 {\n\tfmt.Printf(\"printed %d\\n\", i)\n\tnb.HTML(fmt.Sprintf(\"shown %d\", i))\n}"
	wrong, printed, shown := 0, 0, 0
	reply, err := k.Execute(t.Context(), kernel.Request{Code: code, Output: func(m kernel.Message) {
		var content struct{ Text string }
		if err := json.Unmarshal(m.Content, &content); err != nil {
			t.Error(err)
		}
		printed += strings.Count(content.Text, "printed")
		if m.Header.Type == "display_data" {
			shown++
			if printed != shown {
				wrong++
			}
		}
	}})
	if err != nil || reply.Status != "ok" || printed != times || wrong > 0 {
		t.Errorf("%d of %d printed, %d pictures stand in the wrong place; %+v, error %v", printed, times, wrong, reply, err)
	}
}

// TestGoNBErrors: what goes wrong is said in words of its own, with the cell and the line.
func TestGoNBErrors(t *testing.T) {
	k := goKernel(t, imports)
	for _, test := range []struct {
		code string
		want []string
	}{
		{"import \"github.com/janpfeifer/must\"\n%%\n\nmust.M(attention.Spec{Heads: 5}.Validate(48))", []string{"attention.heads is 5", "Cell [3] Line 4"}},
		{"%%\nfmt.Println(\"fine\")\nfmt.Println(attention.Spek{})", []string{"undefined: attention.Spek", "Cell[4]: Line 3"}},
		{"%%\nvar none []int\nfmt.Println(none[7])", []string{"index out of range [7]", "Cell [5] Line 3"}},
	} {
		reply, said, err := says(t.Context(), k, test.code, nil)
		all := said + reply.Value + strings.Join(reply.Traceback, "\n")
		if err != nil || reply.Status != "error" {
			t.Errorf("%q: %+v, error %v", test.code, reply, err)
		}
		for _, want := range test.want {
			if !strings.Contains(all, want) {
				t.Errorf("%q: want %q in\n%s", test.code, want, all)
			}
		}
	}
}

// TestGoNBInterruptTraining: a training that is interrupted says so, leaves a checkpoint and takes it up again, to the loss of one
// that nobody interrupted.
func TestGoNBInterruptTraining(t *testing.T) {
	k := goKernel(t, `import (
	"fmt"

	"github.com/elastic-attention/workbench/pkg/backend"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/ner/experiment"
	"github.com/elastic-attention/workbench/pkg/viz/nb"
	"github.com/janpfeifer/must"
)

var ctx = nb.Context()

func learn(dir string) {
	b, _, err := backend.Open(ctx, backend.Options{})
	must.M(err)
	config := must.M1(experiment.Preset("quick"))
	config.Data.Limit, config.Train.MaxUpdates = 48, 20
	config = config.Offline()
	loss := 0.0
	_, err = experiment.Run(ctx, b, config, experiment.Options{Dir: dir, Resume: true,
		Loaded: func(l experiment.Loaded) { fmt.Println("begins at update", l.ResumedAt) },
		Step: func(s train.Step) { loss = s.Loss; fmt.Println("update", s.Update) },
	})
	nb.EndInterrupted(err)
	must.M(err)
	fmt.Println("result: loss =", loss)
}`)
	dir := t.TempDir()
	cell := fmt.Sprintf("%%%%\nlearn(%q)\nfmt.Println(\"went on\")", filepath.Join(dir, "run"))
	asked := false
	reply, said, err := says(t.Context(), k, cell, func(said string) {
		if !asked && strings.Contains(said, "update 3\n") {
			asked = true
			if err := k.Interrupt(); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || reply.Status != "error" || !strings.HasSuffix(said, "signal: interrupt\n") || strings.Contains(said, "went on") {
		t.Fatalf("the interrupted cell: %+v, error %v\n%s", reply, err, said)
	}
	words := regexp.MustCompile(`training interrupted after update (\d+) of \d+: the cell was interrupted; it is saved as (\S+)`).FindStringSubmatch(said)
	if words == nil {
		t.Fatalf("the interrupted cell says\n%s", said)
	}
	state, err := train.ReadState(words[2])
	if err != nil || fmt.Sprint(state.Update) != words[1] {
		t.Fatalf("the checkpoint is of update %d, error %v; want %s", state.Update, err, words[1])
	}
	_, resumed, err := says(t.Context(), k, cell, nil)
	if err != nil || !strings.Contains(resumed, "begins at update "+words[1]+"\n") || strings.Contains(resumed, "\nupdate 3\n") {
		t.Errorf("the cell again, error %v, says\n%s", err, resumed)
	}
	_, whole, err := says(t.Context(), k, fmt.Sprintf("%%%%\nlearn(%q)", filepath.Join(dir, "whole")), nil)
	if err != nil {
		t.Fatal(err)
	}
	loss := regexp.MustCompile(`result: loss = (.*)`)
	if got, want := loss.FindString(resumed), loss.FindString(whole); got != want || want == "" {
		t.Errorf("resumed to %q, without interruption %q", got, want)
	}
}

// TestGoNBInterruptTwice: a cell that does not look at its context ends by the second interrupt, and the kernel goes on.
func TestGoNBInterruptTwice(t *testing.T) {
	k := goKernel(t, imports)
	times := 0
	reply, said, err := says(t.Context(), k, "%%\n_ = ctx\nfmt.Println(\"on\")\nfor { time.Sleep(time.Second) }", func(said string) {
		if times == 0 && strings.Contains(said, "on\n") || times == 1 && strings.Contains(said, "to end it at once\n") {
			times++
			if err := k.Interrupt(); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil || times != 2 || reply.Status != "error" || !strings.HasSuffix(said, "signal: interrupt\n") {
		t.Errorf("%d interrupts: %+v, error %v\n%s", times, reply, err, said)
	}
	if _, said, err := says(t.Context(), k, "%%\nfmt.Println(\"alive\")", nil); err != nil || said != "alive\n" {
		t.Errorf("after the interrupts: %q, error %v", said, err)
	}
}

// TestGoNBInterruptCompilation: an interrupt that comes before the program runs counts, too.
func TestGoNBInterruptCompilation(t *testing.T) {
	k := goKernel(t, imports)
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	reply, said, err := says(ctx, k, "%%\nfmt.Println(spec, os.Getpid())\nfor { time.Sleep(time.Second) }", nil)
	var stopped *kernel.StoppedError
	if !errors.As(err, &stopped) || stopped.Stuck || reply.Status != "error" {
		t.Errorf("%+v, error %v, said %q", reply, err, said)
	}
}

func TestGoNBMeasure(t *testing.T) {
	spec, err := kernel.Find(kernel.Name, kernel.DataDirs())
	if err != nil {
		t.Fatal(err)
	}
	timings, err := kernel.Measure(t.Context(), spec, kernel.MeasureOptions{Dir: os.TempDir(), Times: 1})
	if err != nil || len(timings) != 6 {
		t.Fatalf("timings %+v, error %v", timings, err)
	}
	for _, m := range timings {
		if m.First <= 0 || m.Median <= 0 || m.Times != 1 {
			t.Errorf("timing %+v", m)
		}
	}
}
