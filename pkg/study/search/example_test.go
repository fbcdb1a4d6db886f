package search_test

import (
	"fmt"
	"math"

	"github.com/elastic-attention/workbench/pkg/study/search"
)

func Example() {
	config := search.Config{
		Space: search.Space{
			{Name: "lr", Kind: search.Float, Low: 1e-6, High: 1e-1, Log: true},
			{Name: "optimizer", Kind: search.Categorical, Choices: []string{"sgd", "adamw"}},
			{Name: "beta2", Kind: search.Float, Low: 0.9, High: 0.9999, When: map[string][]string{"optimizer": {"adamw"}}},
		},
		Trials: 40, Seed: 1,
	}
	objective := func(p search.Params) float64 {
		loss := math.Pow(math.Log10(p["lr"].(float64))+4, 2)
		if p["optimizer"] == "sgd" {
			return loss + 1
		}
		return loss + 80*math.Pow(p["beta2"].(float64)-0.98, 2)
	}
	s, err := search.New(config)
	if err != nil {
		fmt.Println(err)
		return
	}
	for {
		event, advice := s.Ask()
		if advice == search.Done {
			break
		}
		value := objective(event.Params)
		for _, e := range []search.Event{event, {Kind: search.Finish, Trial: event.Trial, Value: &value}} {
			if err := s.Apply(e); err != nil {
				fmt.Println(err)
				return
			}
		}
	}
	best, _ := s.Best()
	fmt.Printf("%s, loss below 0.05: %v\n", best.Params["optimizer"], best.Value < 0.05)
	// Output: adamw, loss below 0.05: true
}
