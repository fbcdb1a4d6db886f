// Package eval scores what models predict.
package eval

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// CalibrationBins is the number of bins of [Classification].ECE.
const CalibrationBins = 15

// ClassScore has the scores of one class, or means over classes. A ratio whose denominator is
// 0 counts as 0.
type ClassScore struct {
	Precision float64 `json:"precision"` // right among those predicted as the class
	Recall    float64 `json:"recall"`    // right among those of the class
	F1        float64 `json:"f1"`        // harmonic mean of the two
	Support   int     `json:"support"`   // texts of the class
}

// Classification has the scores of predictions of one class an item. All numbers are those of
// scikit-learn's classification_report, accuracy_score and confusion_matrix.
type Classification struct {
	// Items is how many were predicted.
	Items int `json:"items"`
	// Accuracy is the share that is right. With one class an item it equals micro-averaged
	// precision, recall and F1.
	Accuracy float64 `json:"accuracy"`
	// Macro is the mean over the classes that occur, in the gold labels or in the predictions;
	// Weighted is the mean over them by support.
	Macro    ClassScore `json:"macro"`
	Weighted ClassScore `json:"weighted"`
	// ECE is the expected calibration error: over [CalibrationBins] bins of confidence of equal
	// width, each open on the left,
	//
	//	ECE = Σ_b n_b/N · |accuracy_b − confidence_b|
	//
	// Source: Guo et al. 2017, "On calibration of modern neural networks", equation 3.
	ECE float64 `json:"ece"`
	// Confidence is the mean confidence; above Accuracy the model is overconfident.
	Confidence float64 `json:"confidence"`
	// Labels names the classes; Classes has their scores in the same order.
	Labels  []string     `json:"labels"`
	Classes []ClassScore `json:"classes"`
	// Confusion counts items by gold class (row) and predicted class (column).
	Confusion Matrix `json:"confusion"`
}

// Scores returns the numbers that a classification comes down to, by name.
func (c Classification) Scores() map[string]float64 {
	return map[string]float64{"accuracy": c.Accuracy, "macro_f1": c.Macro.F1, "calibration_error": c.ECE}
}

// Matrix is counts in rows. In JSON only those are written that are not 0, as
// [row, column, count].
type Matrix [][]int

// MarshalJSON writes the counts that are not 0.
func (m Matrix) MarshalJSON() ([]byte, error) {
	cells := [][3]int{}
	for row, counts := range m {
		for column, count := range counts {
			if count != 0 {
				cells = append(cells, [3]int{row, column, count})
			}
		}
	}
	return json.Marshal(cells)
}

// Classify scores predictions: for each item its gold class, the class that was predicted,
// both numbers of a label, and the probability that the prediction had. It is an error when the
// three differ in length or are empty, or a number is out of range.
func Classify(labels []string, gold, predicted []int, confidence []float64) (Classification, error) {
	if len(gold) == 0 {
		return Classification{}, errors.New("nothing to score")
	}
	if len(predicted) != len(gold) || len(confidence) != len(gold) {
		return Classification{}, fmt.Errorf("%d gold labels, %d predictions and %d confidences: want as many of each", len(gold), len(predicted), len(confidence))
	}
	c := Classification{Items: len(gold), Labels: labels, Classes: make([]ClassScore, len(labels)), Confusion: make(Matrix, len(labels))}
	for i := range c.Confusion {
		c.Confusion[i] = make([]int, len(labels))
	}
	right := 0
	for i, want := range gold {
		got := predicted[i]
		for _, class := range []int{want, got} {
			if class < 0 || class >= len(labels) {
				return Classification{}, fmt.Errorf("item %d has class %d, want 0 to %d", i, class, len(labels)-1)
			}
		}
		if !(confidence[i] >= 0 && confidence[i] <= 1+1e-6) {
			return Classification{}, fmt.Errorf("item %d has confidence %g, want a probability", i, confidence[i])
		}
		c.Confusion[want][got]++
		if want == got {
			right++
		}
		c.Confidence += confidence[i] / float64(len(gold))
	}
	c.Accuracy = ratio(right, len(gold))
	occur := 0
	for class := range labels {
		predictions := 0
		for want := range labels {
			predictions += c.Confusion[want][class]
		}
		hits, support := c.Confusion[class][class], 0
		for _, count := range c.Confusion[class] {
			support += count
		}
		s := ClassScore{Precision: ratio(hits, predictions), Recall: ratio(hits, support), F1: ratio(2*hits, predictions+support), Support: support}
		c.Classes[class] = s
		if predictions+support == 0 {
			continue
		}
		occur++
		share := ratio(support, len(gold))
		c.Macro.add(s, 1)
		c.Weighted.add(s, share)
	}
	c.Macro = ClassScore{Precision: c.Macro.Precision / float64(occur), Recall: c.Macro.Recall / float64(occur), F1: c.Macro.F1 / float64(occur)}
	c.Macro.Support, c.Weighted.Support = len(gold), len(gold)
	c.ECE = calibrationError(gold, predicted, confidence)
	return c, nil
}

func (s *ClassScore) add(other ClassScore, share float64) {
	s.Precision += share * other.Precision
	s.Recall += share * other.Recall
	s.F1 += share * other.F1
}

func ratio(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

func calibrationError(gold, predicted []int, confidence []float64) float64 {
	var surplus [CalibrationBins]float64 // hits less confidence, summed
	for i, p := range confidence {
		bin := min(max(int(math.Ceil(p*CalibrationBins))-1, 0), CalibrationBins-1)
		surplus[bin] -= p
		if gold[i] == predicted[i] {
			surplus[bin]++
		}
	}
	sum := 0.0
	for _, s := range surplus {
		sum += math.Abs(s)
	}
	return sum / float64(len(gold))
}

// Confused is a pair of classes of which one was taken for the other.
type Confused struct {
	Gold      string `json:"gold"`
	Predicted string `json:"predicted"`
	Count     int    `json:"count"`
}

// WorstPairs returns the pairs of classes that were confused most, at most n, most frequent
// first; pairs that were confused as often stand in the order of the labels.
func (c Classification) WorstPairs(n int) []Confused {
	var pairs []Confused
	for want, row := range c.Confusion {
		for got, count := range row {
			if want != got && count > 0 {
				pairs = append(pairs, Confused{c.Labels[want], c.Labels[got], count})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b Confused) int { return cmp.Compare(b.Count, a.Count) })
	return pairs[:min(n, len(pairs))]
}

// Text writes the scores as a table with the given number of decimals, in the layout of
// scikit-learn's classification_report. Classes that do not occur are left out.
func (c Classification) Text(digits int) string {
	var b strings.Builder
	width := len("weighted avg")
	for _, label := range c.Labels {
		width = max(width, len([]rune(label)))
	}
	column := max(len("precision"), digits+len("0."))
	row := func(name string, s ClassScore) {
		fmt.Fprintf(&b, "%*s  %*.*f %*.*f %*.*f %9d\n", width, name, column, digits, s.Precision, column, digits, s.Recall, column, digits, s.F1, s.Support)
	}
	fmt.Fprintf(&b, "%*s  %*s %*s %*s %9s\n\n", width, "", column, "precision", column, "recall", column, "f1-score", "support")
	for class, label := range c.Labels {
		s := c.Classes[class]
		predicted := 0
		for want := range c.Labels {
			predicted += c.Confusion[want][class]
		}
		if s.Support+predicted > 0 {
			row(label, s)
		}
	}
	fmt.Fprintf(&b, "\n%*s  %*s %*s %*.*f %9d\n", width, "accuracy", column, "", column, "", column, digits, c.Accuracy, c.Items)
	row("macro avg", c.Macro)
	row("weighted avg", c.Weighted)
	return b.String()
}

// Summary writes the scores without those of single classes: accuracy, macro F1, calibration,
// and the pairs of classes that are confused most.
func (c Classification) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "accuracy %.4f  macro F1 %.4f  confidence %.4f  ECE %.4f\n", c.Accuracy, c.Macro.F1, c.Confidence, c.ECE)
	const most = 5
	for i, p := range c.WorstPairs(most) {
		if i == 0 {
			b.WriteString("confused most (gold, taken for, times)\n")
		}
		fmt.Fprintf(&b, "  %s  %s  %d\n", p.Gold, p.Predicted, p.Count)
	}
	return b.String()
}
