// Package tensorboard writes runs as event files, which TensorBoard reads.
//
//	path, err := tensorboard.Export("logs", run)     // then: tensorboard --logdir logs
//
// A file is a sequence of TFRecords,
//
//	uint64 length, uint32 masked CRC-32C of the length, bytes, uint32 masked CRC-32C of the bytes
//	masked(c) = rotate right(c, 15) + 0xa282ead8
//
// each of which holds an Event in the wire format of protocol buffers: first the version, then the config as
// hyperparameters, then the values of each step, which are float32 there: its reader passes tensors of float64 over.
//
// Source: tensorflow/core/lib/io/record_writer.h, tensorboard/compat/proto (event, summary, tensor),
// tensorboard/plugins/hparams/plugin_data.proto, of TensorBoard 2.21.0.
package tensorboard

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/elastic-attention/workbench/pkg/track"
)

// Export writes the event file of a run into the folder of its ID below dir, whole or not at all, in place of that of an
// earlier export, and returns its path.
func Export(dir string, run track.Run) (path string, err error) {
	series, err := run.Series()
	if err != nil {
		return "", fmt.Errorf("exporting %s: %w", run.ID, err)
	}
	folder := filepath.Join(dir, filepath.FromSlash(run.ID))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("exporting %s: %w", run.ID, atomicfile.Explain(err, dir))
	}
	path = filepath.Join(folder, fmt.Sprintf("%s%d%s", prefix, run.Started.Unix(), suffix))
	// TensorBoard reads every file with tfevents in its name, so the name of one that is not whole must not have it.
	temp := filepath.Join(folder, ".part")
	file, err := os.Create(temp)
	if err != nil {
		return "", fmt.Errorf("exporting %s: %w", run.ID, atomicfile.Explain(err, dir))
	}
	buffer := bufio.NewWriter(file)
	if err = Write(buffer, run, series); err == nil {
		err = buffer.Flush()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = atomicfile.Commit(temp, path)
	}
	if err == nil {
		err = removeOthers(path)
	}
	if err != nil {
		_ = os.Remove(temp)
		return "", fmt.Errorf("exporting %s: %w", run.ID, atomicfile.Explain(err, dir))
	}
	return path, nil
}

// Between them stands when the run was started.
const (
	prefix = "events.out.tfevents."
	suffix = ".elastic"
)

// removeOthers removes our event files beside one: those of a run that has begun anew since, whose curves would be shown too.
func removeOthers(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if name == filepath.Base(path) || !strings.HasPrefix(name, prefix) || !strings.HasSuffix(name, suffix) {
			continue
		}
		if err := os.Remove(filepath.Join(filepath.Dir(path), name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Write writes the event file of a run with these curves.
func Write(w io.Writer, run track.Run, series []track.Series) error {
	start := seconds(run.Started)
	events := [][]byte{bytesField(event(start, 0), 3, []byte("brain.Event:2"))}
	if fields := run.Fields(); len(fields) > 0 {
		events = append(events, hyperparameters(start, fields))
	}
	values := track.Ordered(series)
	for len(values) > 0 {
		n := 1 // those of one step and moment go together
		for n < len(values) && values[n].Step == values[0].Step && values[n].Time.Equal(values[0].Time) {
			n++
		}
		var summary []byte
		for _, v := range values[:n] {
			summary = bytesField(summary, 1, scalar(v))
		}
		events = append(events, bytesField(event(seconds(values[0].Time), values[0].Step), 5, summary))
		values = values[n:]
	}
	for _, e := range events {
		if err := record(w, e); err != nil {
			return fmt.Errorf("writing an event file: %w", err)
		}
	}
	return nil
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func masked(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

func record(w io.Writer, content []byte) error {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(content)))
	b = binary.LittleEndian.AppendUint32(b, masked(b))
	b = append(b, content...)
	_, err := w.Write(binary.LittleEndian.AppendUint32(b, masked(content)))
	return err
}

func bytesField(b []byte, number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), content)
}

func doubleField(b []byte, number protowire.Number, v float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, number, protowire.Fixed64Type), math.Float64bits(v))
}

func intField(b []byte, number protowire.Number, v int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), uint64(v))
}

// event begins an Event: wall_time 1, step 2. Zeros are left out, as everywhere in this format.
func event(wall float64, step int) []byte {
	var b []byte
	if wall != 0 {
		b = doubleField(b, 1, wall)
	}
	if step != 0 {
		b = intField(b, 2, step)
	}
	return b
}

// scalar is a Summary.Value: tag 1, simple_value 2.
func scalar(v track.Value) []byte {
	b := bytesField(nil, 1, []byte(v.Name))
	return protowire.AppendFixed32(protowire.AppendTag(b, 2, protowire.Fixed32Type), math.Float32bits(float32(v.Value)))
}

// metadata is a SummaryMetadata: plugin_data 1 (plugin_name 1, content 2).
func metadata(plugin string, content []byte) []byte {
	data := bytesField(nil, 1, []byte(plugin))
	if len(content) > 0 {
		data = bytesField(data, 2, content)
	}
	return bytesField(nil, 1, data)
}

// hyperparameters is the event by which the plugin of hyperparameters knows a run's config: HParamsPluginData with
// version 1 = 0 and session_start_info 3, whose hparams 1 are a map to google.protobuf.Value and whose start_time_secs is 5.
func hyperparameters(start float64, fields map[string]string) []byte {
	var info []byte
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		var value []byte // number_value 2, string_value 3, bool_value 4
		text := fields[name]
		if v, err := strconv.ParseFloat(text, 64); err == nil {
			value = doubleField(nil, 2, v)
		} else if v, err := strconv.ParseBool(text); err == nil {
			flag := 0
			if v {
				flag = 1
			}
			value = intField(nil, 4, flag)
		} else {
			value = bytesField(nil, 3, []byte(text))
		}
		info = bytesField(info, 1, bytesField(bytesField(nil, 1, []byte(name)), 2, value))
	}
	if start != 0 {
		info = doubleField(info, 5, start)
	}
	value := bytesField(nil, 1, []byte("_hparams_/session_start_info"))
	// The plugin wants some tensor: an empty float32, as its own writer has it.
	value = bytesField(value, 8, bytesField(intField(nil, 1, 1), 2, bytesField(nil, 2, nil)))
	value = bytesField(value, 9, metadata("hparams", bytesField(nil, 3, info)))
	return bytesField(event(start, 0), 5, bytesField(nil, 1, value))
}
