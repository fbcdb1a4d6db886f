package backend

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText writes the report for people, in aligned columns, with more rows of names and texts before those of the caches.
func (r Report) WriteText(w io.Writer, more ...[2]string) error {
	var buffer bytes.Buffer
	table := tabwriter.NewWriter(&buffer, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	m := r.Machine
	row("machine", "%s", joined(", ", m.OS, m.System, prefixed("kernel ", m.Kernel), m.Libc))
	row("cpu", "%s", joined(", ", m.CPU, fmt.Sprintf("%d cores", m.Cores), quotaText(m.Quota), orNone(strings.Join(m.Features, " "))))
	memory := "unknown"
	if m.Memory > 0 {
		memory = bytesText(m.Memory)
	}
	if m.Limit > 0 {
		memory += ", container limited to " + bytesText(m.Limit)
	}
	row("memory", "%s", memory)
	simd := "without simd"
	if r.Build.SIMD {
		simd = "with simd"
	}
	row("program", "%s", joined(", ", r.Build.Go, simd, prefixed("gomlx ", r.Build.GoMLX), prefixed("go-xla ", r.Build.XLA)))
	if c := r.Backend; c != nil {
		row("backend", "%s", strings.TrimPrefix(c.String(), "backend "))
		if c.PJRT != "" {
			row("plugin", "%s", joined(", ", c.Plugin, prefixed("version ", c.Version), "PJRT API "+c.PJRT))
			row("donation", "%s", c.Donation)
		}
		row("devices", "%d", len(c.Devices))
		for _, device := range c.Devices {
			row("", "%s", device)
		}
	} else {
		row("backend", "none: %s", r.Error)
	}
	if s := r.Speed; s != nil {
		row("speed", "%.1f GFLOP/s (matrices %d x %d, best of %d in %.1f s)", s.GFLOPS, s.Size, s.Size, s.Runs, s.Seconds)
	}
	for _, p := range r.Plugins {
		state := "usable"
		if p.Problem != "" {
			state = p.Problem
		}
		row("found plugin", "%s: %s", p.Path, state)
	}
	for _, m := range more {
		row(m[0], "%s", m[1])
	}
	for _, c := range r.Caches {
		row("cache "+c.What, "%s  %s", bytesText(c.Bytes), c.Path)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(r.Findings) == 0 {
		buffer.WriteString("\nnothing is missing\n")
	} else {
		buffer.WriteString("\nwhat to do:\n")
	}
	for i, f := range r.Findings {
		fmt.Fprintf(&buffer, "%d. %s\n   -> %s\n", i+1, f.What, f.Do)
	}
	_, err := w.Write(buffer.Bytes())
	return err
}

func joined(sep string, parts ...string) string {
	var list []string
	for _, part := range parts {
		if part != "" {
			list = append(list, part)
		}
	}
	return strings.Join(list, sep)
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func quotaText(quota float64) string {
	if quota == 0 {
		return ""
	}
	return fmt.Sprintf("container limited to %.1f", quota)
}

// bytesText writes a number of bytes with the unit that fits.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.0f kB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
