package nb

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/janpfeifer/gonb/gonbui"
)

// recorder is a screen that keeps what it is asked to show.
func recorder(on, live bool) (screen, *[]string) {
	var shown []string
	return screen{
		on: on, live: live,
		display:  func(html string) { shown = append(shown, "display "+html) },
		markdown: func(string) {},
		update: func(_, html string) {
			html, used, _ := strings.Cut(html, "<div")
			if runtime.GOOS == "linux" && html != "" && !strings.Contains(used, " MB") {
				html += ", but not what is used: " + used
			}
			shown = append(shown, "update "+html)
		},
	}, &shown
}

func TestLive(t *testing.T) {
	for _, test := range []struct {
		name     string
		on, live bool
		want     []string
	}{
		{"notebook", true, true, []string{"update 0", "update 5", "update 10", "update ", "display end"}},
		{"headless", true, false, []string{"display end"}},
		{"no notebook", false, false, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, shown := recorder(test.on, test.live)
				l := newLive(s)
				for step := range 12 {
					l.Update(func() string { return fmt.Sprint(step) })
					time.Sleep(Interval / 5)
				}
				l.Done(func() string { return "end" })
				l.Done(func() string { return "twice" })
				l.Update(func() string { return "late" })
				if diff := cmp.Diff(test.want, *shown); diff != "" {
					t.Errorf("shown (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestLiveDoneOnly(t *testing.T) {
	s, shown := recorder(true, true)
	newLive(s).Done(func() string { return "end" })
	if diff := cmp.Diff([]string{"display end"}, *shown); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
}

func TestRenderIsLazy(t *testing.T) {
	s, _ := recorder(true, false)
	newLive(s).Update(func() string {
		t.Error("render was called although nobody watches")
		return ""
	})
}

// Outside a notebook nothing may block or fail.
func TestOutside(t *testing.T) {
	if gonbui.IsNotebook {
		t.Skip("runs in a notebook")
	}
	HTML("<b>x</b>")
	SVG("<svg></svg>")
	l := NewLive()
	l.Update(func() string { return "x" })
	l.Done(func() string { return "x" })
}

func ExampleMarkdown() {
	Markdown("**F1** 0.75")
	// Output: **F1** 0.75
}

func ExampleLive() {
	live := NewLive()
	for step := range 3 {
		live.Update(func() string { return fmt.Sprintf("<p>step %d</p>", step) })
	}
	live.Done(func() string { return "<p>finished</p>" })
	// Output:
}
