package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/elastic/adapt"
	"github.com/elastic-attention/workbench/pkg/elastic/optim"
	"github.com/elastic-attention/workbench/pkg/elastic/optim/schedule"
)

// Rates are the parts of a recipe that say how fast what learns.
type Rates struct {
	Schedule  schedule.Config `json:"schedule"`
	Optimizer optim.Config    `json:"optimizer"` // with its factors by pattern
	Gradient  []adapt.Rate    `json:"gradient,omitempty"`
}

// Experience is what earlier runs say about rates.
type Experience struct {
	Rates
	// Models are those that the runs with these rates trained, [Scratch] where a config describes the model.
	Models []string
	// Note says where the rates are from, and what speaks against them, for the record.
	Note string
}

// earlier is what is read of an earlier run.
type earlier struct {
	dir   string
	rates Rates
	model string
	data  map[string]string
	score float64 // of the best epoch on dev
}

func readEarlier(task, dir string) (earlier, error) {
	record, err := readRecordOf[struct {
		Model json.RawMessage `json:"model"`
		Train struct {
			Schedule  schedule.Config `json:"schedule"`
			Optimizer optim.Config    `json:"optimizer"`
			Adapt     adapt.Strategy  `json:"adapt"`
		} `json:"train"`
	}](dir, task)
	if err != nil {
		return earlier{}, err
	}
	course, err := ReadCourse(dir)
	if err != nil {
		return earlier{}, err
	}
	train, model := record.Config.Train, Scratch
	if json.Unmarshal(record.Config.Model, &model) != nil {
		model = Scratch // it is described, not named
	}
	e := earlier{dir, Rates{train.Schedule, train.Optimizer, train.Adapt.Gradient}, model, record.Data, math.Inf(-1)}
	for _, m := range course.Metrics {
		e.score = max(e.score, m.Value)
	}
	if math.IsInf(e.score, -1) {
		return e, fmt.Errorf("%s has no score on dev, by which it could be compared", dir)
	}
	return e, nil
}

// BestRates compares earlier runs of a task, in the folders dirs, and returns the rates of the best: of those whose
// mean score on dev, each run's at its best epoch, is highest over the runs that had them. All runs must have
// been made on the same data.
//
// The best of few is best by chance as well, so the note says over how many runs scores are, and whether the rate
// lies at the edge of those that were tried.
func BestRates(task string, dirs []string) (Experience, error) {
	var runs []earlier
	var problems []error
	for _, dir := range dirs {
		e, err := readEarlier(task, dir)
		if err != nil {
			problems = append(problems, fmt.Errorf("rates of earlier runs: %w", err))
			continue
		}
		runs = append(runs, e)
	}
	if len(dirs) == 0 {
		problems = append(problems, errors.New("rates of earlier runs: no run is named"))
	}
	if err := errors.Join(problems...); err != nil {
		return Experience{}, err
	}
	groups := map[string][]earlier{}
	var order []string // as they are named, so that of equal ones the first counts
	low, high := math.Inf(1), 0.0
	for _, e := range runs {
		if !maps.Equal(e.data, runs[0].data) {
			return Experience{}, fmt.Errorf("rates of earlier runs: %s and %s were made on different data: their scores cannot be compared", runs[0].dir, e.dir)
		}
		content, err := json.Marshal(e.rates)
		if err != nil {
			return Experience{}, fmt.Errorf("rates of %s: %w", e.dir, err)
		}
		if groups[string(content)] == nil {
			order = append(order, string(content))
		}
		groups[string(content)] = append(groups[string(content)], e)
		low, high = min(low, e.rates.Schedule.Peak), max(high, e.rates.Schedule.Peak)
	}
	best, most := "", math.Inf(-1)
	for _, key := range order {
		sum := 0.0
		for _, e := range groups[key] {
			sum += e.score
		}
		if mean := sum / float64(len(groups[key])); mean > most {
			best, most = key, mean
		}
	}
	chosen := groups[best]
	found := Experience{Rates: chosen[0].rates}
	var names []string
	for _, e := range chosen {
		names = append(names, e.dir)
		if !slices.Contains(found.Models, e.model) {
			found.Models = append(found.Models, e.model)
		}
	}
	peak := found.Schedule.Peak
	found.Note = fmt.Sprintf("rate %g as in %s: mean score on dev %.4f over %d runs, the best of %d recipes in %d runs",
		peak, strings.Join(names, ", "), most, len(chosen), len(groups), len(runs))
	switch {
	case low == high:
		found.Note += "; no other rate was tried"
	case peak == low:
		found.Note += "; it is the lowest that was tried, a lower one may be better"
	case peak == high:
		found.Note += "; it is the highest that was tried, a higher one may be better"
	}
	return found, nil
}
