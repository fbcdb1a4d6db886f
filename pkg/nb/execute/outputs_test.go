package execute

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/kernel"
)

// TestChattyCell: what a cell prints line by line takes memory for each line once, not for all lines before it too.
func TestChattyCell(t *testing.T) {
	const lines = 10_000
	line := strings.Repeat("x", 99) + "\n"
	content, err := json.Marshal(map[string]string{"name": "stdout", "text": line})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var s screen
	cell := &nb.Cell{}
	s.begin(cell)
	for range lines {
		s.take(kernel.Message{Header: kernel.Header{Type: "stream"}, Content: content})
	}
	s.end()
	runtime.ReadMemStats(&after)
	if len(cell.Outputs) != 1 || cell.Outputs[0].Text != strings.Repeat(line, lines) {
		t.Errorf("%d outputs, %d bytes", len(cell.Outputs), len(cell.Text("stdout")))
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 200<<20 {
		t.Errorf("a megabyte of lines took %d MB", got>>20)
	}
}
