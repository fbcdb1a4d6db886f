package safetensors_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/elastic/checkpoint/safetensors"
)

var corpusDir = flag.String("corpus", "", "write the hostile files to this folder, for tools/golden/safetensors-hostile.py")

type verdict struct {
	Reference string `json:"reference"` // accept or reject
	Error     string `json:"error"`
}

func verdicts(t *testing.T, path string) map[string]verdict {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]verdict
	if err := json.Unmarshal(content, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// readAll does what the generator of the verdicts does: open, then get every tensor.
func readAll(source safetensors.Source, err error) error {
	if err != nil {
		return err
	}
	for _, name := range source.Names() {
		if _, err := source.Tensor(name); err != nil {
			_ = source.Close()
			return err
		}
	}
	return source.Close()
}

func TestGoldenHostile(t *testing.T) {
	want := verdicts(t, "testdata/hostile-verdicts.json")
	cases := corpus()
	accepted, refused, stricter := 0, 0, 0
	for i, c := range cases {
		path := filepath.Join(t.TempDir(), c.name+".safetensors")
		if *corpusDir != "" {
			path = filepath.Join(*corpusDir, c.name+".safetensors")
		}
		if err := os.WriteFile(path, c.content, 0o666); err != nil {
			t.Fatal(err)
		}
		if *corpusDir != "" {
			continue
		}
		if want[c.name].Reference == "" {
			t.Errorf("%s: no verdict of the reference: run tools/golden/safetensors-hostile.py", c.name)
			continue
		}
		f, err := safetensors.Open(path)
		err = readAll(f, err)
		checkVerdict(t, c.name, path, err, want[c.name], c.stricter)

		memory, memoryErr := safetensors.FromBytes(path, c.content)
		if memoryErr = readAll(memory, memoryErr); (memoryErr == nil) != (err == nil) {
			t.Errorf("%s: from memory: got %v, from the file %v", c.name, memoryErr, err)
		}
		switch {
		case c.stricter != "":
			stricter++
		case err == nil:
			accepted++
		default:
			refused++
		}
		if i == 37 && (accepted != 8 || refused != 30 || stricter != 0) {
			t.Errorf("of the first 38 got %d accepted, %d refused, %d stricter, want 8, 30, 0", accepted, refused, stricter)
		}
	}
	t.Logf("%d files: %d accepted and %d refused like the reference, %d refused that it accepts", len(cases), accepted, refused, stricter)
}

func checkVerdict(t *testing.T, name, path string, err error, want verdict, stricter string) {
	t.Helper()
	switch {
	case want.Reference == "reject" && err == nil:
		t.Errorf("%s: accepted, but the reference says %s", name, want.Error)
	case want.Reference == "accept" && stricter == "" && err != nil:
		t.Errorf("%s: %v, but the reference accepts it", name, err)
	case stricter != "" && (want.Reference != "accept" || err == nil):
		t.Errorf("%s: marked as stricter (%s), but the reference says %s and we %v", name, stricter, want.Reference, err)
	case err != nil && !strings.Contains(err.Error(), path):
		t.Errorf("%s: the error does not name the file: %v", name, err)
	case err != nil && len(err.Error()) > 1000:
		t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
	}
}

// TestGoldenHostileFolder reads a corpus that somebody else made, if ELASTIC_GOLDEN_DIR has one.
func TestGoldenHostileFolder(t *testing.T) {
	dir := filepath.Join(os.Getenv("ELASTIC_GOLDEN_DIR"), "safetensors-hostile")
	if _, err := os.Stat(dir); err != nil {
		return
	}
	for name, want := range verdicts(t, filepath.Join(dir, "verdicts.json")) {
		f, err := safetensors.Open(filepath.Join(dir, name+".safetensors"))
		if err = readAll(f, err); want.Reference == "reject" && err == nil {
			t.Errorf("%s: accepted, but the reference says %s", name, want.Error)
		} else if want.Reference == "accept" && err != nil {
			t.Logf("%s: stricter than the reference: %v", name, err)
		}
	}
}

// TestErrorsSayWhatIsWrong looks at the words.
func TestErrorsSayWhatIsWrong(t *testing.T) {
	want := map[string]string{
		"empty_file":             "the file has 0 bytes, want at least 8",
		"header_len_past_eof":    "the header would have 1000000 bytes, but the file has only 69",
		"header_len_over_100mb":  "the header would have 100000001 bytes, want at most 100000000",
		"not_json":               `header byte 1: got 'n', want the name of a tensor`,
		"not_utf8":               "header byte 2: got 0xff, want UTF-8",
		"bom":                    `header byte 0: got '\ufeff', want '{'`,
		"deep_nesting":           `tensor "a": header byte 5: got '[', want '{'`,
		"duplicate_key":          `tensor "a" occurs twice`,
		"overlap":                `tensor "b": data_offsets [4, 12] overlap those of tensor "a", [0, 8]`,
		"hole_between":           `tensor "b": data_offsets begin at 12, want 8: 4 bytes before it belong to no tensor`,
		"trailing_bytes":         "the file has 9 bytes of data, want 8: the last 1 belong to no tensor",
		"data_truncated":         `tensor "a": data_offsets end at 8, but the file has 7 bytes of data`,
		"shape_size_mismatch":    `tensor "a": data_offsets [0, 8] are 8 bytes, want 12 for F32[3]`,
		"shape_product_overflow": `tensor "a": the size of F32[8589934592 8589934592] overflows`,
		"shape_negative":         `tensor "a": header byte 33: got '-', want an axis of the shape, a whole number that is not negative`,
		"unknown_dtype":          `tensor "a": unknown dtype "Q99", want one of BOOL`,
		"missing_offsets":        `tensor "a": field data_offsets is missing`,
		"metadata_not_string":    `__metadata__: header byte 23: got '1', want a value, a string`,
		"field_unknown":          `tensor "a": header byte 65: unknown field "x", want dtype, shape, data_offsets`,
		"rank_65":                `tensor "a": the shape has more than 64 axes`,
		"dtype_f8":               `tensor "a": GoMLX has no type for F8_E4M3; Bytes gives the raw data`,
		"dtype_f4_half_byte":     `tensor "a": F4[3] takes 12 bits, want whole bytes`,
		"bool_of_2":              `tensor "a": element 1 of a BOOL tensor is 2, want 0 or 1`,
		"name_lone_surrogate":    `got "\\ud800", want a JSON escape of a Unicode character`,
		"pickle_renamed":         "the file has 6 bytes",
	}
	for _, c := range corpus() {
		text, ok := want[c.name]
		if !ok {
			continue
		}
		delete(want, c.name)
		f, err := safetensors.FromBytes("m.safetensors", c.content)
		if err = readAll(f, err); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want %s", c.name, err, text)
		}
	}
	for name := range want {
		t.Errorf("no case %s", name)
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// memoryLimit is what reading a file of that size may allocate.
func memoryLimit(size int) uint64 { return uint64(4*size + 1<<20) }

func TestMemoryIsBounded(t *testing.T) {
	cases := corpus()
	add := func(name, header string) { cases = append(cases, hostile{name: name, content: file(header, 0)}) }
	var names, axes, keys strings.Builder
	for i := range 100000 {
		n := []byte{'a' + byte(i%26), 'a' + byte(i/26%26), 'a' + byte(i/676%26), 'a' + byte(i/17576)}
		names.WriteString(`"` + string(n) + `":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},`)
		keys.WriteString(`"` + string(n) + `":"",`)
		if i < 20000 {
			axes.WriteString(`"` + string(n) + `":{"dtype":"U8","shape":[` + strings.Repeat("0,", 63) + `0],"data_offsets":[0,0]},`)
		}
	}
	add("many tensors", "{"+strings.TrimSuffix(names.String(), ",")+"}")
	add("many axes", "{"+strings.TrimSuffix(axes.String(), ",")+"}")
	add("many keys", `{"__metadata__":{`+strings.TrimSuffix(keys.String(), ",")+"}}")
	add("braces", `{"`+strings.Repeat("{", 8<<20)+`":{}}`)
	add("braces in metadata", `{"__metadata__":{"`+strings.Repeat("{", 8<<20)+`":""}}`)
	add("escapes", `{"__metadata__":{"`+strings.Repeat(`\n`, 4<<20)+`":""}}`)
	add("long name", `{"`+strings.Repeat(`\n`, 4<<20)+`":{}}`)
	for _, c := range cases {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, c.content, 0o666); err != nil {
			t.Fatal(err)
		}
		got := allocated(func() {
			if f, err := safetensors.Open(path); err == nil {
				_ = f.Close()
			}
		})
		if limit := memoryLimit(len(c.content)); got > limit {
			t.Errorf("%s: a file of %d bytes made us allocate %d, want at most %d", c.name, len(c.content), got, limit)
		} else if len(c.content) > 1<<20 {
			t.Logf("%s: %d bytes allocated for a file of %d, %.1f times as many", c.name, got, len(c.content), float64(got)/float64(len(c.content)))
		}
	}
}
