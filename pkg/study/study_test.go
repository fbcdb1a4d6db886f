package study_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/elastic-attention/workbench/internal/gxtest"
	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/augment"
	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/adapt/testtime"
	"github.com/elastic-attention/workbench/pkg/elastic/attention"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
	"github.com/elastic-attention/workbench/pkg/elastic/train"
	"github.com/elastic-attention/workbench/pkg/elastic/transformer"
	"github.com/elastic-attention/workbench/pkg/eval"
	"github.com/elastic-attention/workbench/pkg/ner"
	"github.com/elastic-attention/workbench/pkg/run"
	"github.com/elastic-attention/workbench/pkg/study"
	"github.com/elastic-attention/workbench/pkg/track"
)

// model writes a tiny model that stands for a pretrained one.
func model(t *testing.T) string {
	t.Helper()
	tokenizer, dir := t.TempDir(), filepath.Join(t.TempDir(), "model")
	if err := os.WriteFile(filepath.Join(tokenizer, "tokenizer.json"), synth.Tokenizer(), 0o644); err != nil {
		t.Fatal(err)
	}
	labels, err := ner.LabelsOfTypes("PER")
	if err != nil {
		t.Fatal(err)
	}
	encoder := transformer.Config{
		Hidden: 16, Layers: 2, FeedForward: 32, Attention: attention.Spec{Heads: 2, Dropout: 0.1}, MaxPositions: 48,
		TypeVocab: 2, Activation: "gelu", NormEpsilon: 1e-12, Dropout: 0.1, InitStd: 0.1,
	}
	tagger, err := ner.NewTaggerFromScratch(gxtest.Backend(t), tokenizer, encoder, labels, ner.Config{MaxLength: 48, Lengths: []int{48}}, 1)
	if err == nil {
		err = tagger.Save(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tiny is a study of the model that ends within seconds.
func tiny(t *testing.T, task string) study.Config {
	t.Helper()
	part := func(name string, split data.Split, limit int, shifts ...augment.Shift) study.Set {
		return study.Set{Name: name, Data: "synthetic", Split: split, Limit: limit, Shifts: shifts}
	}
	with := func(name, path, value string) study.Variant {
		return study.Variant{Name: name, With: map[string]json.RawMessage{path: json.RawMessage(value)}}
	}
	frozen := adapt.Strategy{Gradient: []adapt.Rate{{Variables: []string{"/embeddings/position"}}}}
	config := study.Config{
		Name: "tiny", Task: task, Model: model(t), Layers: 1,
		Recipe: study.Recipe{
			Config:    train.Config{Epochs: 1, Schedule: schedule.Config{Peak: 1e-2}, Adapt: frozen},
			BatchSize: 16, Shapes: 1, MaxLength: 48, Lengths: []int{48}, PartRate: 10,
		},
		Train: part("", data.Train, 64), Dev: part("dev", data.Dev, 20),
		Sets:     []study.Set{part("plain", data.Test, 20), part("typos", data.Test, 20, augment.Shift{Kind: augment.Typo, Rate: 1})},
		Variants: []study.Variant{{Name: "softmax"}, with("temperature", "scores.temperature.learned", `true`), {Name: "best", Combine: 1}},
		Seeds:    []uint64{7, 8},
		Adaptations: []study.Adaptation{
			{Name: "tent", Config: testtime.Config{Rate: 0.1}, Sets: []string{"typos"}},
			{Name: "one by one", Single: true, Variants: []string{"best"}, Sets: []string{"plain"}},
		},
	}
	if task == "lm" {
		config.Model, config.Adaptations, config.Recipe.MaxLength = "scratch", nil, 32
		config.Recipe.Adapt = adapt.Strategy{}
		config.Train.Limit, config.Dev.Limit, config.Sets[0].Limit = 1200, 200, 150
		config.Sets = config.Sets[:1]
	}
	return config
}

// same leaves out what differs from one execution to the next.
var same = cmp.Options{cmpopts.IgnoreFields(study.Result{}, "Seconds", "Finished"), cmpopts.IgnoreFields(study.Score{}, "CPUSeconds"),
	cmp.Comparer(func(a, b attention.Spec) bool { return reflect.DeepEqual(a, b) })}

// TestRunGoesOn: a study that is stopped after its third run, and whose last line was torn, goes on
// and gives what one does that was not stopped, to the last sentence.
func TestRunGoesOn(t *testing.T) {
	for _, task := range study.Tasks() {
		config := tiny(t, task)
		whole, err := study.Run(context.Background(), gxtest.Backend(t), config, study.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if len(whole.Results) != 6 {
			t.Fatalf("%s: %d results, want 6", task, len(whole.Results))
		}
		dir := t.TempDir()
		cause := errors.New("stopped by the test")
		ctx, stop := context.WithCancelCause(context.Background())
		_, err = study.Run(ctx, gxtest.Backend(t), config, study.Options{Dir: dir, Done: func(p study.Progress) {
			if p.Done == 3 {
				stop(cause)
			}
		}})
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "after 3 of 6 runs") {
			t.Fatalf("%s: error of the stopped study is %v", task, err)
		}
		file, err := os.OpenFile(filepath.Join(dir, study.ResultsFile), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = file.WriteString(`{"variant": "temperature", "se`)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		fresh := 0
		_, err = study.Run(context.Background(), gxtest.Backend(t), config, study.Options{Dir: dir, Done: func(p study.Progress) {
			if !p.Before {
				fresh++
			}
		}})
		if err != nil || fresh != 3 {
			t.Fatalf("%s: %d runs were made when it went on, %v, want 3", task, fresh, err)
		}
		opened, err := study.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(whole.Results, opened.Results, same); diff != "" {
			t.Errorf("%s: results differ (-whole +gone on):\n%s", task, diff)
		}
		check(t, opened)
		for _, r := range opened.Results {
			kept, err := track.ReadRun(filepath.Join(dir, study.RunsDir, fmt.Sprintf("%s-%d", r.Variant, r.Seed)))
			loss, _ := kept.Metric("train/loss")
			if _, scored := kept.Metric("dev/" + map[string]string{"ner": "f1", "classify": "accuracy", "lm": "accuracy"}[task]); !scored {
				t.Errorf("%s: the run folder of %s, seed %d, has no score on dev by its name: %v", task, r.Variant, r.Seed, kept.Metrics)
			}
			if err != nil || kept.Status != track.Finished || loss.Count != r.Updates || kept.Field("config.variant") != r.Variant {
				t.Errorf("%s: the run folder of %s, seed %d: %+v, %v", task, r.Variant, r.Seed, kept, err)
			}
		}
		config.Sets[0].Limit = 10
		if _, err := study.Run(context.Background(), gxtest.Backend(t), config, study.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "study.json differs") {
			t.Errorf("%s: another study in the same folder: %v", task, err)
		}
	}
}

// TestCourses: the folder of each run tells how it went and what was done to it, here by unfreezing.
func TestCourses(t *testing.T) {
	config := tiny(t, "lm")
	config.Variants, config.Recipe.Unfreeze = config.Variants[:1], train.Unfreeze{EveryUpdates: 1}
	dir := t.TempDir()
	if _, err := study.Run(t.Context(), gxtest.Backend(t), config, study.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	for _, seed := range config.Seeds {
		folder := filepath.Join(dir, study.RunsDir, fmt.Sprintf("softmax-%d", seed))
		course, err := run.ReadCourse(folder)
		if err != nil || len(course.History) == 0 || len(course.Control) == 0 || course.Control[0].Controller != "unfreeze" {
			t.Errorf("seed %d: course %+v, %v", seed, course, err)
		}
		kept, err := track.ReadRun(folder)
		if err != nil || len(kept.Artefacts) != 1 || kept.Artefacts[0].Path != run.ReportFile {
			t.Errorf("seed %d: the run made %v, %v", seed, kept.Artefacts, err)
		}
	}
}

// check looks at what a study of tiny found.
func check(t *testing.T, f *study.Folder) {
	t.Helper()
	softmax, best := f.Results[0], f.Results[4]
	if !cmp.Equal(best.Parts, []string{"temperature"}) || best.Parameters != softmax.Parameters+softmax.Spec.Heads {
		t.Errorf("the combination is %v with %d parameters, want temperature with %d", best.Parts, best.Parameters, softmax.Parameters+softmax.Spec.Heads)
	}
	if diff := cmp.Diff(f.Results[2].Scores[0], best.Scores[0], same); diff != "" {
		t.Errorf("a combination of one part is not that part:\n%s", diff)
	}
	if cmp.Equal(softmax.Scores, f.Results[1].Scores, same) && softmax.Loss == f.Results[1].Loss {
		t.Error("two seeds give the same")
	}
	sets, adapted := 1+len(f.Config.Sets), len(f.Config.Adaptations)
	if want := sets + min(adapted, 1); len(softmax.Scores) != want || len(best.Scores) != want {
		t.Errorf("%d and %d scores, want %d", len(softmax.Scores), len(best.Scores), want)
	}
	for what, table := range map[string]func(eval.Bootstrap) (study.Table, error){"variants": f.Variants, "adaptations": f.Adaptations} {
		got, err := table(eval.Bootstrap{Resamples: 50})
		if want := map[string]int{"variants": 2 * sets, "adaptations": adapted}[what]; err != nil || len(got.Rows) != want {
			t.Errorf("%s: %d rows, %v, want %d", what, len(got.Rows), err, want)
		}
	}
}

// TestWriteData: each set is written with as many examples as the study takes, shifted ones shifted, and can be read again.
func TestWriteData(t *testing.T) {
	for _, name := range study.Tasks() {
		config, dir := tiny(t, name), t.TempDir()
		paths, err := study.WriteData(context.Background(), nil, config, dir)
		if err != nil {
			t.Fatal(err)
		}
		sets := append([]study.Set{config.Train, config.Dev}, config.Sets...)
		if len(paths) != len(sets) || !strings.HasPrefix(filepath.Base(paths[0]), "train.") {
			t.Fatalf("%s: %v, want a file for each of %d sets", name, paths, len(sets))
		}
		written := map[string]string{}
		for i, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 && !strings.HasPrefix(filepath.Base(path), sets[i].Name+".") {
				t.Errorf("%s: %s, want it named %s", name, path, sets[i].Name)
			}
			written[sets[i].Name] = string(content)
			var examples int
			switch name {
			case "ner":
				for sentence, err := range format.CoNLLFile(path, format.CoNLLOptions{}) {
					if err != nil || !sentence.Labelled() {
						t.Fatalf("%s: %v, %v", path, sentence, err)
					}
					examples++
				}
			case "classify":
				for text, err := range format.CSVFile(path, format.CSVOptions{}) {
					if err != nil || text.Label == "" {
						t.Fatalf("%s: %v, %v", path, text, err)
					}
					examples++
				}
			default:
				examples = len(content)
			}
			if examples != sets[i].Limit {
				t.Errorf("%s has %d examples, want %d", path, examples, sets[i].Limit)
			}
		}
		if written["plain"] == written["typos"] {
			t.Errorf("%s: the shifted set is written as the plain one", name)
		}
		if _, err := study.WriteData(context.Background(), nil, config, dir); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: a second time: %v, want that the file exists", name, err)
		}
	}
}

// TestRunFoldersAreNoStudies: a study does not write into the folder of a run.
func TestRunFoldersAreNoStudies(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, run.RecordFile), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := study.Run(t.Context(), gxtest.Backend(t), tiny(t, study.Tasks()[0]), study.Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), dir+" is the folder of a run") {
		t.Errorf("error %v", err)
	}
	for _, name := range []string{study.ConfigFile, study.RecordFile, study.ResultsFile, study.RunsDir} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want none", name, err)
		}
	}
}

// TestVariantsAreCheckedFirst: a variant that cannot be is told before a run is made, so that it can be mended.
func TestVariantsAreCheckedFirst(t *testing.T) {
	config := tiny(t, "lm")
	config.Variants = append(config.Variants[:1:1],
		study.Variant{Name: "unknown", With: map[string]json.RawMessage{"normalizer": json.RawMessage(`"moon"`)}},
		study.Variant{Name: "odd", With: map[string]json.RawMessage{"heads": json.RawMessage(`3`)}})
	dir := filepath.Join(t.TempDir(), "study")
	_, err := study.Run(t.Context(), gxtest.Backend(t), config, study.Options{Dir: dir})
	for _, want := range []string{`variant "unknown": setting normalizer: `, `variant "odd": attention.heads is 3`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	if _, err := study.Open(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the study has begun: %v", err)
	}
}

func TestPresets(t *testing.T) {
	if len(study.Presets()) == 0 {
		t.Fatal("no presets")
	}
	for _, name := range study.Presets() {
		config, err := study.Preset(name)
		if err != nil || config.Name != name {
			t.Errorf("%s: name %q, %v", name, config.Name, err)
		}
		bert := attention.Spec{Heads: 12, Dropout: 0.1}
		for _, v := range config.Variants {
			spec, err := v.Spec(bert)
			if err == nil {
				err = spec.Validate(384)
			}
			if err != nil || v.Combine == 0 && v.Name != config.Variants[0].Name && spec.Plain() && len(v.Recipe) == 0 {
				t.Errorf("%s: variant %q: %v, plain: %v", name, v.Name, err, spec.Plain())
			}
		}
	}
	if _, err := study.Preset("nothing"); err == nil || !strings.Contains(err.Error(), study.Presets()[0]) {
		t.Errorf("an unknown preset: %v", err)
	}
}

// TestVariantsOfTheRecipe: a variant may learn in another way; what it does not name stays.
func TestVariantsOfTheRecipe(t *testing.T) {
	config := tiny(t, "lm")
	recipe := func(fields string) (list map[string]json.RawMessage) {
		if err := json.Unmarshal([]byte(fields), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	config.Seeds, config.Recipe.LogEvery = config.Seeds[:1], 1
	config.Variants = []study.Variant{
		{Name: "adamw"}, {Name: "again", Recipe: recipe(`{"optimizer": {"kind": "adamw"}}`)},
		{Name: "still", Recipe: recipe(`{"schedule": {"peak": 1e-12}}`)}, {Name: "longer", Recipe: recipe(`{"optimizer": "lion", "epochs": 3}`)},
		{Name: "tested", Recipe: recipe(`{"range_test": true}`)},
	}
	folder, err := study.Run(context.Background(), gxtest.Backend(t), config, study.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	r := folder.Results
	if r[1].Loss != r[0].Loss || r[2].Loss <= r[0].Loss || r[3].Updates != 3*r[0].Updates {
		t.Errorf("losses %g %g %g, updates %d and %d", r[0].Loss, r[1].Loss, r[2].Loss, r[0].Updates, r[3].Updates)
	}
	if r[0].Rate != config.Recipe.Schedule.Peak || r[4].Rate < 1e-4 || r[4].Rate > 1 || r[4].Rate == r[0].Rate {
		t.Errorf("rates %g and, of a range test, %g", r[0].Rate, r[4].Rate)
	}
	for at, want := range map[int]string{0: "adamw", 3: "lion", 4: "adamw"} { // records say how each variant was trained, not how the first was
		record, err := run.ReadRecord[struct{ Recipe study.Recipe }](filepath.Join(folder.Dir, study.RunsDir, r[at].Variant+"-7"))
		if err != nil {
			t.Fatal(err)
		}
		rule := "adamw" // which stands for none
		if got := record.Config.Recipe.Optimizer.Rule; got != nil {
			rule = got.Kind()
		}
		if rule != want || record.Config.Recipe.Schedule.Peak != r[at].Rate {
			t.Errorf("%s is recorded with %s at %g, want %s at %g", r[at].Variant, rule, record.Config.Recipe.Schedule.Peak, want, r[at].Rate)
		}
	}
	for fields, want := range map[string]string{
		`{"optimiser": {"kind": "lion"}}`: `variant "wrong": recipe: unknown field "optimiser"`,
		`{"optimizer": {"kind": "lime"}}`: `"lime"`,
		`{"epochs": -1}`:                  "epochs is -1",
	} {
		config.Variants = []study.Variant{{Name: "adamw"}, {Name: "wrong", Recipe: recipe(fields)}}
		if err := config.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", fields, err, want)
		}
	}
}

func TestValidateNamesAll(t *testing.T) {
	err := study.Config{
		Task: "sing", Layers: -1, Seeds: []uint64{1, 1}, Dev: study.Set{Name: "a"},
		Sets:     []study.Set{{Name: "a", Data: "x", Split: "test", Limit: -1, Shifts: []augment.Shift{{Kind: "noise"}}}},
		Variants: []study.Variant{{Name: "one"}, {Name: "one", Combine: 3}}, Recipe: study.Recipe{PartRate: -1},
		Adaptations: []study.Adaptation{{Name: "tent", Config: testtime.Config{Method: "pray"}, Variants: []string{"two"}, Sets: []string{"b"}}},
	}.Validate()
	if err == nil {
		t.Fatal("want an error")
	}
	for _, want := range []string{
		`task "sing"`, "model is empty", "layers is -1", "1 is there twice", `sets: the name "a"`, `variants: the name "one"`, "limit is -1",
		`kind "noise"`, "combine is 3", `method "pray"`, `no variant "two"`, `no set "b"`, "part_rate is -1", "data and split",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s:\n%v", want, err)
		}
	}
}
