package eval

import "fmt"

// Outcomes are what a system did on each example of a test set, counted so that scores of any
// choice of examples can be computed from it. For entities an example is a sentence, and TP, FP
// and FN count its entities that were found, those wrongly found, and those missed. For classes
// an example is a text, with TP 1 if its class is right, else FP 1 and FN 1; F1 is then the
// accuracy.
type Outcomes struct {
	TP []int `json:"tp"`
	FP []int `json:"fp"`
	FN []int `json:"fn"`
}

// Len returns the number of examples.
func (o Outcomes) Len() int { return len(o.TP) }

// Validate reports lists of different lengths and counts below 0.
func (o Outcomes) Validate() error {
	if len(o.FP) != len(o.TP) || len(o.FN) != len(o.TP) {
		return fmt.Errorf("outcomes have %d tp, %d fp and %d fn, want equally many", len(o.TP), len(o.FP), len(o.FN))
	}
	for i := range o.TP {
		if o.TP[i] < 0 || o.FP[i] < 0 || o.FN[i] < 0 {
			return fmt.Errorf("outcomes of example %d are %d, %d, %d, want 0 or more", i, o.TP[i], o.FP[i], o.FN[i])
		}
	}
	return nil
}

// Add appends an example.
func (o *Outcomes) Add(tp, fp, fn int) {
	o.TP, o.FP, o.FN = append(o.TP, tp), append(o.FP, fp), append(o.FN, fn)
}

// F1 is the micro-averaged F1 over all examples:
//
//	2·ΣTP / (2·ΣTP + ΣFP + ΣFN),  0 where there is nothing to count
func (o Outcomes) F1() float64 {
	tp, wrong := 0, 0
	for i := range o.TP {
		tp += o.TP[i]
		wrong += o.FP[i] + o.FN[i]
	}
	return f1(tp, wrong)
}

func f1(tp, wrong int) float64 {
	if tp == 0 {
		return 0
	}
	return 2 * float64(tp) / float64(2*tp+wrong)
}
