package search

import "slices"

// Reserved reports whether a name has a meaning of its own in the commands of package program, so that no parameter may
// have it.
func Reserved(name string) bool {
	return slices.Contains([]string{"dir", "elastic", "parent", "trial", "until"}, name)
}

// State is what became of a trial.
type State string

// The states of trials.
const (
	// Running trials are worked on, or were when a process died: such a trial is taken up again.
	Running State = "running"
	// Paused trials have used the resource that they were given, and may be given more.
	Paused State = "paused"
	// Finished trials have a value.
	Finished State = "finished"
	// Stopped trials were ended by the scheduler.
	Stopped State = "stopped"
	// Failed trials ended with an error.
	Failed State = "failed"
)

// Trial is one attempt.
type Trial struct {
	Number int    `json:"trial"`
	Params Params `json:"params"`
	State  State  `json:"state"`
	// Until is the resource at which it pauses; 0 lets it go to its end.
	Until int `json:"until,omitempty"`
	// Parent is the trial from whose state this one went on, if any.
	Parent *int `json:"parent,omitempty"`
	// Reports are what it said on its way, by resource.
	Reports []Report `json:"reports,omitempty"`
	// Value is the result of a finished trial.
	Value float64 `json:"value"`
	Error string  `json:"error,omitempty"`
}

// Report is a value after so much of a resource: epochs, updates.
type Report struct {
	Resource int     `json:"resource"`
	Value    float64 `json:"value"`
}

// resource is how far a trial came.
func (t Trial) resource() int {
	if len(t.Reports) == 0 {
		return 0
	}
	return t.Reports[len(t.Reports)-1].Resource
}

// after returns the value when at least so much had been used.
func (t Trial) after(resource int) (float64, bool) {
	for _, r := range t.Reports {
		if r.Resource >= resource {
			return r.Value, true
		}
	}
	return 0, false
}

// last returns the value of the last report.
func (t Trial) last() (float64, bool) {
	if len(t.Reports) == 0 {
		return 0, false
	}
	return t.Reports[len(t.Reports)-1].Value, true
}

// flipped returns the trial with the sign of all values changed.
func (t Trial) flipped() Trial {
	reports := make([]Report, len(t.Reports))
	for i, r := range t.Reports {
		reports[i] = Report{r.Resource, -r.Value}
	}
	t.Reports, t.Value = reports, -t.Value
	return t
}

// quality returns what a trial is judged by: its value, or else the last that it reported.
func quality(t Trial) (float64, bool) {
	switch t.State {
	case Finished:
		return t.Value, true
	case Failed:
		return 0, false
	}
	return t.last()
}
