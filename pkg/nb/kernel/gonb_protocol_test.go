//go:build selftest

package kernel

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"
)

// TestGoNBGivesUp: cells that wait behind one that failed are not executed, unless the client wants them to; what is asked
// later is answered.
func TestGoNBGivesUp(t *testing.T) {
	spec, err := Find(Name, DataDirs())
	if err != nil {
		t.Fatal(err)
	}
	k, err := Start(t.Context(), spec, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for _, test := range []struct {
		stop bool
		want []string
	}{
		{true, []string{"ok", "error", "aborted", "aborted"}},
		{false, []string{"ok", "error", "ok", "ok"}},
	} {
		var ids, statuses []string
		for _, code := range []string{"%noautoget", "%%\npanic(1)", "%%\nprintln(2)", "%%\nprintln(3)"} { // all at once, as JupyterLab's Run All Cells does
			id, err := k.send(k.shell, "execute_request", map[string]any{
				"code": code, "silent": false, "store_history": true, "user_expressions": struct{}{}, "allow_stdin": false, "stop_on_error": test.stop,
			})
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		idle := map[string]bool{}
		for late := time.After(time.Minute); len(statuses) < len(ids) || len(idle) < len(ids); {
			select {
			case m := <-k.messages:
				i := slices.Index(ids, m.message.Parent.ID)
				if i < 0 {
					continue
				}
				var content struct {
					Status string `json:"status"`
					State  string `json:"execution_state"`
				}
				if err := json.Unmarshal(m.message.Content, &content); err != nil {
					t.Fatal(err)
				}
				switch {
				case m.from == "shell" && i != len(statuses):
					t.Errorf("stop %v: cell %d is answered when %d have been", test.stop, i, len(statuses))
					fallthrough
				case m.from == "shell":
					statuses = append(statuses, content.Status)
				case content.State == "idle":
					idle[ids[i]] = true
				}
			case <-late:
				t.Fatalf("stop %v: answers %q, %d of %d cells have ended", test.stop, statuses, len(idle), len(ids))
			}
		}
		if !slices.Equal(statuses, test.want) {
			t.Errorf("stop %v: answers %q, want %q", test.stop, statuses, test.want)
		}
	}
	if reply, err := k.Execute(t.Context(), Request{Code: "%%\nprintln(4)"}); err != nil || reply.Status != "ok" {
		t.Errorf("a cell after all that: %+v, error %v", reply, err)
	}
}

// TestGoNBHistory: JupyterLab shows a kernel that does not answer this as "Unknown" until the first cell is executed.
func TestGoNBHistory(t *testing.T) {
	spec, err := Find(Name, DataDirs())
	if err != nil {
		t.Fatal(err)
	}
	k, err := Start(t.Context(), spec, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var reply struct {
		Status  string
		History []any
	}
	if err := k.ask(ctx, "history_request", map[string]any{"hist_access_type": "range", "output": false, "raw": true}, &reply); err != nil || reply.Status != "ok" || len(reply.History) > 0 {
		t.Errorf("answer %+v, error %v", reply, err)
	}
}
