package checkpoint

import "io"

// SaveThrough is Save with another way to make files.
func SaveThrough(create func(path string) (io.WriteCloser, error), dir string, c Checkpoint) error {
	return saver{create: create}.save(dir, c)
}

// CreateFile is how Save makes files.
var CreateFile = createFile

// RemoveFolder removes a folder in the way that a kill cannot leave half of it.
var RemoveFolder = removeFolder

// EncodeManifest makes the bytes of any manifest.
func EncodeManifest(m Manifest) ([]byte, error) { return m.encode() }
