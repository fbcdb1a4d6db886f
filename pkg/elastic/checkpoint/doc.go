// Package checkpoint keeps what a run must not lose: folders that are complete,
// known to be undamaged, or not there.
//
// A checkpoint is a folder of files and a manifest.json with the size and the
// SHA-256 of each. It is written beside its final place, brought to the disk and
// renamed, so a process that is killed, or a disk that is full, at any moment
// leaves the checkpoint of before:
//
//	err := checkpoint.Save("run/checkpoints/step-000100", checkpoint.Checkpoint{
//		Step: 100,
//		Files: []checkpoint.File{
//			{Name: "model.safetensors", Write: writeWeights},
//			checkpoint.FromBytes("config.json", config),
//		},
//	})
//
// [Open] reads the manifest and checks every file against it; one flipped bit
// anywhere in the folder is an error that names the file. The manifest holds a
// checksum of itself for that reason: do not edit it.
//
// The other files may have the names that other programs expect, so a folder in
// the layout of Hugging Face transformers stays one that they load.
//
// [Run] puts the checkpoints of a run in order: it keeps the last few and the
// best, and finds the newest to resume from.
//
// This package knows nothing of models. Its subpackage safetensors holds the
// format of the weights.
package checkpoint
