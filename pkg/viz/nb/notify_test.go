package nb

import (
	"strings"
	"testing"
)

func TestNotify(t *testing.T) {
	var shown []string
	s := screen{on: true, live: true, update: func(_, html string) { shown = append(shown, html) }}
	s.notify(`ends </script> "now"`)
	if len(shown) != 2 || shown[1] != "" {
		t.Fatalf("shown %q, want a script that is taken away", shown)
	}
	if strings.Count(shown[0], "</script>") != 1 || !strings.Contains(shown[0], `{body: "ends \u003c/script\u003e \"now\""}`) {
		t.Errorf("script %s", shown[0])
	}
	s.live = false
	if s.notify("x"); len(shown) != 2 {
		t.Error("headless, but shown")
	}
}
