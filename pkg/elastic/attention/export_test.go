package attention

// HardConcreteGate is hardConcrete, for tests that give the noise.
var HardConcreteGate = hardConcrete
