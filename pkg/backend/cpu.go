package backend

import (
	"github.com/gomlx/compute/support/envutil"
	"golang.org/x/sys/cpu"
)

// simdInUse says whether the pure-Go engine uses vector kernels in this process:
// compiled in, known to the CPU, and not switched off by GoMLX's variables.
func simdInUse() bool {
	return simdBuilt && (cpu.X86.HasAVX2 && allowed(envutil.SIMD_AVX2_Env) || cpu.X86.HasAVX512F && allowed(envutil.SIMD_AVX512_Env))
}

func allowed(variable string) bool {
	on, err := envutil.ReadBool(variable, true)
	return err != nil || on
}
