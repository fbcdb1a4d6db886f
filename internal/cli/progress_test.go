package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/data/hub"
)

// TestFetchingTells: a folder that does not have a file is no news, a server that does not
// answer is, and then also which source has served.
func TestFetchingTells(t *testing.T) {
	var out strings.Builder
	tell := fetching(&out)
	for _, e := range []hub.Event{
		{File: "a", Stage: hub.StageFailed, Source: "folder:m/a", Err: fmt.Errorf("neither a nor a.gz: %w", fs.ErrNotExist)},
		{File: "a", Stage: hub.StageFailed, Source: "https://there", Err: errors.New("no such host")},
		{File: "a", Stage: hub.StageDone, Source: "wheel/a"},
		{File: "b", Stage: hub.StageFailed, Source: "folder:m/b", Err: fs.ErrNotExist},
		{File: "b", Stage: hub.StageDone, Source: "wheel/b"},
	} {
		e.Resource = "m"
		tell(e)
	}
	if want := "m/a: https://there: no such host\nm/a: got from wheel/a\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
