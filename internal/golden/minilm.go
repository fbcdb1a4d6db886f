package golden

import (
	"testing"

	"github.com/elastic-attention/workbench/pkg/data/hub"
)

// MiniLM returns the folder of the MiniLM-L6 weights in the cache. They are 90 MB of
// another project and no part of the repository, so the test is skipped where they
// were not fetched.
func MiniLM(tb testing.TB) string {
	tb.Helper()
	resource, err := hub.Lookup(hub.MiniLML6)
	if err != nil {
		tb.Fatal(err)
	}
	client := &hub.Client{Offline: true}
	if !client.Cached(resource) {
		tb.Skip("needs the MiniLM weights: bin/elastic fetch minilm-l6")
	}
	dir, err := client.Dir(resource)
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}
