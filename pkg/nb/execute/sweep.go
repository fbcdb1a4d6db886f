package execute

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Axis is a parameter of a sweep and the values that it takes.
type Axis struct {
	Name   string
	Values []string
}

// Points returns all combinations of the axes' values, the last axis changing fastest; without axes it is one point
// without parameters.
func Points(axes []Axis) []map[string]string {
	points := []map[string]string{{}}
	for _, axis := range axes {
		var more []map[string]string
		for _, point := range points {
			for _, value := range axis.Values {
				p := maps.Clone(point)
				p[axis.Name] = value
				more = append(more, p)
			}
		}
		points = more
	}
	return points
}

// Table holds what the points of a sweep found.
type Table struct {
	Notebook string   `json:"notebook"`
	Axes     []string `json:"axes"`
	Rows     []Row    `json:"rows"`
}

// Row is one point of a sweep.
type Row struct {
	File   string `json:"file"` // the executed notebook
	Report Report `json:"report"`
}

// Results returns the names of all numbers that the rows declare, sorted.
func (t Table) Results() []string {
	names := map[string]bool{}
	for _, row := range t.Rows {
		for name := range row.Report.Results {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Markdown writes the table: parameters, results, time, and which executed notebook has more.
func (t Table) Markdown() string {
	results := t.Results()
	var b strings.Builder
	b.WriteString("| " + strings.Join(slices.Concat(t.Axes, results), " | ") + " | seconds | notebook |\n|" +
		strings.Repeat("---|", len(t.Axes)) + strings.Repeat("---:|", len(results)+1) + "---|\n")
	for _, row := range t.Rows {
		for _, axis := range t.Axes {
			fmt.Fprintf(&b, "| %s ", strings.ReplaceAll(row.Report.Params[axis], "|", `\|`))
		}
		for _, name := range results {
			if value, ok := row.Report.Results[name]; ok {
				fmt.Fprintf(&b, "| %g ", value)
			} else {
				b.WriteString("|  ")
			}
		}
		failed := ""
		if !row.Report.OK {
			failed = ", FAILED"
		}
		fmt.Fprintf(&b, "| %.1f | %s%s |\n", row.Report.Seconds, row.File, failed)
	}
	return b.String()
}

// JSON writes the table for programs.
func (t Table) JSON() ([]byte, error) {
	text, err := json.MarshalIndent(t, "", "  ")
	return append(text, '\n'), err
}

var unusual = regexp.MustCompile(`[^\w.+=-]+`)

// PointFile returns the name of the executed notebook of a point: that of the notebook, and the parameters.
func PointFile(notebook string, axes []string, point map[string]string) string {
	name := strings.TrimSuffix(notebook, ".ipynb")
	for _, axis := range axes {
		name += "," + axis + "=" + unusual.ReplaceAllString(point[axis], "_")
	}
	return name + ".ipynb"
}
