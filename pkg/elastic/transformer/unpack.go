package transformer

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/support/exceptions"
)

// Unpack gives each text a row of its own, out of rows that several texts share: the form
// in which a head that pools takes them. Hidden is [rows, length, hidden]; starts and
// lengths, int32 [texts], say where each text begins, counted over all rows, and how many
// tokens it has, of which 0 means that there is no such text. It returns tokens
// [texts, length, hidden] and their mask, boolean [texts, length], true for tokens. What the
// mask excludes is tokens of other texts, and no gradient passes through it if the mask is
// used.
func Unpack(hidden, starts, lengths *Node) (tokens, mask *Node) {
	if hidden.Rank() != 3 || starts.Rank() != 1 || !starts.Shape().Equal(lengths.Shape()) || starts.DType() != dtypes.Int32 {
		exceptions.Panicf("Unpack needs hidden states [rows, length, hidden] and int32 starts and lengths [texts], got %s, %s and %s",
			hidden.Shape(), starts.Shape(), lengths.Shape())
	}
	g, dims := hidden.Graph(), hidden.Shape().Dimensions
	texts, length := starts.Shape().Dimensions[0], dims[1]
	offset := Iota(g, shapes.Make(dtypes.Int32, texts, length), 1)
	at := Add(BroadcastToDims(InsertAxes(starts, -1), texts, length), offset)
	at = MinScalar(at, int32(dims[0]*length-1))
	mask = LessThan(offset, BroadcastToDims(InsertAxes(lengths, -1), texts, length))
	tokens = Gather(Reshape(hidden, -1, dims[2]), InsertAxes(at, -1)) // [texts, length, hidden]
	return tokens, mask
}
