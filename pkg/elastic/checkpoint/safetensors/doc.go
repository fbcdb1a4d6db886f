// Package safetensors reads and writes tensors in the safetensors format, strictly.
//
// A file is an 8-byte little-endian length, a JSON header of that length, and
// the bytes of all tensors, one after the other:
//
//	{"__metadata__":{"format":"pt"},"bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}
//
// Weights come from strangers, so [Open] believes nothing. It reads the header
// without building JSON values, so nesting cannot exhaust the stack and the
// memory it takes is a small multiple of the file's own size. It refuses what
// the reference implementation refuses: a header that is longer than the file
// or than 100 MB, names that are not UTF-8, unknown types, shapes whose product
// overflows, and tensors that overlap, leave holes or do not end where the file
// ends. Beyond that it refuses what the reference takes in silence: names that
// occur twice, fields that it does not know, "__metadata__" that is null, and
// more than [MaxRank] axes. Names are only names: never used as paths.
//
//	file, err := safetensors.Open("model.safetensors")
//	...
//	defer file.Close()
//	weights, err := file.Tensor("encoder.layer.0.output.dense.weight")
//
// [OpenSharded] reads a model folder: one file, or many with an index. Both
// satisfy [Source]. [Write] and [WriteFile] make the same bytes as the reference
// for the same tensors, in the same order, and stream them: no second copy of a
// model is made in memory.
//
// Errors name the file, the tensor, what was got and what was wanted.
//
// Source: Hugging Face, "Safetensors, format",
// https://github.com/huggingface/safetensors#format. Parity is tested with
// version 0.8.0 of its Python package.
package safetensors
