package testtime

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"
)

// NoLabel in place of a class says that a row's true class is not known.
const NoLabel = -100

// Score is that of predictions that were made before their labels were seen.
type Score struct {
	Rows    int     `json:"rows"`     // predicted and then labelled
	Right   int     `json:"right"`    // of these, with the true class
	LogLoss float64 `json:"log_loss"` // mean of −ln p of the true class, in nats; 0 without rows
}

// Ticket is a prediction that waits for its labels. It is good for one call of [Adapter.Learn].
type Ticket struct {
	from   *Adapter
	batch  int // from 1
	round  int // 0 when it is used
	scored bool
	reset  string // why variables were put back before the prediction
	inputs []any
	logits []float32
	weight []float32
}

// online is the state of learning from labels.
type online struct {
	round int                        // rounds end with a reset
	seen  map[[sha256.Size]byte]bool // batches predicted in this round
	score Score
}

func (o *online) begin() {
	*o = online{round: o.round + 1, seen: map[[sha256.Size]byte]bool{}}
}

// Predict returns the logits for a batch, flat [rows, classes], and a ticket by which the
// batch's labels can be learned once they are known. It needs the method "labels".
//
// This order is the only way to learn from labels, and what [Adapter.Score] counts is the logits
// that were returned here: no label can reach a score. A batch that was predicted before, with
// the same values, can be learned again but counts once. Two batches that overlap are not
// recognised: give each example once.
func (a *Adapter) Predict(ctx context.Context, inputs ...any) ([]float32, *Ticket, error) {
	if a.config.Method != "labels" {
		return nil, nil, fmt.Errorf("test-time adaptation: Predict needs method labels, not %s, which learns without: use Step", a.config.Method)
	}
	if err := a.interrupted(ctx); err != nil {
		return nil, nil, err
	}
	a.batches++
	kept, digest, err := keep(inputs)
	if err != nil {
		return nil, nil, fmt.Errorf("test-time adaptation, batch %d: %w", a.batches, err)
	}
	var event Event
	logits, weight, err := a.sound(&event, inputs)
	if err != nil {
		return nil, nil, err
	}
	ticket := &Ticket{from: a, batch: a.batches, reset: event.Reset, round: a.online.round, scored: !a.online.seen[digest], inputs: kept, logits: append([]float32(nil), logits...), weight: weight}
	a.online.seen[digest] = true
	return logits, ticket, nil
}

// Learn scores the ticket's prediction against the true classes, one a row ([NoLabel] where
// none is known), and then adapts to them, unless the guard has given up or [Config].Every leaves the
// batch out. A ticket that was used, or that is from before the last reset, is an error; then nothing changes.
func (a *Adapter) Learn(ctx context.Context, ticket *Ticket, labels []int32) (Event, error) {
	if err := a.interrupted(ctx); err != nil {
		return Event{}, err
	}
	if ticket == nil || ticket.from != a || ticket.round != a.online.round {
		return Event{}, errors.New("test-time adaptation: the ticket is used, from before a reset, or of another adapter")
	}
	classes := a.task.Classes()
	if len(labels)*classes != len(ticket.logits) {
		return Event{}, fmt.Errorf("test-time adaptation: %d labels for %d rows", len(labels), len(ticket.logits)/classes)
	}
	if err := checkLabels(labels, classes); err != nil {
		return Event{}, err
	}
	ticket.round = 0
	if ticket.scored {
		a.online.score.add(ticket.logits, ticket.weight, labels, classes)
	}
	if a.stopped || (ticket.batch-1)%a.config.Every != 0 {
		return Event{Batch: ticket.batch, Reset: ticket.reset, Stopped: a.stopped}, nil
	}
	_, _, event, err := a.call(append(ticket.inputs, tensorOf(labels)))
	event.Batch = ticket.batch
	if err == nil && event.Reset != "" {
		err = a.retreat(&event)
	} else if event.Reset == "" {
		event.Reset = ticket.reset
	}
	return event, err
}

func checkLabels(labels []int32, classes int) error {
	for i, label := range labels {
		if label != NoLabel && (label < 0 || int(label) >= classes) {
			return fmt.Errorf("test-time adaptation: label %d is %d, want 0 to %d or %d for none", i, label, classes-1, NoLabel)
		}
	}
	return nil
}

func tensorOf(labels []int32) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(append([]int32(nil), labels...), len(labels))
}

// PredictThenLearn is [Adapter.Predict] and then, with labels, one a row, [Adapter.Learn]; the two share one forward pass, so
// that it costs what a step without labels does. The logits are those from before the labels were seen. With nil labels it only
// predicts, and by a method other than "labels" makes a [Adapter.Step].
func (a *Adapter) PredictThenLearn(ctx context.Context, labels []int32, inputs ...any) ([]float32, Event, error) {
	switch {
	case labels == nil && a.config.Method != "labels":
		return a.Step(ctx, inputs...)
	case labels == nil || a.stopped || a.batches%a.config.Every != 0 || a.config.Method != "labels":
		logits, ticket, err := a.Predict(ctx, inputs...)
		if err != nil {
			return nil, Event{}, err
		}
		event := Event{Batch: ticket.batch, Reset: ticket.reset, Stopped: a.stopped}
		if labels != nil {
			event, err = a.Learn(ctx, ticket, labels)
		}
		return logits, event, err
	}
	if err := errors.Join(a.interrupted(ctx), checkLabels(labels, a.task.Classes())); err != nil {
		return nil, Event{}, err
	}
	a.batches++
	_, digest, err := keep(inputs)
	if err != nil {
		return nil, Event{}, fmt.Errorf("test-time adaptation, batch %d: %w", a.batches, err)
	}
	scored := !a.online.seen[digest]
	a.online.seen[digest] = true
	logits, weight, event, err := a.call(append(slices.Clone(inputs), tensorOf(labels)))
	if err != nil {
		return nil, Event{}, err
	}
	if event.Reset != "" {
		if err := a.retreat(&event); err != nil {
			return nil, Event{}, err
		}
		if !finite(logits, weight) { // which is seen without labels: once more
			if logits, weight, err = a.forward(inputs); err != nil {
				return nil, Event{}, err
			}
		}
	}
	if scored {
		a.online.score.add(logits, weight, labels, a.task.Classes())
	}
	return logits, event, nil
}

// Score returns that of all first predictions since the last reset whose labels are known.
func (a *Adapter) Score() Score { return a.online.score }

// add counts the rows that weigh and have a label.
func (s *Score) add(logits, weight []float32, labels []int32, classes int) {
	total := s.LogLoss * float64(s.Rows)
	for i, label := range labels {
		if label == NoLabel || weight[i] == 0 {
			continue
		}
		row := logits[i*classes : (i+1)*classes]
		best := 0
		for c, x := range row {
			if x > row[best] {
				best = c
			}
		}
		sum := 0.0
		for _, x := range row {
			sum += math.Exp(float64(x - row[best]))
		}
		total += math.Log(sum) - float64(row[label]-row[best])
		s.Rows++
		if best == int(label) {
			s.Right++
		}
	}
	if s.Rows > 0 {
		s.LogLoss = total / float64(s.Rows)
	}
}

// keep returns copies of a batch's inputs, which nobody else can change, and their digest.
func keep(inputs []any) ([]any, [sha256.Size]byte, error) {
	kept := make([]any, len(inputs))
	hash := sha256.New()
	for i, input := range inputs {
		tensor, ok := input.(*tensors.Tensor)
		var err error
		if ok {
			tensor, err = tensor.LocalClone()
		} else {
			tensor, err = tensors.FromAnyValue(input)
		}
		if err != nil {
			return nil, [sha256.Size]byte{}, fmt.Errorf("input %d: %w", i, err)
		}
		fmt.Fprintf(hash, "%s\n", tensor.Shape())
		if err := tensor.ConstBytes(func(data []byte) { hash.Write(data) }); err != nil {
			return nil, [sha256.Size]byte{}, fmt.Errorf("input %d: %w", i, err)
		}
		kept[i] = tensor
	}
	return kept, [sha256.Size]byte(hash.Sum(nil)), nil
}
