package kernel

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// change is a change to a file of GoNB. The old text must be there, so many times, so that a new version of GoNB is looked at.
type change struct {
	why      string
	file     string // below the root of its module
	old, new string
	times    int
}

// changes make the kernel as fast as its parts are and let a cell save what it has when it is interrupted.
var changes = []change{
	{
		"the language server is used as soon as it listens; GoNB looks for the first time after 12 s, and completion waits for it",
		"internal/goexec/goplsclient/exec.go", "time.After(ConnectTimeout)", "time.After(20 * time.Millisecond)", 2,
	},
	{
		"the language server reads files that nobody has changed by itself; GoNB sends it each file of the checkout, to be analysed as if it were edited",
		"internal/goexec/tracking.go", "\t\t\tif !ti.updated.Has(path) {\n\t\t\t\tti.updated.Insert(path)\n", "\t\t\tif !ti.updated.Has(path) {\n", 1,
	},
	{
		"the same for files that are named",
		"internal/goexec/tracking.go", "\t} else {\n\t\tti.updated.Insert(fileOrDirPath)\n\t}\n", "\t}\n", 1,
	},
	{
		"a training that was interrupted has the time to save a checkpoint; GoNB kills it after 5 s",
		"internal/jpyexec/jpyexec.go", "var WaitToKill = 5 * time.Second", "var WaitToKill = 30 * time.Second", 1,
	},
	{
		"a second interrupt reaches the cell, and ends it at once",
		"internal/jpyexec/jpyexec.go", "\t\terr := cmd.Process.Signal(os.Interrupt)\n\t\texec.Msg.Kernel().UnsubscribeInterrupt(interruptId)\n", "\t\terr := cmd.Process.Signal(os.Interrupt)\n", 1,
	},
	{
		"an interrupt counts while a cell is compiled, too: this notes it",
		"internal/dispatcher/dispatcher.go", "\t\t\tmsg.Kernel().CallInterruptSubscribers()\n\t\t\treplyContent :=", "\t\t\tmsg.Kernel().Interrupted.Store(true)\n\t\t\tmsg.Kernel().CallInterruptSubscribers()\n\t\t\treplyContent :=", 1,
	},
	{
		"and this obeys",
		"internal/goexec/execcode.go", "\t// Execute compiled code.\n", "\tif msg != nil && msg.Kernel().Interrupted.Load() {\n\t\treturn errors.New(\"interrupted before it ran\")\n\t}\n", 1,
	},
}

// apply makes the changes in a copy of GoNB's module.
func apply(dir string, changes []change) error {
	for _, c := range changes {
		path := filepath.Join(dir, filepath.FromSlash(c.file))
		content, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("changing GoNB so that %s: %w", c.why, err)
		}
		if found := strings.Count(string(content), c.old); found != c.times {
			return fmt.Errorf("changing GoNB so that %s: %s has the text %q %d times, want %d: this version of GoNB must be looked at", c.why, c.file, c.old, found, c.times)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(content), c.old, c.new)), 0o644); err != nil {
			return fmt.Errorf("changing GoNB so that %s: %w", c.why, err)
		}
	}
	return nil
}
