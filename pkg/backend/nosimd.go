//go:build !goexperiment.simd || !amd64

package backend

// simdBuilt: this binary was compiled without vector kernels for the pure-Go engine.
const simdBuilt = false
