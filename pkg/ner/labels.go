package ner

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/data"
)

// LabelSet numbers the tags of a tagger: label i is the i-th tag. The zero value
// has none; make one with [NewLabelSet] or [LabelsOf]. It is safe for concurrent use.
type LabelSet struct {
	tags []string
	ids  map[string]int32
}

// NewLabelSet takes the tags in the order of their numbers, as the id2label of a
// checkpoint gives them. It returns an error when a tag is empty or occurs twice,
// and when none of them is O.
func NewLabelSet(tags []string) (LabelSet, error) {
	l := LabelSet{tags: slices.Clone(tags), ids: make(map[string]int32, len(tags))}
	for i, tag := range tags {
		if tag == "" {
			return LabelSet{}, fmt.Errorf("label %d: empty tag", i)
		}
		if other, ok := l.ids[tag]; ok {
			return LabelSet{}, fmt.Errorf("label %d: tag %q is label %d already", i, tag, other)
		}
		l.ids[tag] = int32(i)
	}
	if _, ok := l.ids[Outside]; !ok {
		return LabelSet{}, fmt.Errorf("labels %s: none of them is O, so they are not those of a tagger", list(tags))
	}
	return l, nil
}

// LabelsOf numbers the tags of labelled sentences: O is 0, then follow B and I
// of each type that occurs, sorted by type, so that the numbers do not depend on
// the order of the sentences. Tags must be IOB2 (or IOB1). An error names the
// place of the tag.
func LabelsOf(sentences []data.Sentence) (LabelSet, error) {
	types := map[string]bool{}
	for _, s := range sentences {
		if err := s.Validate(); err != nil {
			return LabelSet{}, err
		}
		if !s.Labelled() {
			return LabelSet{}, fmt.Errorf("%s: no tags", s.Place())
		}
		for i, tag := range s.Tags {
			typ, ok := strings.CutPrefix(tag, "B-")
			if !ok {
				typ, ok = strings.CutPrefix(tag, "I-")
			}
			switch {
			case tag == Outside:
			case !ok || typ == "":
				return LabelSet{}, fmt.Errorf("%s: word %d (%q): tag %q, want O, B-TYPE or I-TYPE", s.Place(), i, s.Words[i], tag)
			default:
				types[typ] = true
			}
		}
	}
	return NewLabelSet(iob2(slices.Sorted(maps.Keys(types))))
}

// LabelsOfTypes numbers the tags for types of entities that are known
// beforehand: O, then B and I of each, in the given order.
func LabelsOfTypes(types ...string) (LabelSet, error) { return NewLabelSet(iob2(types)) }

func iob2(types []string) []string {
	tags := []string{Outside}
	for _, typ := range types {
		tags = append(tags, "B-"+typ, "I-"+typ)
	}
	return tags
}

// Len returns the number of tags.
func (l LabelSet) Len() int { return len(l.tags) }

// Tags returns the tags in the order of their numbers.
func (l LabelSet) Tags() []string { return slices.Clone(l.tags) }

// Tag returns the tag of a label, and O for a number that is not one.
func (l LabelSet) Tag(label int32) string {
	if label < 0 || int(label) >= len(l.tags) {
		return Outside
	}
	return l.tags[label]
}

// ID returns the label of a tag, and whether there is one.
func (l LabelSet) ID(tag string) (label int32, ok bool) {
	label, ok = l.ids[tag]
	return label, ok
}

// Types returns the types of the tags, sorted.
func (l LabelSet) Types() []string {
	types := map[string]bool{}
	for _, tag := range l.tags {
		if prefix, typ := lenient(tag); prefix != 'O' || tag != Outside {
			types[typ] = true
		}
	}
	return slices.Sorted(maps.Keys(types))
}

// Encode returns the label of each word of a labelled sentence. An error names
// the place, the word, the tag, and the tags that are known.
func (l LabelSet) Encode(s data.Sentence) ([]int32, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if !s.Labelled() {
		return nil, fmt.Errorf("%s: no tags", s.Place())
	}
	labels := make([]int32, len(s.Tags))
	for i, tag := range s.Tags {
		label, ok := l.ids[tag]
		if !ok {
			return nil, fmt.Errorf("%s: word %d (%q): unknown tag %q, want one of %s: map it to O when reading, or train a model that has it",
				s.Place(), i, s.Words[i], tag, list(l.tags))
		}
		labels[i] = label
	}
	return labels, nil
}

// LabelsError says how the labels of data differ from those of a checkpoint.
type LabelsError struct {
	OnlyInData       []string // tags that the checkpoint cannot predict, sorted
	OnlyInCheckpoint []string // tags that never occur in the data, sorted
}

// Error lists what is missing on each side.
func (e *LabelsError) Error() string {
	var parts []string
	if len(e.OnlyInData) > 0 {
		parts = append(parts, fmt.Sprintf("the checkpoint has no %s", list(e.OnlyInData)))
	}
	if len(e.OnlyInCheckpoint) > 0 {
		parts = append(parts, fmt.Sprintf("the data has no %s", list(e.OnlyInCheckpoint)))
	}
	return "labels of data and checkpoint differ: " + strings.Join(parts, "; ")
}

// Match compares the labels of a checkpoint with those of data, in any order. If
// they are not the same tags, the error is a [*LabelsError]. Whoever only
// evaluates can accept one with an empty OnlyInData; see [LabelSet.Cover].
func (l LabelSet) Match(ofData LabelSet) error {
	var e LabelsError
	for _, tag := range ofData.tags {
		if _, ok := l.ids[tag]; !ok {
			e.OnlyInData = append(e.OnlyInData, tag)
		}
	}
	for _, tag := range l.tags {
		if _, ok := ofData.ids[tag]; !ok {
			e.OnlyInCheckpoint = append(e.OnlyInCheckpoint, tag)
		}
	}
	if e.OnlyInData == nil && e.OnlyInCheckpoint == nil {
		return nil
	}
	slices.Sort(e.OnlyInData)
	slices.Sort(e.OnlyInCheckpoint)
	return &e
}

// Cover is Match for evaluation: tags that never occur in the data are no error.
func (l LabelSet) Cover(ofData LabelSet) error {
	err := l.Match(ofData)
	if e := (*LabelsError)(nil); errors.As(err, &e) && len(e.OnlyInData) == 0 {
		return nil
	}
	return err
}

// coverAll is Cover for sentences; the error names the first place that is not covered.
func (l LabelSet) coverAll(sentences []data.Sentence) error {
	ofData, err := LabelsOf(sentences)
	if err != nil {
		return err
	}
	if err = l.Cover(ofData); err == nil {
		return nil
	}
	for _, s := range sentences {
		if _, place := l.Encode(s); place != nil {
			return fmt.Errorf("%w; first at %w", err, place)
		}
	}
	return err
}

// list writes tags as "O, B-LOC, I-LOC".
func list(tags []string) string {
	if len(tags) == 0 {
		return "(none)"
	}
	return strings.Join(tags, ", ")
}
