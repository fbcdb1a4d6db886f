package viz

import (
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
)

// thin leaves of the points that fall into one column of pixels the first, the lowest, the highest and the last: the
// picture of a line stays what it is, and a million points do not become a page of a hundred megabytes. Points stand in the
// order of x; if they do not, all are kept.
//
// Source: Jugel et al. 2014, "M4: a visualization-oriented time series data aggregation".
func thin(points plotter.XYs, axis *plot.Axis, columns int) plotter.XYs {
	if len(points) <= 4*columns {
		return points
	}
	column := func(i int) int { return int(axis.Norm(points[i].X) * float64(columns)) }
	var out plotter.XYs
	for start := 0; start < len(points); {
		end, low, high := start, start, start
		for ; end < len(points) && column(end) == column(start); end++ {
			if end > 0 && points[end].X < points[end-1].X {
				return points
			}
			if points[end].Y < points[low].Y {
				low = end
			}
			if points[end].Y > points[high].Y {
				high = end
			}
		}
		last := start - 1
		for _, i := range []int{start, min(low, high), max(low, high), end - 1} {
			if i > last {
				out, last = append(out, points[i]), i
			}
		}
		start = end
	}
	return out
}
