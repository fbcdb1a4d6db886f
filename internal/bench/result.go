package main

import (
	"math"
	"slices"
	"time"
)

// result is the JSON line. Times are in seconds, memory in MB of 2²⁰ bytes.
type result struct {
	Engine   string `json:"engine"`
	Workload string `json:"workload"`
	Shape    string `json:"shape"`
	Donation string `json:"donation,omitempty"`

	RSS    float64   `json:"rss_mb"`
	First  float64   `json:"first_s"`          // first call, with graph building and compilation
	Ready  float64   `json:"ready_s"`          // from the start of the process to the end of the first call
	Median float64   `json:"median_s"`         //
	Min    float64   `json:"min_s"`            //
	P95    float64   `json:"p95_s,omitempty"`  //
	CPU    float64   `json:"cpu_min_s"`        // all threads
	N      int       `json:"n"`                // timed calls
	Check  float64   `json:"check,omitempty"`  // Σ|logits|
	Losses []float64 `json:"losses,omitempty"` // first five

	NER *nerResult `json:"ner,omitempty"`
}

// nerResult is what a run of fine-tuning adds.
type nerResult struct {
	Sentences    float64 `json:"sentences_s"`       // a second, over the steps that compiled nothing
	SentencesAll float64 `json:"sentences_s_all"`   // over all steps
	Tokens       float64 `json:"real_tok_per_s"`    // as sentences_s, without padding
	Compilations int     `json:"compilations"`      //
	CompileSteps float64 `json:"compile_steps_s"`   // time of the steps that compiled something
	EpochSteps   int     `json:"steps_per_epoch"`   //
	Padding      float64 `json:"padding"`           // of the epoch's positions
	Loss         float64 `json:"mean_loss"`         //
	Epoch        float64 `json:"epoch_sentences_s"` // for a whole epoch: measured, or from the above
}

// stopwatch times calls: the first, some to warm up, and n that count.
type stopwatch struct {
	warm         int
	calls        int
	first, ready float64
	wall, cpu    []float64
	from         time.Time
	cpuFrom      float64
	pausedAt     time.Time
	pausedCPU    float64
}

func (s *stopwatch) start() { s.from, s.cpuFrom = time.Now(), cpuSeconds() }

// pause and resume leave out what lies between them.
func (s *stopwatch) pause() { s.pausedAt, s.pausedCPU = time.Now(), cpuSeconds() }

func (s *stopwatch) resume() {
	s.from = s.from.Add(time.Since(s.pausedAt))
	s.cpuFrom += cpuSeconds() - s.pausedCPU
}

// stop notes a call that began at start.
func (s *stopwatch) stop() {
	wall, cpu := time.Since(s.from).Seconds(), cpuSeconds()-s.cpuFrom
	if s.calls == 0 {
		s.first, s.ready = wall, time.Since(started).Seconds()
	} else if s.calls > s.warm {
		s.wall, s.cpu = append(s.wall, wall), append(s.cpu, cpu)
	}
	s.calls++
}

func (s *stopwatch) fill(r *result) {
	sorted := slices.Sorted(slices.Values(s.wall))
	r.First, r.Ready, r.N = s.first, s.ready, len(sorted)
	r.Median, r.Min = sorted[len(sorted)/2], sorted[0]
	r.P95 = sorted[int(math.Floor(float64(len(sorted))*0.95))]
	r.CPU = slices.Min(s.cpu)
}
