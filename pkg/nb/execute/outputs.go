package execute

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"

	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/kernel"
)

// screen turns what a kernel publishes into outputs of cells.
type screen struct {
	cell    *nb.Cell
	clear   bool                            // the next output clears those before it
	blocks  map[string][]*nb.Output         // by display ID, in all cells
	texts   map[*nb.Output]*strings.Builder // what the streams of the cell get in the end
	refused bool                            // an error was published
}

// begin makes a cell the one that outputs go to.
func (s *screen) begin(cell *nb.Cell) {
	if s.blocks == nil {
		s.blocks = map[string][]*nb.Output{}
	}
	s.cell, s.clear, s.refused, s.texts = cell, false, false, map[*nb.Output]*strings.Builder{}
	cell.Outputs, cell.Count = nil, 0
}

// take takes one message. What cannot be read is left out, as every front end does.
func (s *screen) take(m kernel.Message) {
	var c struct {
		Name, Text string
		Data       map[string]any
		Metadata   map[string]any
		Transient  struct {
			ID string `json:"display_id"`
		}
		Wait          bool
		Ename, Evalue string
		Traceback     []string
		Count         int `json:"execution_count"`
	}
	decoder := json.NewDecoder(bytes.NewReader(m.Content))
	decoder.UseNumber()
	if decoder.Decode(&c) != nil {
		return
	}
	switch m.Header.Type {
	case "clear_output":
		if s.clear = c.Wait; !c.Wait {
			s.cell.Outputs = nil
		}
	case "stream":
		into := s.last()
		if into == nil || into.Kind != nb.Stream || into.Name != c.Name {
			into = &nb.Output{Kind: nb.Stream, Name: c.Name}
			s.texts[into] = &strings.Builder{}
			s.add(into)
		}
		s.texts[into].WriteString(c.Text)
	case "display_data", "execute_result":
		o := &nb.Output{Kind: m.Header.Type, Data: c.Data, Metadata: c.Metadata}
		if o.Kind == nb.Result {
			o.Count = c.Count
		}
		s.add(o)
		if id := c.Transient.ID; id != "" {
			s.blocks[id] = append(s.blocks[id], o)
		}
	case "update_display_data":
		for _, o := range s.blocks[c.Transient.ID] {
			o.Data, o.Metadata = c.Data, c.Metadata
		}
	case "error":
		s.refused = true
		s.add(&nb.Output{Kind: nb.Error, Name: c.Ename, Text: c.Evalue, Traceback: c.Traceback})
	}
}

func (s *screen) last() *nb.Output {
	if n := len(s.cell.Outputs); n > 0 && !s.clear {
		return s.cell.Outputs[n-1]
	}
	return nil
}

func (s *screen) add(o *nb.Output) {
	if s.clear {
		s.cell.Outputs, s.clear = nil, false
	}
	s.cell.Outputs = append(s.cell.Outputs, o)
}

// overwritten is a line, or what was written of it, that a carriage return begins anew: progress bars.
var overwritten = regexp.MustCompile(`(?m)^[^\n]*\r([^\n\r])`)

// end tidies the outputs of a cell that is over: texts as a terminal would show them in the end, and no block that was
// emptied.
func (s *screen) end() {
	kept := s.cell.Outputs[:0]
	for _, o := range s.cell.Outputs {
		if o.Kind == nb.Stream {
			o.Text = overwritten.ReplaceAllString(s.texts[o].String(), "$1")
		}
		if o.Kind == nb.Display && empty(o.Data) {
			continue
		}
		kept = append(kept, o)
	}
	s.cell.Outputs = kept
}

func empty(data map[string]any) bool {
	for _, value := range data {
		if text, ok := value.(string); !ok || strings.TrimSpace(text) != "" {
			return false
		}
	}
	return true
}
