package track

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"
)

// Point is one value of a series.
type Point struct {
	Step  int
	Time  time.Time
	Value float64

	line int // of the journal, to tell what came first
}

// Series is what one metric of a run was, in the order in which it was logged.
type Series struct {
	Name   string
	Points []Point
}

// History is what a journal holds. [History.Update] reads what has been written since, so that a run can be followed.
type History struct {
	// Begun is when the first process began, Ended when the last one did; zero while it goes on or if it died.
	Begun, Ended time.Time
	// Machines are those of the run's processes.
	Machines []Machine
	// Status is Finished, Failed or Interrupted as the run's end says, or Running, if it has not ended: whether its process
	// lives still is not looked at here.
	Status Status
	Error  string
	// Artefacts have one entry for each path, the last that was noted.
	Artefacts []Artefact
	// Rewound counts how often points lost their place because a process went on from an earlier step.
	Rewound int
	// Damaged counts lines that are not as they were written, and were passed over.
	Damaged int

	path   string
	offset int64
	lines  int
	last   time.Time // when the last event happened
	pauses []pause
	series map[string]*Series
}

// pause is when no process was at work: from the last event of one to the beginning of the next.
type pause struct{ from, to time.Time }

// Paused is how long no process was at work in between, of a run that was started then: what its folder held before, as of
// one that failed before it had saved anything, is none of it.
func (h *History) Paused(started time.Time) (sum time.Duration) {
	started = started.Truncate(time.Millisecond) // as events are
	for _, p := range h.pauses {
		if !p.from.Before(started) {
			sum += max(0, p.to.Sub(p.from)) // clocks may be put back
		}
	}
	return sum
}

// ReadHistory reads the journal of a run folder. The error wraps [fs.ErrNotExist] if there is none.
func ReadHistory(dir string) (*History, error) {
	h := &History{path: filepath.Join(dir, JournalFile)}
	return h, h.Update()
}

// Update reads what was written since the last time. A line that is not written to its end is left for later. A
// journal that has become shorter is another one, and is read from its beginning.
func (h *History) Update() error {
	file, err := os.Open(h.path)
	if err != nil {
		return fmt.Errorf("reading a journal: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("reading %s: %w", h.path, err)
	}
	if info.Size() < h.offset || h.series == nil {
		*h = History{path: h.path, Status: Running, series: map[string]*Series{}}
	}
	// The size of the moment: a writer could otherwise keep us here.
	content := make([]byte, info.Size()-h.offset)
	n, err := file.ReadAt(content, h.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading %s: %w", h.path, err)
	}
	for content = content[:n]; ; {
		line, rest, ended := bytes.Cut(content, []byte("\n"))
		if !ended {
			return nil
		}
		h.offset += int64(len(content) - len(rest))
		content = rest
		h.lines++
		var e event
		if !whole(line) || json.Unmarshal(line, &e) != nil {
			h.Damaged++
			continue
		}
		h.apply(e)
	}
}

func (h *History) apply(e event) {
	at := time.UnixMilli(e.Time).UTC()
	defer func() { h.last = at }()
	switch e.Event {
	case eventBegin:
		if h.Begun.IsZero() {
			h.Begun = at
		} else {
			h.pauses = append(h.pauses, pause{h.last, at})
		}
		if e.Machine != nil {
			h.Machines = append(h.Machines, *e.Machine)
		}
		h.Status, h.Error, h.Ended = Running, "", time.Time{}
		h.rewind(e.Step)
	case eventMetrics:
		for name, value := range e.Values {
			s := h.series[name]
			if s == nil {
				s = &Series{Name: name}
				h.series[name] = s
			}
			s.Points = append(s.Points, Point{Step: e.Step, Time: at, Value: float64(value), line: h.lines})
		}
	case eventArtefact:
		if e.Artefact == nil {
			return
		}
		h.Artefacts = slices.DeleteFunc(h.Artefacts, func(a Artefact) bool { return a.Path == e.Artefact.Path })
		h.Artefacts = append(h.Artefacts, *e.Artefact)
	case eventEnd:
		if e.Status == Killed { // what journals of before there was the word say of an interruption: who is killed writes nothing
			e.Status = Interrupted
		}
		h.Status, h.Error, h.Ended = e.Status, e.Error, at
	}
}

// rewind forgets the points behind a step.
func (h *History) rewind(step int) {
	lost := 0
	for name, s := range h.series {
		before := len(s.Points)
		s.Points = slices.DeleteFunc(s.Points, func(p Point) bool { return p.Step > step })
		lost += before - len(s.Points)
		if len(s.Points) == 0 {
			delete(h.series, name)
		}
	}
	if step == 0 { // a fresh run in an old folder
		h.Artefacts = nil
	}
	if lost > 0 {
		h.Rewound++
	}
}

// Series returns the curves, sorted by name. They must not be changed.
func (h *History) Series() []Series {
	list := make([]Series, 0, len(h.series))
	for _, name := range slices.Sorted(maps.Keys(h.series)) {
		list = append(list, *h.series[name])
	}
	return list
}

// Value is a point with the name of its series.
type Value struct {
	Name string
	Point
}

// Ordered returns all points in the order in which they were logged, those of one call by name. What is logged later, and no
// rewinding, does not change the order of those before.
func Ordered(series []Series) []Value {
	var all []Value
	for _, s := range series {
		for _, p := range s.Points {
			all = append(all, Value{s.Name, p})
		}
	}
	slices.SortStableFunc(all, func(a, b Value) int {
		return cmp.Or(cmp.Compare(a.line, b.line), a.Time.Compare(b.Time), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// Metric sums a series up.
type Metric struct {
	Name string `json:"name"`
	// Count is the number of points; Step and Last are of the last one.
	Count int     `json:"count"`
	Step  int     `json:"step"`
	Last  float64 `json:"last"`
	// Min and Max leave out NaN; they are NaN if there is nothing else.
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

// MarshalJSON writes NaN and infinities as words.
func (m Metric) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name  string `json:"name"`
		Count int    `json:"count"`
		Step  int    `json:"step"`
		Last  number `json:"last"`
		Min   number `json:"min"`
		Max   number `json:"max"`
	}{m.Name, m.Count, m.Step, number(m.Last), number(m.Min), number(m.Max)})
}

func (s Series) metric() Metric {
	last := s.Points[len(s.Points)-1]
	m := Metric{Name: s.Name, Count: len(s.Points), Step: last.Step, Last: last.Value, Min: math.NaN(), Max: math.NaN()}
	for _, p := range s.Points {
		if !(p.Value >= m.Min) && !math.IsNaN(p.Value) {
			m.Min = p.Value
		}
		if !(p.Value <= m.Max) && !math.IsNaN(p.Value) {
			m.Max = p.Value
		}
	}
	return m
}

// Metrics sums up all series, sorted by name.
func (h *History) Metrics() []Metric {
	series := h.Series()
	list := make([]Metric, len(series))
	for i, s := range series {
		list[i] = s.metric()
	}
	return list
}

// alive reports whether a process is writing the journal of a run folder.
func alive(dir string) bool {
	path := filepath.Join(dir, lockFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false
	}
	lock := flock.New(path, flock.SetFlag(os.O_RDONLY))
	defer lock.Close()
	free, err := lock.TryRLock()
	return err == nil && !free // where locks do not work, it cannot be told: then not
}
