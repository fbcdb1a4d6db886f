package attention

// HardConcreteGate is hardConcrete, for tests that give the noise.
var HardConcreteGate = hardConcrete

// MayAllow is mayAllow.
func MayAllow(m Mask, firstQuery, lastQuery, firstKey, lastKey int) bool {
	return mayAllow(m, interval{firstQuery, lastQuery}, interval{firstKey, lastKey})
}
