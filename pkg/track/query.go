package track

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Query says which runs are wanted, and in which order.
type Query struct {
	// Where are conditions that all must hold: a field, one of = != < <= > >= ~ (has as a part), and a value, as in
	// "status=finished", "test/f1>=0.8", "config.train.seed=42", "tag=good", "id~claim". Numbers are compared as numbers.
	// A run that has no such field fits != only; one that no run has is a [*NameError]. A status that there is not, and an
	// order (< <= > >=) of numbers against a word, are errors.
	Where []string
	// Sort is a field, with - before it for the greatest first. Runs without it, and NaN, come last. Empty is -started. One
	// that no run has is a [*NameError].
	Sort string
	// Limit is the greatest number of runs; 0 is all.
	Limit int
	// Show are further fields that there must be, of which whoever asks makes columns.
	Show []string
}

// fields are those that every run can have, beside config.… and metrics.
var fields = []string{"code", "ended", "error", "from", "host", "id", "note", "seconds", "seed", "started", "status", "tag", "task"}

// Fields lists the names that [Run.Field] knows of runs: those that every run can have, config.… of their configs, metrics.
func Fields(runs ...Run) []string {
	names := map[string]bool{}
	for _, name := range fields {
		names[name] = true
	}
	for _, r := range runs {
		for path := range r.Fields() {
			names["config."+path] = true
		}
		for _, m := range r.Metrics {
			names[m.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// NameError is about a name that nothing has.
type NameError struct {
	What string // "field", "metric"
	Name string
	// Known are the names that there are, the nearest first.
	Known []string
}

// CheckName returns a [*NameError] unless a name is among those that are known.
func CheckName(what, name string, known []string) error {
	if slices.Contains(known, name) {
		return nil
	}
	nearest := slices.Clone(known)
	slices.SortStableFunc(nearest, func(a, b string) int { return cmp.Compare(distance(name, a), distance(name, b)) })
	return &NameError{What: what, Name: name, Known: nearest}
}

// Error lists the nearest names.
func (e *NameError) Error() string {
	const most = 12
	if len(e.Known) == 0 {
		return fmt.Sprintf("no run has the %s %q, nor any other", e.What, e.Name)
	}
	text := fmt.Sprintf("no run has the %s %q; there are %s", e.What, e.Name, strings.Join(e.Known[:min(most, len(e.Known))], ", "))
	if n := len(e.Known) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// distance says how unlike two names are: the number of letters to insert, delete or change (Levenshtein 1966). A name of
// which the other is a part, as f1 is of final/test/f1, is nearer than any other.
func distance(wrong, name string) float64 {
	wrong, name = strings.ToLower(wrong), strings.ToLower(name)
	if strings.Contains(name, wrong) {
		return 1 - 1/float64(1+len(name)-len(wrong))
	}
	a, b := []rune(wrong), []rune(name)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i, letter := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j := range b {
			change := diagonal
			if letter != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return float64(row[len(b)])
}

// Runs returns the runs that a query wants.
func (s *Store) Runs(ctx context.Context, q Query) ([]Run, error) {
	conditions := make([]condition, len(q.Where))
	for i, text := range q.Where {
		var err error
		if conditions[i], err = parseCondition(text); err != nil {
			return nil, err
		}
	}
	if q.Limit < 0 {
		return nil, fmt.Errorf("limit is %d, want 0 or more", q.Limit)
	}
	runs, err := s.all(ctx)
	if err != nil {
		return nil, err
	}
	field, descending := strings.CutPrefix(q.Sort, "-")
	if field == "" {
		field, descending = "started", true
	}
	asked := append([]string{field}, q.Show...)
	for _, c := range conditions {
		asked = append(asked, c.field)
	}
	if len(runs) > 0 { // else nothing is known, and nothing to be found
		known := Fields(runs...)
		for _, name := range asked {
			if err := CheckName("field", name, known); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range conditions {
		if err := c.check(runs); err != nil {
			return nil, err
		}
	}
	runs = slices.DeleteFunc(runs, func(r Run) bool {
		return slices.ContainsFunc(conditions, func(c condition) bool { return !c.holds(r) })
	})
	slices.SortStableFunc(runs, func(a, b Run) int { return order(a.Field(field), b.Field(field), descending) })
	if q.Limit > 0 {
		runs = runs[:min(q.Limit, len(runs))]
	}
	return runs, nil
}

// order compares two values; empty ones and NaN come last either way.
func order(a, b string, descending bool) int {
	x, xErr := strconv.ParseFloat(a, 64)
	y, yErr := strconv.ParseFloat(b, 64)
	last := func(text string, v float64, err error) bool { return text == "" || err == nil && math.IsNaN(v) }
	switch lastA, lastB := last(a, x, xErr), last(b, y, yErr); {
	case lastA && lastB:
		return 0
	case lastA:
		return 1
	case lastB:
		return -1
	}
	c := strings.Compare(a, b)
	if xErr == nil && yErr == nil {
		c = cmp.Compare(x, y)
	}
	if descending {
		return -c
	}
	return c
}

// Field returns a field of a run as text, empty if there is none: id, status, task, seed, started, ended, seconds, host,
// error, from (the run from which it went on), note, code (the revision; with + and a checksum if it had changes that were not committed), a field of the config ("config.train.seed"), or the last value of a metric by its
// name. Tags are joined by commas.
func (r Run) Field(name string) string {
	switch name {
	case "id":
		return r.ID
	case "status":
		return string(r.Status)
	case "task":
		return r.Task
	case "seed":
		return strconv.FormatUint(r.Seed, 10)
	case "started":
		if r.Started.IsZero() {
			return "" // the record cannot be read
		}
		return r.Started.UTC().Format("2006-01-02 15:04:05")
	case "ended":
		if r.Ended.IsZero() {
			return ""
		}
		return r.Ended.UTC().Format("2006-01-02 15:04:05")
	case "seconds":
		if r.Ended.IsZero() || r.Started.IsZero() {
			return ""
		}
		return strconv.FormatFloat(r.Took().Seconds(), 'f', 0, 64)
	case "host":
		if len(r.Machines) == 0 {
			return ""
		}
		return r.Machines[len(r.Machines)-1].Host
	case "error":
		return r.Error
	case "from":
		if r.Parent == nil {
			return ""
		}
		return fmt.Sprintf("%s after update %d", r.Parent.Run, r.Parent.Update)
	case "note":
		return r.Notes.Text
	case "tag":
		return strings.Join(r.Notes.Tags, ",")
	case "code":
		return r.code()
	}
	if path, ok := strings.CutPrefix(name, "config."); ok {
		return r.Fields()[path]
	}
	if m, ok := r.Metric(name); ok {
		return strconv.FormatFloat(m.Last, 'g', -1, 64)
	}
	return ""
}

// Fields returns the config's fields by their paths, "train.optimizer.kind", as text. Elements of lists have their number
// as a name. A config in which nothing is set has none.
func (r Run) Fields() map[string]string {
	fields := map[string]string{}
	content, err := json.Marshal(r.Config)
	var tree any
	if err != nil || json.Unmarshal(content, &tree) != nil {
		return fields
	}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		prefix := ""
		if path != "" {
			prefix = path + "."
		}
		switch value := value.(type) {
		case map[string]any:
			for name, child := range value {
				walk(prefix+name, child)
			}
		case []any:
			for i, child := range value {
				walk(prefix+strconv.Itoa(i), child)
			}
		case string:
			fields[path] = value
		case nil:
		default:
			text, _ := json.Marshal(value) // a number or a truth value
			fields[path] = string(text)
		}
	}
	walk("", tree)
	return fields
}

type condition struct{ field, operator, value string }

var operators = []string{"!=", "<=", ">=", "=", "<", ">", "~"} // the longer ones first

func parseCondition(text string) (condition, error) {
	if at := strings.IndexAny(text, "!=<>~"); at > 0 {
		for _, operator := range operators {
			if value, ok := strings.CutPrefix(text[at:], operator); ok {
				if operator == "=" { // == is what programmers write
					value = strings.TrimPrefix(value, "=")
				}
				return condition{strings.TrimSpace(text[:at]), operator, strings.TrimSpace(value)}, nil
			}
		}
	}
	return condition{}, fmt.Errorf("condition %q is none: want a field, one of %s, and a value, as in status=finished", text, strings.Join(operators, " "))
}

// check refuses values that no run could have.
func (c condition) check(runs []Run) error {
	equality := c.operator == "=" || c.operator == "!="
	if c.field == "status" && equality && !slices.Contains(statuses, c.value) {
		return fmt.Errorf("status %q is none; there are %s", c.value, strings.Join(statuses, ", "))
	}
	if equality || c.operator == "~" || isNumber(c.value) {
		return nil
	}
	numbers := 0
	for _, r := range runs {
		switch got := r.Field(c.field); {
		case got == "":
		case !isNumber(got):
			return nil
		default:
			numbers++
		}
	}
	if numbers > 0 {
		return fmt.Errorf("condition %s%s%s: %q is no number, and those of %s are", c.field, c.operator, c.value, c.value, c.field)
	}
	return nil
}

// isNumber reports whether a text is one.
func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil
}

func (c condition) holds(r Run) bool {
	if c.field == "tag" { // a run has many
		switch has := slices.Contains(r.Notes.Tags, c.value); c.operator {
		case "=":
			return has
		case "!=":
			return !has
		}
	}
	got := r.Field(c.field)
	if c.operator == "~" {
		return strings.Contains(got, c.value)
	}
	if got == "" {
		return (c.value == "") == (c.operator == "=") && (c.operator == "=" || c.operator == "!=")
	}
	sign := strings.Compare(got, c.value)
	x, xErr := strconv.ParseFloat(got, 64)
	y, yErr := strconv.ParseFloat(c.value, 64)
	if xErr == nil && yErr == nil {
		if math.IsNaN(x) || math.IsNaN(y) { // equal to each other only, and not ordered
			same := math.IsNaN(x) && math.IsNaN(y)
			return c.operator == "=" && same || c.operator == "!=" && !same
		}
		sign = cmp.Compare(x, y)
	}
	switch c.operator {
	case "=":
		return sign == 0
	case "!=":
		return sign != 0
	case "<":
		return sign < 0
	case "<=":
		return sign <= 0
	case ">":
		return sign > 0
	}
	return sign >= 0
}

// code is the revision of the code, with the beginning of the checksum of what was not committed.
func (r Run) code() string {
	changed := r.Versions["vcs.diff_sha256"]
	if changed == "" {
		changed = r.Versions["executable_sha256"]
	}
	if changed == "" {
		return r.Versions["vcs.revision"]
	}
	return r.Versions["vcs.revision"] + "+" + changed[:min(len(changed), 12)]
}

// Comparison puts runs side by side.
type Comparison struct {
	Runs []Run `json:"runs"`
	// Differing are the fields of configs, and the seed, code and checksums, that are not the same in all runs.
	Differing []Row `json:"differing"`
	// Metrics are the last values.
	Metrics []Row `json:"metrics"`
}

// Row is one line of a [Comparison].
type Row struct {
	Name string `json:"name"`
	// Values has one for each run, empty where it has none.
	Values []string `json:"values"`
	// Best are the places of the best values, if better can be told from worse: lower is better where the name has a
	// part loss, error, perplexity, bits or seconds, higher where it has f1, accuracy, precision, recall, score, bleu or auc. None
	// if one run only has it, or all are equal.
	Best []int `json:"best,omitempty"`
}

// Compare says in what runs differ.
func Compare(runs ...Run) Comparison {
	c := Comparison{Runs: runs}
	settings, metrics := map[string]bool{}, map[string]bool{}
	all := make([]map[string]string, len(runs))
	for i, r := range runs {
		all[i] = map[string]string{"task": r.Task, "seed": strconv.FormatUint(r.Seed, 10), "code": r.code()}
		for path, value := range r.Fields() {
			all[i]["config."+path] = value
		}
		for what, sums := range map[string]map[string]string{"data": r.Data, "model": r.Model} {
			for name, sum := range sums {
				all[i][what+" "+name] = sum[:min(len(sum), 12)]
			}
		}
		for name := range all[i] {
			settings[name] = true
		}
		for _, m := range r.Metrics {
			metrics[m.Name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		row := Row{Name: name}
		for i := range runs {
			row.Values = append(row.Values, all[i][name])
		}
		if slices.ContainsFunc(row.Values, func(v string) bool { return v != row.Values[0] }) {
			c.Differing = append(c.Differing, row)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		row := Row{Name: name}
		for _, r := range runs {
			row.Values = append(row.Values, r.Field(name))
		}
		row.Best = best(name, row.Values)
		c.Metrics = append(c.Metrics, row)
	}
	return c
}

// Direction tells whether greater values of a metric are better (1), lower ones (-1), or whether its name does not say (0).
func Direction(name string) int {
	parts := strings.FieldsFunc(strings.ToLower(name), func(c rune) bool { return strings.ContainsRune("/_-. ", c) })
	for words, sign := range map[string]int{"loss error perplexity bits seconds": -1, "f1 accuracy precision recall score bleu auc": 1} {
		for _, word := range strings.Fields(words) {
			if slices.Contains(parts, word) {
				return sign
			}
		}
	}
	return 0
}

// Headlines returns the metrics by which runs are looked at first, as far as any has them: train/loss, and up to three
// scores, those of finished models before others. Precision, recall and averages over classes stand behind F1 and accuracy.
func Headlines(runs ...Run) []string { return first(runs, 3, func(Metric) bool { return true }) }

// Curves returns the metrics whose curves are looked at first: train/loss, and up to three scores of more than one point.
func Curves(runs ...Run) []string { return first(runs, 3, func(m Metric) bool { return m.Count > 1 }) }

func first(runs []Run, n int, fits func(Metric) bool) []string {
	found := map[string]bool{}
	for _, r := range runs {
		for _, m := range r.Metrics {
			part := func(part string) bool { return strings.Contains(m.Name, part) }
			if fits(m) && (m.Name == "train/loss" || Direction(m.Name) > 0 && !slices.ContainsFunc([]string{"macro", "precision", "recall"}, part)) {
				found[m.Name] = true
			}
		}
	}
	places := []string{"train/loss", "final/test", "final/", "test/", "dev/"}
	rank := func(name string) int {
		at := slices.IndexFunc(places, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if at < 0 {
			return len(places)
		}
		return at
	}
	names := slices.SortedFunc(maps.Keys(found), func(a, b string) int { return cmp.Or(rank(a)-rank(b), strings.Compare(a, b)) })
	if found["train/loss"] {
		n++
	}
	return names[:min(n, len(names))]
}

func best(name string, values []string) (at []int) {
	sign := float64(Direction(name))
	top := math.Inf(-1)
	if there := slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" }); sign == 0 || len(slices.Compact(there)) < 2 {
		return nil
	}
	for i, text := range values {
		v, err := strconv.ParseFloat(text, 64)
		switch v *= sign; {
		case err != nil || math.IsNaN(v) || v < top:
		case v > top || at == nil:
			at, top = []int{i}, v
		default:
			at = append(at, i)
		}
	}
	return at
}
