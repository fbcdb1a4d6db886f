package cli_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// TestElasticStructure trains a model with early exits and experts, and leaves early by the
// threshold of a flag.
func TestElasticStructure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if out := run(t, "", quickly(dir, "--depth", "early_exit", "--experts", `{"count": 2}`)...); out.code != 0 {
		t.Fatalf("train: code %d\n%s", out.code, out.stderr)
	}
	for threshold, want := range map[string]float64{"0": 2, "1": 1} {
		out := run(t, "", "eval", dir, "--split", "dev", "--json", "--threshold", threshold)
		var report struct {
			Layers float64 `json:"mean_layers"`
		}
		if err := json.Unmarshal([]byte(out.stdout), &report); out.code != 0 || err != nil || report.Layers != want {
			t.Errorf("eval --threshold %s: code %d, %g layers, want %g\n%s", threshold, out.code, report.Layers, want, out.stderr)
		}
	}
	if out := run(t, "", "predict", dir, "--threshold", "1", "Ann Lee lives in Rome ."); out.code != 0 {
		t.Errorf("predict: code %d, %s", out.code, out.stderr)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"eval", dir, "--threshold", "2"}, `depth.threshold is 2, want 0 to 1 for rule "entropy"`},
		{[]string{"eval", dir, "--threshold", "0.5", "--adapt", "tent"}, "--threshold and --adapt exclude each other"},
		{quickly(filepath.Join(t.TempDir(), "fresh"), "--depth", "deep"), "--depth wants one of act, early_exit, a JSON object, or a file that holds one"},
		{quickly(filepath.Join(t.TempDir(), "fresh"), "--depth", `{"kind": "deep"}`), `depth.kind "deep" is unknown`},
		{quickly(filepath.Join(t.TempDir(), "fresh"), "--experts", `{"number": 2}`), `--experts: unknown field "number"`},
	} {
		if out := run(t, "", test.args...); out.code == 0 || !strings.Contains(out.stderr, test.want) {
			t.Errorf("%v: code %d, %s; want %q", test.args, out.code, out.stderr, test.want)
		}
	}
}
