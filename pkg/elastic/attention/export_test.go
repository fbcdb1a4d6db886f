package attention

// HardConcreteGate is hardConcrete, for tests that give the noise.
var HardConcreteGate = hardConcrete

// MayAllow is mayAllow.
func MayAllow(m Mask, firstQuery, lastQuery, firstKey, lastKey int) bool {
	return mayAllow(m, interval{firstQuery, lastQuery}, interval{firstKey, lastKey})
}

// SetTile sets how many logits a step of blockwise attention should work on, and returns what sets it back.
func SetTile(logits int) (back func()) {
	before := tile
	tile = logits
	return func() { tile = before }
}

// BlockSize is blockSize.
func BlockSize(heads, length int, logits func(size int) int) int {
	return blockSize(heads, length, logits)
}
