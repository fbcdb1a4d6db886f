//go:build goexperiment.simd && amd64

package backend

// simdBuilt: this binary was compiled with GOEXPERIMENT=simd, so that the pure-Go engine has vector kernels.
const simdBuilt = true
