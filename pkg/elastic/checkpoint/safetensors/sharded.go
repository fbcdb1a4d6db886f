package safetensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gomlx/gomlx/core/tensors"
)

const (
	// SingleName is the file of a model that is in one piece.
	SingleName = "model.safetensors"

	// IndexName is the file that says which shard has which tensor.
	IndexName = "model.safetensors.index.json"
)

// Sharded is a model folder: one file, or several shards and their index. It is
// safe for concurrent use.
type Sharded struct {
	dir    string
	shards map[string]*File // by file name
	where  map[string]*File // by tensor name
}

var _ Source = (*Sharded)(nil)

// OpenSharded opens the folder of a model: model.safetensors if it is there, as
// in the transformers library, else the shards that model.safetensors.index.json
// names. The headers of all shards are checked, and that each tensor is in the
// shard that the index names for it; a tensor that the index does not name is
// not part of the model. Shards must lie in the folder itself.
func OpenSharded(dir string) (*Sharded, error) {
	s := &Sharded{dir: dir, shards: map[string]*File{}, where: map[string]*File{}}
	if err := s.open(); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Sharded) open() error {
	single, err := Open(filepath.Join(s.dir, SingleName))
	if err == nil {
		s.shards[SingleName] = single
		for _, name := range single.Names() {
			s.where[name] = single
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	path := filepath.Join(s.dir, IndexName)
	weights, err := readIndex(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the model in %s: neither %s nor %s is there: %w", s.dir, SingleName, IndexName, fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, withoutPath(err))
	}
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		shard := weights[name]
		file := s.shards[shard]
		if file == nil {
			if file, err = Open(filepath.Join(s.dir, shard)); err != nil {
				return fmt.Errorf("tensor %s of %s: %w", quote(name), IndexName, err)
			}
			s.shards[shard] = file
		}
		if _, err := file.Info(name); err != nil {
			return fmt.Errorf("%s says that tensor %s is in %s: %w", path, quote(name), shard, err)
		}
		s.where[name] = file
	}
	return nil
}

// readIndex returns the shard of every tensor.
func readIndex(path string) (map[string]string, error) {
	stat, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !stat.Mode().IsRegular():
		return nil, fmt.Errorf("it is no regular file (%s)", stat.Mode())
	case stat.Size() > MaxHeaderBytes:
		return nil, fmt.Errorf("it has %d bytes, want at most %d", stat.Size(), MaxHeaderBytes)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseIndex(string(text))
}

func parseIndex(text string) (map[string]string, error) {
	if bad := invalidUTF8(text); bad >= 0 {
		return nil, fmt.Errorf("byte %d: got 0x%02x, want UTF-8", bad, text[bad])
	}
	d := json.NewDecoder(strings.NewReader(text))
	if err := delim(d, '{'); err != nil {
		return nil, err
	}
	var weights map[string]string
	for d.More() {
		field, err := d.Token()
		if err != nil {
			return nil, err
		}
		if field != "weight_map" {
			var skipped json.RawMessage // "metadata" and what others add
			if err := d.Decode(&skipped); err != nil {
				return nil, fmt.Errorf("field %s: %w", quote(fmt.Sprint(field)), err)
			}
			continue
		}
		if weights != nil {
			return nil, errors.New("weight_map occurs twice")
		}
		if weights, err = weightMap(d); err != nil {
			return nil, fmt.Errorf("weight_map: %w", err)
		}
	}
	if err := delim(d, '}'); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("byte %d: want nothing after the last '}'", d.InputOffset())
	}
	if weights == nil {
		return nil, errors.New("weight_map is missing")
	}
	return weights, nil
}

func weightMap(d *json.Decoder) (map[string]string, error) {
	if err := delim(d, '{'); err != nil {
		return nil, err
	}
	weights := map[string]string{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		name := token.(string) // the decoder lets no other token be a key
		if token, err = d.Token(); err != nil {
			return nil, err
		}
		shard, ok := token.(string)
		if !ok {
			return nil, fmt.Errorf("tensor %s: got %v, want the name of a file", quote(name), token)
		}
		if _, twice := weights[name]; twice {
			return nil, fmt.Errorf("tensor %s occurs twice", quote(name))
		}
		if err := checkShardName(shard); err != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(name), err)
		}
		weights[name] = shard
	}
	return weights, delim(d, '}')
}

// checkShardName keeps a hostile index from reading elsewhere.
func checkShardName(name string) error {
	if !strings.HasSuffix(name, ".safetensors") || strings.ContainsAny(name, "/\\:\x00") || !filepath.IsLocal(name) || !utf8.ValidString(name) {
		return fmt.Errorf("shard %s: want the name of a .safetensors file in the same folder, without a path", quote(name))
	}
	return nil
}

func delim(d *json.Decoder, want json.Delim) error {
	token, err := d.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if token != want {
		return fmt.Errorf("byte %d: got %v, want %s", d.InputOffset(), token, want)
	}
	return nil
}

// Names returns the names of all tensors of the model, sorted.
func (s *Sharded) Names() []string { return slices.Sorted(maps.Keys(s.where)) }

// Info describes a tensor. Its offsets are those in its shard. The error for an
// unknown name wraps [ErrNoTensor].
func (s *Sharded) Info(name string) (Info, error) {
	file, err := s.file(name)
	if err != nil {
		return Info{}, err
	}
	return file.Info(name)
}

// Tensor is [File.Tensor] on the shard that has the tensor.
func (s *Sharded) Tensor(name string) (*tensors.Tensor, error) {
	file, err := s.file(name)
	if err != nil {
		return nil, err
	}
	return file.Tensor(name)
}

// Bytes is [File.Bytes] on the shard that has the tensor.
func (s *Sharded) Bytes(name string) ([]byte, error) {
	file, err := s.file(name)
	if err != nil {
		return nil, err
	}
	return file.Bytes(name)
}

func (s *Sharded) file(name string) (*File, error) {
	if file := s.where[name]; file != nil {
		return file, nil
	}
	return nil, fmt.Errorf("%s: tensor %s: %w (the model has %d)", s.dir, quote(name), ErrNoTensor, len(s.where))
}

// Metadata returns the strings in the headers of all shards together. Where two
// shards differ, the shard whose file name comes first in the alphabet wins.
func (s *Sharded) Metadata() map[string]string {
	var to map[string]string
	for _, shard := range slices.Backward(slices.Sorted(maps.Keys(s.shards))) {
		if from := s.shards[shard].Metadata(); to == nil {
			to = from
		} else {
			maps.Copy(to, from)
		}
	}
	return to
}

// Close closes all shards.
func (s *Sharded) Close() error {
	var errs []error
	for _, file := range s.shards {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}
