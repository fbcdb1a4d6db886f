package experiment_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/elastic/loss"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	runs "github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/classify/experiment"
)

// TestDistilledRunEndsAlike: a run that follows the model of an earlier one ends with the same weights when it is stopped
// and goes on, and with others than without its teacher; and it is not resumed with another teacher.
func TestDistilledRunEndsAlike(t *testing.T) {
	parent := t.TempDir()
	teacher := filepath.Join(parent, "teacher")
	if err := run(t, tiny(t), experiment.Options{Dir: teacher}); err != nil {
		t.Fatal(err)
	}
	config := tiny(t)
	config.Train.Seed = 9
	alone, whole, torn := filepath.Join(parent, "alone"), filepath.Join(parent, "whole"), filepath.Join(parent, "torn")
	if err := run(t, config, experiment.Options{Dir: alone}); err != nil {
		t.Fatal(err)
	}
	config.Train.Distill = runs.Distill{Teacher: teacher, Temperature: 3, Alpha: 0.8}
	if err := run(t, config, experiment.Options{Dir: whole}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := experiment.Run(ctx, gxtest.Backend(t), config, experiment.Options{Dir: torn, Step: func(s train.Step) {
		if s.Update == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatalf("cancelled run: %v", err)
	}
	other := config
	other.Train.Distill.Teacher = alone
	saved := filepath.Join(teacher, runs.ModelDir)
	if err := errors.Join(os.Rename(saved, saved+"-1"), os.Symlink(filepath.Join(alone, runs.ModelDir), saved)); err != nil {
		t.Fatal(err)
	}
	wants(t, "a teacher that has changed", run(t, config, experiment.Options{Dir: torn, Resume: true}), "the teacher/model.safetensors data has changed since the run began")
	if err := errors.Join(os.Remove(saved), os.Rename(saved+"-1", saved)); err != nil {
		t.Fatal(err)
	}
	wants(t, "another teacher", run(t, other, experiment.Options{Dir: torn, Resume: true}), "train.distill.teacher was "+teacher)
	if err := run(t, config, experiment.Options{Dir: torn, Resume: true}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(weights(t, whole), weights(t, torn)) {
		t.Error("the resumed run has other weights")
	}
	record, err := runs.ReadRecord[experiment.Config](whole)
	if sum, sumErr := runs.Checksum(filepath.Join(teacher, runs.ModelDir, "model.safetensors")); err != nil || sumErr != nil || record.Data["teacher/model.safetensors"] != sum {
		t.Errorf("the record has %v, %v; want the teacher's checksum %s, %v", record.Data, err, sum, sumErr)
	}
	if bytes.Equal(weights(t, whole), weights(t, alone)) {
		t.Error("the teacher changes nothing")
	}
}

// weights are the bytes of a run's model.
func weights(t *testing.T, dir string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, runs.ModelDir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestWeighedRunEndsAlike: a run that learns to weigh labels and teacher ends with the same weights when it is stopped and goes
// on, and is not resumed with another weighing.
func TestWeighedRunEndsAlike(t *testing.T) {
	parent := t.TempDir()
	teacher, whole, torn := filepath.Join(parent, "teacher"), filepath.Join(parent, "whole"), filepath.Join(parent, "torn")
	if err := run(t, tiny(t), experiment.Options{Dir: teacher}); err != nil {
		t.Fatal(err)
	}
	config := tiny(t)
	config.Train.Distill = runs.Distill{Teacher: teacher, Weigh: loss.Weighing{Kind: loss.ByGradNorm}}
	if err := run(t, config, experiment.Options{Dir: whole}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := experiment.Run(ctx, gxtest.Backend(t), config, experiment.Options{Dir: torn, Step: func(s train.Step) {
		if s.Update == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, train.ErrInterrupted) {
		t.Fatalf("cancelled run: %v", err)
	}
	other := config
	other.Train.Distill.Weigh.Kind = loss.ByUncertainty
	wants(t, "another weighing", run(t, other, experiment.Options{Dir: torn, Resume: true}), "train.distill.weigh")
	if err := run(t, config, experiment.Options{Dir: torn, Resume: true}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(weights(t, whole), weights(t, torn)) {
		t.Error("the resumed run has other weights")
	}
}
