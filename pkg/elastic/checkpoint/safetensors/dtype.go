package safetensors

import (
	"github.com/gomlx/compute/dtypes"
)

// format is one element type of the file format.
type format struct {
	name  string
	bits  int
	dtype dtypes.DType // InvalidDType where GoMLX has no such type
}

// formats has the element types in the order of the reference, which lays
// tensors out from the last of these to the first, so that all are aligned.
var formats = [...]format{
	{"BOOL", 8, dtypes.Bool},
	{"F4", 4, dtypes.InvalidDType},
	{"F6_E2M3", 6, dtypes.InvalidDType},
	{"F6_E3M2", 6, dtypes.InvalidDType},
	{"U8", 8, dtypes.Uint8},
	{"I8", 8, dtypes.Int8},
	{"F8_E5M2", 8, dtypes.InvalidDType},
	{"F8_E4M3", 8, dtypes.InvalidDType},
	{"F8_E8M0", 8, dtypes.InvalidDType},
	{"F8_E4M3FNUZ", 8, dtypes.InvalidDType},
	{"F8_E5M2FNUZ", 8, dtypes.InvalidDType},
	{"I16", 16, dtypes.Int16},
	{"U16", 16, dtypes.Uint16},
	{"F16", 16, dtypes.Float16},
	{"BF16", 16, dtypes.BFloat16},
	{"I32", 32, dtypes.Int32},
	{"U32", 32, dtypes.Uint32},
	{"F32", 32, dtypes.Float32},
	{"C64", 64, dtypes.Complex64},
	{"F64", 64, dtypes.Float64},
	{"I64", 64, dtypes.Int64},
	{"U64", 64, dtypes.Uint64},
}

// formatNamed returns the index in formats, or -1.
func formatNamed(name string) int {
	for i := range formats {
		if formats[i].name == name {
			return i
		}
	}
	return -1
}

// formatOf returns the index in formats, or -1.
func formatOf(dtype dtypes.DType) int {
	for i := range formats {
		if formats[i].dtype == dtype && dtype != dtypes.InvalidDType {
			return i
		}
	}
	return -1
}
