package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/elastic-attention/workbench/pkg/data/hub"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/control"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/track/usage"
)

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	if o, ok := w.(*output); ok {
		w = o.Writer
	}
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// bar shows one task's progress: a bar on a terminal, else a line now and then.
type bar struct {
	w        io.Writer
	label    string
	terminal *progressbar.ProgressBar
	last     time.Time // of the last line, and what it said
	done     int64
	bytes    bool
}

// lineEvery is the time between two lines where there is no terminal.
const lineEvery = 10 * time.Second

func newBar(w io.Writer, label string, total int64, bytes bool) *bar {
	b := &bar{w: w, label: label, bytes: bytes, last: time.Now()}
	if isTerminal(w) {
		options := []progressbar.Option{
			progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(label), progressbar.OptionThrottle(100 * time.Millisecond),
			progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(true), progressbar.OptionShowCount(), progressbar.OptionSetElapsedTime(true),
			progressbar.OptionSetWidth(24), progressbar.OptionFullWidth(),
		}
		if bytes {
			options = append(options, progressbar.OptionShowBytes(true))
		}
		b.terminal = progressbar.NewOptions64(total, options...)
	}
	return b
}

// set shows how much is done; text stands beside it.
func (b *bar) set(done, total int64, text string) {
	if b.terminal != nil {
		if text != "" {
			b.terminal.Describe(b.label + "  " + text)
		}
		_ = b.terminal.Set64(done)
		return
	}
	if done == b.done || time.Since(b.last) < lineEvery && done < total {
		return
	}
	b.last, b.done = time.Now(), done
	count := fmt.Sprintf("%d/%d", done, total)
	if b.bytes {
		count = fmt.Sprintf("%.1f/%.1f MB", float64(done)/1e6, float64(total)/1e6)
	}
	fmt.Fprintln(b.w, strings.TrimSpace(b.label+" "+count+"  "+text))
}

// finish takes the bar away.
func (b *bar) finish() {
	if b != nil && b.terminal != nil {
		_ = b.terminal.Finish()
	}
}

// trainProgress shows the updates of a run.
type trainProgress struct {
	w         io.Writer
	started   time.Time // of the command
	bar       *bar
	begin     time.Time
	first     int
	positions int
	loss      float64 // running mean
	meter     *usage.Meter
}

// newTrainProgress shows also what is left of the disk of a folder.
func newTrainProgress(w io.Writer, folder string) *trainProgress {
	return &trainProgress{w: w, started: time.Now(), meter: usage.New(folder)}
}

func (p *trainProgress) step(s train.Step) {
	if p.bar == nil {
		fmt.Fprintf(p.w, "first update after %.1f s\n", time.Since(p.started).Seconds())
		p.bar = newBar(p.w, "training", int64(s.Total), false)
		p.begin, p.first, p.loss = time.Now().Add(-s.Elapsed), s.Update-1, s.Loss
	}
	p.positions += s.Positions
	p.loss += (s.Loss - p.loss) * 0.05
	elapsed := time.Since(p.begin)
	left := time.Duration(float64(elapsed) / float64(s.Update-p.first) * float64(s.Total-s.Update)).Round(time.Second)
	text := fmt.Sprintf("epoch %d  loss %.4f  lr %.2e  %.0f tokens/s", s.Epoch+1, p.loss, s.Rate, float64(p.positions)/elapsed.Seconds())
	if p.bar.terminal == nil {
		text += fmt.Sprintf("  %.2f updates/s", float64(s.Update-p.first)/elapsed.Seconds())
		if s.Update-p.first >= foretell {
			text += fmt.Sprintf("  %s left", left)
		}
	}
	p.bar.set(int64(s.Update), int64(s.Total), text+"  "+p.meter.Latest().String())
}

// event tells what was done to the run.
func (p *trainProgress) event(e control.Event) {
	p.pause()
	fmt.Fprintln(p.w, eventLine(e))
}

// eventLine says what was done to a run, and why.
func eventLine(e control.Event) string {
	return fmt.Sprintf("update %d: %s: %s; factor of the learning rate %.3g", e.Update, describe(e), e.Reason, e.Factor)
}

// describe names what an event is.
func describe(e control.Event) string {
	if e.Controller == e.Action {
		return e.Action
	}
	return strings.ReplaceAll(e.Controller, "_", " ") + ": " + e.Action
}

// foretell is the number of updates from which the time that is left is told: before, it is
// the compilations that take the time.
const foretell = 10

// pause takes the bar away so that something can be printed; the next step brings it back.
func (p *trainProgress) pause() {
	if p.bar != nil && p.bar.terminal != nil {
		_ = p.bar.terminal.Clear()
	}
}

// evaluation returns a callback that shows how far an evaluation is.
func evaluation(w io.Writer) func(done, total int) {
	var b *bar
	return func(done, total int) {
		if b == nil {
			b = newBar(w, "evaluating", int64(total), false)
		}
		b.set(int64(done), int64(total), "")
		if done == total {
			b.finish()
			b = nil
		}
	}
}

// fetching returns a callback that shows downloads.
func fetching(w io.Writer) func(hub.Event) {
	var b *bar
	var file string
	failed := false // a source of the file, so that the one that serves is worth a line
	return func(e hub.Event) {
		if e.File != file {
			failed = false
		}
		if e.File != file || e.Stage != hub.StageProgress {
			b.finish()
			b, file = nil, e.File
		}
		switch e.Stage {
		case hub.StageProgress:
			if e.Total <= 0 {
				return
			}
			if b == nil {
				b = newBar(w, "fetching "+e.Resource+"/"+e.File, e.Total, true)
			}
			b.set(e.Done, e.Total, "")
		case hub.StageRetry, hub.StageFailed:
			if strings.HasPrefix(e.Source, "folder:") && errors.Is(e.Err, fs.ErrNotExist) {
				return // a folder of data sets need not have everything
			}
			failed = true
			fmt.Fprintf(w, "%s/%s: %s: %v\n", e.Resource, e.File, e.Source, e.Err)
		case hub.StageDone:
			if failed {
				fmt.Fprintf(w, "%s/%s: got from %s\n", e.Resource, e.File, e.Source)
			}
		}
	}
}
