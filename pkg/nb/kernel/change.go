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

// changes make the kernel as fast as its parts are and let a cell save what it has when it is interrupted, and
// end what waits behind a cell that failed.
var changes = []change{
	{
		"the language server is used as soon as it listens; GoNB looks for the first time after 12 s, and completion waits for it",
		"internal/goexec/goplsclient/exec.go", "time.After(ConnectTimeout)", "time.After(20 * time.Millisecond)", 2,
	},
	{
		"the language server is started when the files of the workspace are there, and does not take it for a module alone: this no longer starts it",
		"internal/goexec/goexec.go", "\t\terr = s.gopls.Start()\n\t\tif err != nil {\n\t\t\tklog.Errorf(\"Failed to start `gopls`: %v\", err)\n\t\t}\n\t\tklog.V(1).Infof(\"Started `gopls`.\")\n", "", 1,
	},
	{
		"and this starts it",
		"internal/goexec/goexec.go", "// Stop stops gopls and removes temporary files and directories.\n",
		"// StartGopls starts gopls, if there is one.\nfunc (s *State) StartGopls() {\n\tif s.gopls != nil {\n\t\t_ = os.WriteFile(path.Join(s.TempDir, MainGo), []byte(\"package main\\n\\nfunc main() {}\\n\"), 0600)\n\t\tif err := s.gopls.Start(); err != nil {\n\t\t\tklog.Errorf(\"Failed to start `gopls`: %v\", err)\n\t\t}\n\t}\n}\n\n// Stop stops gopls and removes temporary files and directories.\n", 1,
	},
	{
		"at this time",
		"main.go", "\t// Orchestrate dispatching of messages.\n", "\tgoExec.StartGopls()\n\n\t// Orchestrate dispatching of messages.\n", 1,
	},
	{
		"the language server takes the program from GoNB from the beginning on, and does not read it while it is written: it would never learn of its imports",
		"internal/goexec/goplsclient/exec.go", "\t\t\t\t// Connected!\n", "\t\t\t\tfor _, name := range []string{\"main.go\", \"go.mod\", \"go.work\"} {\n\t\t\t\t\t_ = c.NotifyDidOpenOrChange(ctx, c.dir+\"/\"+name)\n\t\t\t\t}\n", 1,
	},
	{
		"the language server learns what a cell imports while the cell runs, and not when somebody asks: this tells it",
		"internal/goexec/inspect.go", "// runeIndicesForLine returns",
		"// tellGopls tells gopls, if there is one, of the files as they are, and asks it something, so that it reads them.\nfunc (s *State) tellGopls() {\n\tif s.gopls != nil && s.notifyAboutStandardAndTrackedFiles(context.Background()) == nil {\n\t\t_, _ = s.gopls.CallHover(context.Background(), path.Join(s.TempDir, MainGo), 0, 0)\n\t}\n}\n\n// runeIndicesForLine returns", 1,
	},
	{
		"when the cell is compiled",
		"internal/goexec/execcode.go", "\t// Compilation successful: save merged", "\tgo s.tellGopls()\n\n\t// Compilation successful: save merged", 1,
	},
	{
		"on a busy machine the language server may take longer than GoNB's 8 s to load what is imported",
		"internal/goexec/goplsclient/conn.go", "CommunicationTimeout = 8000 * time.Millisecond", "CommunicationTimeout = 30 * time.Second", 1,
	},
	{
		"the language server answers and does not diagnose, which nobody sees in a notebook: it would analyse all that is imported for a minute",
		"internal/goexec/goplsclient/conn.go", "\t\t// Capabilities:          lsp.ClientCapabilities{},\n", "\t\tInitializationOptions: map[string]any{\"diagnosticsTrigger\": \"Save\", \"expandWorkspaceToModule\": false},\n", 1,
	},
	{
		"columns are counted in UTF-16, as the language server does, and not in bytes: this counts",
		"internal/goexec/goplsclient/goplsclient.go", "// Span returns the text spanning",
		"// column16 is a column of bytes counted in UTF-16.\nfunc (c *Client) column16(filePath string, line, col int) (n int) {\n\tc.mu.Lock()\n\tdefer c.mu.Unlock()\n\tf := c.fileCache[filePath]\n\tif f == nil || line < 0 || line >= len(f.LineStarts) {\n\t\treturn col\n\t}\n\tstart := f.LineStarts[line]\n\tfor _, r := range f.Content[start:min(start+col, len(f.Content))] {\n\t\tif n++; r > 0xFFFF {\n\t\t\tn++\n\t\t}\n\t}\n\treturn n\n}\n\n// Span returns the text spanning", 1,
	},
	{
		"this for completion",
		"internal/goexec/goplsclient/goplsclient.go", "\tvar items *lsp.CompletionList\n", "\tcol = c.column16(filePath, line, col)\n\tvar items *lsp.CompletionList\n", 1,
	},
	{
		"and this for inspection",
		"internal/goexec/goplsclient/goplsclient.go", "\tvar results []lsp.Location\n", "\tcol = c.column16(filePath, line, col)\n\tvar results []lsp.Location\n", 1,
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
		"a change of a file replaces it; GoNB's says that the new text was inserted before the old one, all of which stays",
		"internal/goexec/goplsclient/conn.go",
		"\t\tContentChanges: []lsp.TextDocumentContentChangeEvent{\n\t\t\t{\n\t\t\t\tText: fileData.Content,\n\t\t\t},\n\t\t},\n\t}\n\terr = c.jsonConn.Notify(ctx, lsp.MethodTextDocumentDidChange, params)",
		"\t}\n\terr = c.jsonConn.Notify(ctx, lsp.MethodTextDocumentDidChange, map[string]any{\n\t\t\"textDocument\": params.TextDocument, \"contentChanges\": []map[string]string{{\"text\": fileData.Content}},\n\t})", 1,
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
	{
		"the cells that wait behind one that failed are given up, as the protocol says; GoNB executes them: these are taken from the queue",
		"internal/dispatcher/dispatcher.go", "\t// Send the output back to the notebook.\n",
		"\tvar waiting []kernel.Message\n\tif stop, ok := content[\"stop_on_error\"].(bool); executionErr != nil && (stop || !ok) {\n\t\twaiting = takeWaiting()\n\t}\n\n\t// Send the output back to the notebook.\n", 1,
	},
	{
		"and these are told so, behind the answer to the one that failed",
		"internal/dispatcher/dispatcher.go", "publish 'execute_reply`\")\n\t}\n\treturn nil\n}\n",
		"publish 'execute_reply`\")\n\t}\n\tfor _, w := range waiting {\n\t\tif err := giveUp(w); err != nil {\n\t\t\treturn err\n\t\t}\n\t}\n\treturn nil\n}\n\n" +
			"// takeWaiting takes the cells that wait to be executed from the queue.\nfunc takeWaiting() (waiting []kernel.Message) {\n\tfor range len(busyMessagesChan) {\n\t\tp, ok := <-busyMessagesChan\n\t\tif !ok {\n\t\t\tbreak\n\t\t}\n\t\tif p.msg.ComposedMsg().Header.MsgType == \"execute_request\" {\n\t\t\twaiting = append(waiting, p.msg)\n\t\t} else {\n\t\t\tSendNoBlock(busyMessagesChan, p)\n\t\t}\n\t}\n\treturn waiting\n}\n\n" +
			"// giveUp answers a cell that is not executed.\nfunc giveUp(msg kernel.Message) error {\n\tif err := kernel.PublishKernelStatus(msg, kernel.StatusBusy); err != nil {\n\t\treturn err\n\t}\n\tif err := msg.Reply(\"execute_reply\", map[string]any{\"status\": \"aborted\"}); err != nil {\n\t\treturn err\n\t}\n\treturn kernel.PublishKernelStatus(msg, kernel.StatusIdle)\n}\n", 1,
	},
	{
		"a front end learns that the kernel is idle from the answer to its first question, that for the history, which GoNB leaves unanswered: this takes the question",
		"internal/dispatcher/dispatcher.go", "\t\"kernel_info_request\",\n\t//", "\t\"kernel_info_request\", \"history_request\",\n\t//", 1,
	},
	{
		"and this says that there is none",
		"internal/dispatcher/dispatcher.go", "\tcase \"inspect_request\":\n", "\tcase \"history_request\":\n\t\terr = msg.Reply(\"history_reply\", map[string]any{\"status\": \"ok\", \"history\": []any{}})\n\tcase \"inspect_request\":\n", 1,
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
