package study

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/elastic-attention/workbench/pkg/eval"
)

// Table compares with something that is the same for all its rows.
type Table struct {
	Title string `json:"title"`
	// Caption says what is compared, and how.
	Caption string `json:"caption"`
	Rows    []Row  `json:"rows"`
}

// Row is one comparison on one set.
type Row struct {
	Set  string `json:"set"`
	Name string `json:"name"` // the variant or the adaptation
	eval.Difference
	// Adjusted is the p-value after Holm's correction for all rows of the table.
	Adjusted float64 `json:"adjusted"`
	// Cost is the CPU time of scoring the set over that of what it is compared with, each the
	// least over the seeds, so that no compilation is in it. 0 if the times are not known.
	Cost float64 `json:"cost"`
	// Note is what else must be said.
	Note string `json:"note,omitempty"`
}

// pairs are the scores of two systems under the seeds that both have.
type pairs struct{ from, to []Score }

// Variants compares each variant with the first one, on dev and each test set, without adaptation.
// Seeds that either lacks are left out; a variant without results has no row.
func (f *Folder) Variants(b eval.Bootstrap) (Table, error) {
	base := f.Config.Variants[0].Name
	table := Table{
		Title:   "Variants against " + base,
		Caption: "Every variant was trained with the same seeds, and scored on the same examples, as " + base + ".",
	}
	for _, set := range append([]string{f.Config.Dev.Name}, f.Config.setNames()...) {
		for _, v := range f.Config.Variants[1:] {
			var p pairs
			note := ""
			for _, seed := range f.Config.Seeds {
				first, _ := find(f.Results, base, seed)
				other, _ := find(f.Results, v.Name, seed)
				p.add(first, other, set, "", "")
				if len(other.Parts) > 0 {
					note = strings.Join(other.Parts, " + ")
				}
			}
			if err := table.add(set, v.Name, note, p, b); err != nil {
				return table, err
			}
		}
	}
	return table.adjusted(), nil
}

// Adaptations compares each adaptation at test time with none, of the same trained models.
func (f *Folder) Adaptations(b eval.Bootstrap) (Table, error) {
	table := Table{
		Title:   "Adaptation at test time against none",
		Caption: "The same trained models were scored on the same examples, once as they were and once adapting.",
	}
	for _, set := range f.Config.setNames() {
		for _, v := range f.Config.Variants {
			for _, a := range f.Config.Adaptations {
				var p pairs
				resets, stopped := 0, 0
				for _, seed := range f.Config.Seeds {
					result, _ := find(f.Results, v.Name, seed)
					p.add(result, result, set, "", a.Name)
				}
				for _, score := range p.to {
					resets += score.Resets
					if score.Stopped {
						stopped++
					}
				}
				note := ""
				if resets > 0 {
					note = fmt.Sprintf("the guard put %d times back, and stopped %d of %d runs", resets, stopped, len(p.to))
				}
				if err := table.add(set, v.Name+", "+a.Name, note, p, b); err != nil {
					return table, err
				}
			}
		}
	}
	return table.adjusted(), nil
}

func (p *pairs) add(first, other Result, set, before, after string) {
	from, ok := first.score(set, before)
	to, okToo := other.score(set, after)
	if ok && okToo {
		p.from, p.to = append(p.from, from), append(p.to, to)
	}
}

func (t *Table) add(set, name, note string, p pairs, b eval.Bootstrap) error {
	if len(p.from) == 0 {
		return nil
	}
	outcomes := func(scores []Score) []eval.Outcomes {
		list := make([]eval.Outcomes, len(scores))
		for i, s := range scores {
			list[i] = s.Outcomes
		}
		return list
	}
	difference, err := eval.Compare(outcomes(p.from), outcomes(p.to), b)
	if err != nil {
		return fmt.Errorf("comparing %q on %q: %w", name, set, err)
	}
	cost := 0.0
	if before := leastTime(p.from); before > 0 {
		cost = leastTime(p.to) / before
	}
	t.Rows = append(t.Rows, Row{Set: set, Name: name, Difference: difference, Cost: cost, Note: note})
	return nil
}

// leastTime is the least CPU time of some scores: that of one during which nothing was compiled.
func leastTime(scores []Score) float64 {
	least := math.Inf(1)
	for _, s := range scores {
		least = min(least, s.CPUSeconds)
	}
	return least
}

func (t Table) adjusted() Table {
	p := make([]float64, len(t.Rows))
	for i, row := range t.Rows {
		p[i] = row.P
	}
	for i, p := range eval.Holm(p) {
		t.Rows[i].Adjusted = p
	}
	return t
}

// Sets lists the sets of the rows, in order.
func (t Table) Sets() []string {
	var sets []string
	for _, row := range t.Rows {
		if !slices.Contains(sets, row.Set) {
			sets = append(sets, row.Set)
		}
	}
	return sets
}

// On returns the rows of a set.
func (t Table) On(set string) []Row {
	return slices.DeleteFunc(slices.Clone(t.Rows), func(row Row) bool { return row.Set != set })
}

// Markdown writes the table, set by set, in points of F1 (for classes: of accuracy).
func (t Table) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n%s\nNumbers are points (100·F1; of classes and bytes, accuracy), means over seeds; differences with 95 %% intervals of the paired bootstrap;\np-values by Holm's correction over all %d rows; the effect is Cohen's d_z over seeds; the least is that of the worst seed.\n", t.Title, t.Caption, len(t.Rows))
	for _, set := range t.Sets() {
		rows := t.On(set)
		fmt.Fprintf(&b, "\n**%s** (%d examples)\n\n", set, rows[0].Examples)
		b.WriteString("| | before | with | difference | 95 % interval | p (Holm) | effect | least | cost | seeds | |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
		for _, r := range rows {
			fmt.Fprintf(&b, "| %s | %.1f | %.1f | %s | %s to %s | %s | %+.1f | %s | %s | %d | %s |\n",
				r.Name, 100*r.From, 100*r.To, points(r.Difference.Difference), points(r.Low), points(r.High), probability(r.Adjusted), r.Effect, points(r.Least), times(r.Cost), r.Seeds, r.Note)
		}
	}
	return b.String()
}

func points(x float64) string {
	if math.Abs(x) < 0.00005 {
		return "0.00"
	}
	return fmt.Sprintf("%+.2f", 100*x)
}

func probability(p float64) string {
	if p >= 0.995 {
		return "1"
	}
	return fmt.Sprintf("%.3f", p)
}

func times(cost float64) string {
	if cost == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f×", cost)
}
