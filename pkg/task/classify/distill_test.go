package classify_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/task/classify"
)

// divergence is the mean KL of what two classifiers predict for texts: from a teacher's to a student's.
func divergence(t *testing.T, teacher, student *classify.Classifier, list []data.Text) (mean float64) {
	t.Helper()
	var plain []string
	for _, text := range list {
		plain = append(plain, text.Text)
	}
	logSoftmax := func(c *classify.Classifier) [][]float64 {
		logits, err := c.Logits(t.Context(), plain, nil)
		if err != nil {
			t.Fatal(err)
		}
		rows := make([][]float64, len(logits))
		for i, row := range logits {
			sum := 0.0
			for _, z := range row {
				sum += math.Exp(float64(z))
			}
			for _, z := range row {
				rows[i] = append(rows[i], float64(z)-math.Log(sum))
			}
		}
		return rows
	}
	p, q := logSoftmax(teacher), logSoftmax(student)
	for i := range p {
		for class := range p[i] {
			mean += math.Exp(p[i][class]) * (p[i][class] - q[i][class]) / float64(len(p))
		}
	}
	return mean
}

// TestDistillation: a student is nearer to its teacher, in texts that it has not seen, than one that learned from labels
// only; and it learns from a teacher alone, whatever labels say.
func TestDistillation(t *testing.T) {
	config := classify.Config{Lengths: []int{16}, MaxLength: 24}
	teacher := scratch(t, config)
	if _, err := teacher.Train(t.Context(), texts(40), nil, recipe(8), classify.TrainOptions{}); err != nil { // not too sure of itself
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "teacher")
	if err := teacher.Save(dir); err != nil {
		t.Fatal(err)
	}
	small := encoder()
	small.Hidden, small.FeedForward = 8, 16
	learn := func(list []data.Text, distill run.Distill) *classify.Classifier {
		t.Helper()
		c, err := classify.NewFromScratch(gxtest.Backend(t), tokenizerDir(t), small, labels, config, 5)
		if err != nil {
			t.Fatal(err)
		}
		r := recipe(60)
		r.Distill = distill
		if _, err := c.Train(t.Context(), list, nil, r, classify.TrainOptions{}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	unseen := []data.Text{{Text: "museum the warm warm"}, {Text: "warm river"}, {Text: "the the museum"}, {Text: "river warm the"}}
	alone := divergence(t, teacher, learn(texts(40), run.Distill{}), unseen)
	half := divergence(t, teacher, learn(texts(40), run.Distill{Teacher: dir, Temperature: 1}), unseen)
	wrong := texts(40)
	for i := range wrong {
		wrong[i].Label = labels[i/2%2]
	}
	whole := divergence(t, teacher, learn(wrong, run.Distill{Teacher: dir, Temperature: 1, Alpha: 1}), unseen)
	if !(half < alone/2 && whole < alone/2) {
		t.Errorf("divergence from the teacher is %.4f for labels only, %.4f with the teacher, %.4f without labels", alone, half, whole)
	}
}

func TestTeachersMustFit(t *testing.T) {
	config := classify.Config{Lengths: []int{16}, MaxLength: 24}
	save := func(c *classify.Classifier, err error) string {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "teacher")
		if err == nil {
			err = c.Save(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	words := t.TempDir()
	other := strings.Replace(string(synth.Tokenizer()), "[UNK]", "[OOV]", -1)
	if err := os.WriteFile(filepath.Join(words, "tokenizer.json"), []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	short := encoder()
	short.MaxPositions = 4
	var mixed classify.TrainConfig
	mixed.Loss.Mixup = 0.2
	for want, c := range map[string]classify.TrainConfig{
		`predicts the labels ["thing" "place"], its student ["place" "thing"]`: {Distill: run.Distill{
			Teacher: save(classify.NewFromScratch(gxtest.Backend(t), tokenizerDir(t), encoder(), []string{"thing", "place"}, config, 1))}},
		"has another tokenizer than its student": {Distill: run.Distill{
			Teacher: save(classify.NewFromScratch(gxtest.Backend(t), words, encoder(), labels, config, 1))}},
		"sees at most 4": {Distill: run.Distill{
			Teacher: save(classify.NewFromScratch(gxtest.Backend(t), tokenizerDir(t), short, labels, classify.Config{}, 1))}},
		`"nowhere" is no folder`:                 {Distill: run.Distill{Teacher: "nowhere"}},
		"distill.teacher: loading classifier: ":  {Distill: run.Distill{Teacher: t.TempDir()}},
		"distill and loss.mixup exclude":         {Config: mixed.Config, Distill: run.Distill{Teacher: "x"}},
		"but no teacher":                         {Distill: run.Distill{Alpha: 0.5}},
		"distill.alpha is 2":                     {Distill: run.Distill{Teacher: "x", Alpha: 2}},
		"distill.temperature is -1, want more t": {Distill: run.Distill{Teacher: "x", Temperature: -1}},
	} {
		r := recipe(1)
		r.Distill, r.Loss = c.Distill, c.Loss
		if _, err := scratch(t, config).Train(t.Context(), texts(8), nil, r, classify.TrainOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}
