package tensorboard_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/elastic-attention/workbench/pkg/track"
	"github.com/elastic-attention/workbench/pkg/track/tensorboard"
)

// TestWrite compares, byte for byte, with what TensorBoard's own writer makes of the same run.
func TestWrite(t *testing.T) {
	var golden struct {
		Start  float64
		Config any
		Steps  []struct {
			Step   int
			TimeMS int64 `json:"time_ms"`
			Values map[string]any
		}
	}
	content, err := os.ReadFile("testdata/events.json")
	if err == nil {
		err = json.Unmarshal(content, &golden)
	}
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/events.tfevents")
	if err != nil {
		t.Fatal(err)
	}
	words := map[any]float64{"NaN": math.Float64frombits(0x7ff8000000000000), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}
	var series []track.Series
	for _, name := range []string{"dev/f1", "train/loss", "train/rate"} {
		s := track.Series{Name: name}
		for _, step := range golden.Steps {
			v, ok := step.Values[name]
			if !ok {
				continue
			}
			number, ok := v.(float64)
			if !ok {
				number = words[v]
			}
			s.Points = append(s.Points, track.Point{Step: step.Step, Time: time.UnixMilli(step.TimeMS), Value: number})
		}
		series = append(series, s)
	}
	run := track.Run{ID: "golden", Record: track.Record{Config: golden.Config, Started: time.UnixMilli(int64(golden.Start * 1000))}}
	var got bytes.Buffer
	if err := tensorboard.Write(&got, run, series); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got\n%q\nwant\n%q", got.Bytes(), want)
	}
}

// TestExport writes over the file of before, and below a folder of the run's name.
func TestExport(t *testing.T) {
	dir, logs := filepath.Join(t.TempDir(), "run"), t.TempDir()
	journal, err := track.Start(dir, track.Record{Config: map[string]int{"layers": 2}})
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int64{}
	for step := 1; step <= 3; step++ {
		journal.Log(step, map[string]float64{"loss": 1})
		r, err := track.ReadRun(dir)
		if err != nil {
			t.Fatal(err)
		}
		r.ID = "study/runs/a-1"
		path, err := tensorboard.Export(logs, r)
		if err != nil || filepath.Dir(path) != filepath.Join(logs, "study", "runs", "a-1") {
			t.Fatalf("%q, %v", path, err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Size() <= sizes[path] {
			t.Errorf("step %d: %d bytes after %d, %v", step, info.Size(), sizes[path], err)
		}
		sizes[path] = info.Size()
	}
	if len(sizes) != 1 {
		t.Errorf("files %v", sizes)
	}
	if err := journal.Close(nil); err != nil {
		t.Fatal(err)
	}
	// A run that began anew in its folder has another beginning, but no second curve.
	r, err := track.ReadRun(dir)
	if err != nil {
		t.Fatal(err)
	}
	r.ID, r.Started = "study/runs/a-1", r.Started.Add(time.Hour)
	other := filepath.Join(logs, "study", "runs", "a-1", "events.out.tfevents.1.others")
	if err := os.WriteFile(other, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	path, err := tensorboard.Export(logs, r)
	if err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(logs, "study", "runs", "a-1", "*"))
	if err != nil || len(left) != 2 || !slices.Contains(left, path) || !slices.Contains(left, other) {
		t.Errorf("left %q, %v; want %q and what others wrote", left, err, path)
	}
}

func ExampleWrite() {
	run := track.Run{Record: track.Record{Started: time.Unix(1795000000, 0)}}
	var file bytes.Buffer
	if err := tensorboard.Write(&file, run, []track.Series{{Name: "loss", Points: []track.Point{{Step: 1, Time: time.Unix(1795000001, 0), Value: 0.5}}}}); err != nil {
		panic(err)
	}
	fmt.Println(file.Len(), "bytes, of which the first record says", string(file.Bytes()[23:36]))
	// Output: 82 bytes, of which the first record says brain.Event:2
}
