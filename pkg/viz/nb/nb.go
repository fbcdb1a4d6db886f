// Package nb shows text, tables and pictures in a GoNB notebook.
//
// A cell's program is a process of its own; what it shows goes to the notebook through GoNB. Outside a notebook,
// where the same code may run in a test or a command, [HTML] and [SVG] show nothing and [Markdown] prints its text.
//
// A [Live] block is redrawn while a training runs:
//
//	live := nb.NewLive()
//	for step := range steps {
//		...
//		live.Update(func() string { return lossCurve(history) })
//	}
//	live.Done(func() string { return lossCurve(history) })
package nb

import (
	"fmt"
	"html"
	"io"
	"os"
	"sync"
	"time"

	"github.com/janpfeifer/gonb/gonbui"

	"github.com/elastic-attention/workbench/pkg/track/usage"
)

// HeadlessEnv names the environment variable that says, if set, that nobody watches: the notebook is executed by a
// runner. [Live] then draws its final picture only, so that executed notebooks do not depend on timing.
const HeadlessEnv = "NB_HEADLESS"

// Interval is the shortest time between two pictures of a [Live] block.
const Interval = 500 * time.Millisecond

// HTML shows html as output of the cell. Outside a notebook it does nothing.
func HTML(html string) { notebook.display(html) }

// SVG shows a picture as output of the cell. Outside a notebook it does nothing.
func SVG(svg string) { notebook.display("<div>" + svg + "</div>") }

// Markdown shows markdown, with formulas between dollar signs, as output of the cell. Outside a notebook it prints
// the text to standard output.
func Markdown(markdown string) { notebook.markdown(markdown) }

// Live is one block of output that is redrawn in place, and says below the picture what the program uses of the machine. It is safe for concurrent use. The zero value is not usable;
// call [NewLive].
type Live struct {
	mu     sync.Mutex
	screen screen
	id     string
	drawn  bool
	done   bool
	last   time.Time
	meter  *usage.Meter
}

// NewLive returns an empty block. It appears with the first [Live.Update].
func NewLive() *Live { return newLive(notebook) }

func newLive(s screen) *Live {
	return &Live{screen: s, id: "live_" + gonbui.UniqueId(), meter: usage.New(".")}
}

// Update redraws the block with the HTML (or SVG) that render returns. It draws at most once in [Interval]; render is
// not called when the picture would not be drawn, so Update may be called at every step.
func (l *Live) Update(render func() string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done || !l.screen.live || l.drawn && time.Since(l.last) < Interval {
		return
	}
	l.screen.update(l.id, render()+`<div style="opacity:.6">`+html.EscapeString(l.meter.Latest().String())+`</div>`)
	// Counted from the end: a picture that takes long to draw must not take all the time.
	l.drawn, l.last = true, time.Now()
}

// Done shows the final picture as lasting output of the cell: the redrawn block itself is not kept when the notebook is
// saved, so it is emptied first. Calls after the first do nothing, as does Update.
func (l *Live) Done(render func() string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return
	}
	l.done = true
	if l.drawn {
		l.screen.update(l.id, "")
	}
	if l.screen.on {
		l.screen.display(render())
	}
}

// screen is where output goes; tests have their own.
type screen struct {
	on, live bool
	display  func(html string)
	markdown func(markdown string)
	update   func(id, html string)
}

// notebook is the screen of this process. Each display comes behind what was printed before it, and waits until the kernel
// has it: a program that ends, or panics, right after it would else lose it.
var notebook = screen{
	on:   gonbui.IsNotebook,
	live: gonbui.IsNotebook && os.Getenv(HeadlessEnv) == "",
	display: func(html string) {
		if !gonbui.IsNotebook {
			return
		}
		awaitPrinted()
		gonbui.DisplayHTML(html)
		gonbui.Sync()
	},
	markdown: func(markdown string) {
		if !gonbui.IsNotebook {
			printMarkdown(os.Stdout, markdown)
			return
		}
		awaitPrinted()
		gonbui.DisplayMarkdown(markdown)
		gonbui.Sync()
	},
	update: gonbui.UpdateHTML,
}

func printMarkdown(w io.Writer, markdown string) { _, _ = fmt.Fprintln(w, markdown) }
