package nb

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/elastic-attention/workbench/pkg/memo"
)

// Cache returns the cache for what one cell leaves to another, which are programs of their own and share no values:
//
//	dir, err := nb.Cache().Folder(ctx, "model", params, func(dir string) error { return train().Save(dir) })
//	report, err := memo.Of(ctx, nb.Cache(), "report", params, func() (Report, error) { return evaluate(dir) })
//
// In a notebook that somebody works in it lasts, so that nothing is trained again after the kernel has begun anew, and
// says on standard error where values came from. A notebook that a runner executes ([HeadlessEnv]) computes all values
// anew, once: its cache goes away with the kernel, and is silent, so that outputs do not depend on what was before.
func Cache() *memo.Cache {
	if os.Getenv(HeadlessEnv) != "" {
		return &memo.Cache{Dir: filepath.Join(base(), kept, "memo")}
	}
	return &memo.Cache{Tell: func(line string) { fmt.Fprintln(os.Stderr, line) }}
}
