package tokenizer

import (
	"cmp"
	"slices"
)

// A trie finds the keys that begin a text. Nodes are numbered breadth first, so that
// the children of a node stand together: 9 bytes a node.
type trie struct {
	label []byte  // last byte of the way to the node
	first []int32 // first[i]..first[i+1] are the children of node i, by label
	value []int32 // -1 where no key ends
}

type keyValue struct {
	key   string
	value int32
}

// newTrie sorts entries. Of equal keys the first after sorting wins, the one with the lowest value.
func newTrie(entries []keyValue) *trie {
	slices.SortFunc(entries, func(a, b keyValue) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.value, b.value))
	})
	t := &trie{label: []byte{0}}
	type group struct{ lo, hi, depth int }
	groups := []group{{0, len(entries), 0}} // the entries below each node
	for node := 0; node < len(t.label); node++ {
		g := groups[node]
		t.first = append(t.first, int32(len(t.label)))
		value := int32(-1)
		for g.lo < g.hi && len(entries[g.lo].key) == g.depth {
			if value < 0 {
				value = entries[g.lo].value
			}
			g.lo++
		}
		t.value = append(t.value, value)
		for lo := g.lo; lo < g.hi; {
			b := entries[lo].key[g.depth]
			hi := lo + 1
			for hi < g.hi && entries[hi].key[g.depth] == b {
				hi++
			}
			t.label = append(t.label, b)
			groups = append(groups, group{lo, hi, g.depth + 1})
			lo = hi
		}
	}
	t.first = append(t.first, int32(len(t.label)))
	return t
}

// child returns the node that b leads to, -1 if none.
func (t *trie) child(node int32, b byte) int32 {
	lo, hi := t.first[node], t.first[node+1]
	for hi-lo > 8 {
		mid := int32(uint32(lo+hi) >> 1)
		if t.label[mid] <= b {
			lo = mid
		} else {
			hi = mid
		}
	}
	for ; lo < hi; lo++ {
		if t.label[lo] == b {
			return lo
		}
	}
	return -1
}

// walk returns the node that key leads to, -1 if none.
func (t *trie) walk(node int32, key string) int32 {
	for i := 0; i < len(key) && node >= 0; i++ {
		node = t.child(node, key[i])
	}
	return node
}

// longest returns the length and value of the longest key, not empty, with which text begins
// below node, or 0.
func longest[T string | []byte](t *trie, node int32, text T) (size int, value int32) {
	value = -1
	for i := range len(text) {
		if node = t.child(node, text[i]); node < 0 {
			break
		}
		if v := t.value[node]; v >= 0 {
			size, value = i+1, v
		}
	}
	return size, value
}
