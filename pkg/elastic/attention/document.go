package attention

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Document lets a query attend to keys of its own document: several texts share a row
// and are told apart by Inputs.QueryDocuments and KeyDocuments. Document 0 is padding,
// which nothing attends to.
//
// Source: Krell et al. 2021, "Efficient sequence packing without cross-contamination".
type Document struct{ plain }

// Kind returns "document".
func (Document) Kind() string { return "document" }

// Allowed implements [Mask].
func (Document) Allowed(t *Tile) *Node {
	if t.QueryDocuments == nil || t.KeyDocuments == nil {
		exceptions.Panicf("attention mask \"document\" needs the documents of queries and keys in the input")
	}
	queries, keys := InsertAxes(t.QueryDocuments, 1, -1), InsertAxes(t.KeyDocuments, 1, 1) // [b, 1, q, 1], [b, 1, 1, k]
	return LogicalAnd(Equal(queries, keys), NotEqual(keys, number(keys, 0)))
}
