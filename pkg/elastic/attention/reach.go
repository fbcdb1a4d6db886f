package attention

import (
	"math"
	"slices"
)

// interval is a range of positions, both ends included.
type interval struct{ low, high int }

func (a interval) meets(b interval) bool { return a.low <= b.high && b.low <= a.high }

// builtinMask tells whether a mask is of this package, all the way down: then its graph may be part
// of a loop, and [mayAllow] knows what it does.
func builtinMask(m Mask) bool {
	switch m := m.(type) {
	case nil, Causal, Window, Band, SinkWindow, Dilated, Chunk, Prefix, Document:
		return true
	case All:
		return !slices.ContainsFunc(m, foreignMask)
	case Any:
		return !slices.ContainsFunc(m, foreignMask)
	case None:
		return !slices.ContainsFunc(m, foreignMask)
	}
	return false
}

func foreignMask(m Mask) bool { return !builtinMask(m) }

// mayAllow tells whether a mask may allow any of the queries any of the keys. It never says
// false of a pair that the mask allows, so blocks for which it does can be left out.
func mayAllow(m Mask, queries, keys interval) bool {
	back := func(size int) interval { return interval{queries.low - size + 1, queries.high} }
	switch m := m.(type) {
	case Causal:
		return keys.low <= queries.high
	case Window:
		return keys.meets(back(m.Size))
	case Band:
		return keys.meets(interval{queries.low - m.Radius, queries.high + m.Radius})
	case SinkWindow:
		return keys.meets(back(m.Size)) || keys.low < m.Sinks && keys.low <= queries.high
	case Dilated:
		return keys.meets(back((m.Size-1)*m.Step + 1))
	case Chunk:
		return queries.low/m.Size <= keys.high/m.Size && keys.low/m.Size <= queries.high/m.Size
	case Prefix:
		return keys.low < m.Length || keys.low <= queries.high
	case All:
		return !slices.ContainsFunc(m, func(part Mask) bool { return !mayAllow(part, queries, keys) })
	case Any:
		return slices.ContainsFunc(m, func(part Mask) bool { return mayAllow(part, queries, keys) })
	}
	return true
}

// unlimited is a reach without limit.
const unlimited = math.MaxInt32

// reach returns how far before and after its own position a query can see at most.
func reach(m Mask) (back, ahead int) {
	switch m := m.(type) {
	case Causal:
		return unlimited, 0
	case Window:
		return m.Size - 1, 0
	case Band:
		return m.Radius, m.Radius
	case SinkWindow:
		return unlimited, 0
	case Dilated:
		return (m.Size - 1) * m.Step, 0
	case Chunk:
		return m.Size - 1, m.Size - 1
	case All:
		back, ahead = unlimited, unlimited
		for _, part := range m {
			b, a := reach(part)
			back, ahead = min(back, b), min(ahead, a)
		}
		return back, ahead
	case Any:
		for _, part := range m {
			b, a := reach(part)
			back, ahead = max(back, b), max(ahead, a)
		}
		return back, ahead
	}
	return unlimited, unlimited
}
