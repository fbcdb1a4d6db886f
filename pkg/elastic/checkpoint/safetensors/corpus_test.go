package safetensors_test

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// hostile is a file that a loader must refuse, or one beside it that it must read.
type hostile struct {
	name     string
	content  []byte
	stricter string // why we refuse what the reference accepts
}

// file makes a file of a header and data. The length may lie.
func file(header string, data int, length ...uint64) []byte {
	n := uint64(len(header))
	if len(length) > 0 {
		n = length[0]
	}
	content := binary.LittleEndian.AppendUint64(nil, n)
	return append(append(content, header...), make([]byte, data)...)
}

// entry makes a header that has only tensor a.
func entry(dtype, shape, offsets string) string {
	return fmt.Sprintf(`{"a": {"dtype": %q, "shape": %s, "data_offsets": %s}}`, dtype, shape, offsets)
}

// f32 makes one entry of a header, for two numbers.
func f32(name, offsets string) string {
	return fmt.Sprintf(`%q: {"dtype": "F32", "shape": [2], "data_offsets": %s}`, name, offsets)
}

// named is a header whose only tensor has the name, given as it stands in JSON.
func named(jsonName string) string {
	return `{` + jsonName + `: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}`
}

func withMetadata(json string) string {
	return `{"__metadata__": ` + json + `, ` + f32("a", "[0, 8]") + `}`
}

var good = `{` + f32("a", "[0, 8]") + `}`

// corpus returns all cases. The first 38 are, byte for byte, those of
// tools/golden/safetensors-hostile.py; what the reference says of all of them is
// in testdata/hostile-verdicts.json.
func corpus() []hostile {
	ones := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	deep := strings.Repeat("[", 200000) + strings.Repeat("]", 200000)
	var many strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&many, `"%d":"",`, i)
	}
	return []hostile{
		{name: "ok", content: file(good, 8)},
		{name: "ok_empty", content: file(`{}`, 0)},
		{name: "ok_metadata", content: file(withMetadata(`{"k": "v"}`), 8)},
		{name: "ok_scalar", content: file(entry("F32", "[]", "[0, 4]"), 4)},
		{name: "empty_file", content: nil},
		{name: "seven_bytes", content: make([]byte, 7)},
		{name: "header_len_zero", content: make([]byte, 8)},
		{name: "header_len_past_eof", content: file(good, 8, 1000000)},
		{name: "header_len_max", content: file(`{}`, 0, 1<<64-1)},
		{name: "header_len_over_100mb", content: file(`{}`, 0, 100000001)},
		{name: "not_json", content: file(`{not json`, 0)},
		{name: "not_utf8", content: file("{\"\xff\xfe\":1}", 0)},
		{name: "array_header", content: file(`[]`, 0)},
		{name: "leading_space", content: file(` {}`, 0)},
		{name: "deep_nesting", content: file(`{"a":`+deep+`}`, 0)},
		{name: "duplicate_key", content: file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 8)},
		{name: "overlap", content: file(`{`+f32("a", "[0, 8]")+`, `+f32("b", "[4, 12]")+`}`, 12)},
		{name: "same_range_twice", content: file(`{`+f32("a", "[0, 8]")+`, `+f32("b", "[0, 8]")+`}`, 8)},
		{name: "zero_size_shares_offset", content: file(`{"z": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, `+f32("a", "[0, 8]")+`}`, 8)},
		{name: "hole_between", content: file(`{`+f32("a", "[0, 8]")+`, `+f32("b", "[12, 20]")+`}`, 20)},
		{name: "hole_at_start", content: file(`{`+f32("a", "[4, 12]")+`}`, 12)},
		{name: "trailing_bytes", content: file(good, 9)},
		{name: "data_truncated", content: file(good, 7)},
		{name: "offsets_reversed", content: file(`{`+f32("a", "[8, 0]")+`}`, 8)},
		{name: "offsets_negative", content: file(`{`+f32("a", "[-8, 0]")+`}`, 8)},
		{name: "shape_size_mismatch", content: file(entry("F32", "[3]", "[0, 8]"), 8)},
		{name: "shape_product_overflow", content: file(entry("F32", "[8589934592, 8589934592]", "[0, 8]"), 8)},
		{name: "shape_product_wraps_to_2", content: file(entry("F32", "[9223372036854775808, 2, 2]", "[0, 8]"), 8)},
		{name: "shape_negative", content: file(entry("F32", "[-2]", "[0, 8]"), 8)},
		{name: "shape_float", content: file(`{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}`, 8)},
		{name: "unknown_dtype", content: file(entry("Q99", "[2]", "[0, 8]"), 8)},
		{name: "missing_offsets", content: file(`{"a": {"dtype": "F32", "shape": [2]}}`, 8)},
		{name: "extra_offset", content: file(entry("F32", "[2]", "[0, 8, 16]"), 16)},
		{name: "metadata_not_string", content: file(withMetadata(`{"k": 1}`), 8)},
		{name: "name_path_traversal", content: file(named(`"../../etc/x"`), 8)},
		{name: "name_nul", content: file(named(`"a\u0000b"`), 8)},
		{name: "pickle_renamed", content: []byte("\x80\x02}q\x00.")},
		{name: "zip_renamed", content: append([]byte("PK\x03\x04"), make([]byte, 40)...)},

		// Around the header.
		{name: "header_len_minus_8", content: file(`{}`, 0, 1<<64-8)},
		{name: "header_len_is_file_size", content: file(good, 8, uint64(len(good)+16))},
		{name: "header_len_swallows_data", content: file(good, 8, uint64(len(good)+8))},
		{name: "header_len_too_short", content: file(good, 8, uint64(len(good)-1))},
		{name: "trailing_spaces", content: file(good+"   ", 8)},
		{name: "trailing_white_space", content: file(good+"\n\t\r ", 8)},
		{name: "trailing_nul", content: file(good+"\x00", 8)},
		{name: "trailing_garbage", content: file(good+"{}", 8)},
		{name: "trailing_comma", content: file(`{`+f32("a", "[0, 8]")+`,}`, 8)},
		{name: "comma_first", content: file(`{,`+f32("a", "[0, 8]")+`}`, 8)},
		{name: "no_comma", content: file(`{`+f32("a", "[0, 8]")+` `+f32("b", "[8, 16]")+`}`, 16)},
		{name: "leading_newline", content: file("\n"+good, 8)},
		{name: "leading_form_feed", content: file("\f"+good, 8)},
		{name: "bom", content: file("\ufeff"+good, 8)},
		{name: "utf16", content: file("{\x00}\x00", 0)},
		{name: "only_spaces", content: file("    ", 0)},
		{name: "only_brace", content: file("{", 0)},
		{name: "null", content: file("null", 0)},
		{name: "true", content: file("true", 0)},
		{name: "string", content: file(`"a"`, 0)},
		{name: "comment", content: file(`{/* */`+f32("a", "[0, 8]")+`}`, 8)},
		{name: "single_quotes", content: file(`{'a': {}}`, 0)},
		{name: "data_without_tensors", content: file(`{}`, 8)},
		{name: "deep_objects", content: file(strings.Repeat(`{"a":`, 100000)+"1"+strings.Repeat("}", 100000), 0)},

		// Names.
		{name: "duplicate_same", content: file(`{`+f32("a", "[0, 8]")+`, `+f32("a", "[0, 8]")+`}`, 8), stricter: "a name twice"},
		{name: "duplicate_by_escape", content: file(`{`+f32("a", "[0, 8]")+`, `+strings.TrimPrefix(named(`"\u0061"`), "{"), 8), stricter: "a name twice"},
		{name: "name_empty", content: file(named(`""`), 8)},
		{name: "name_pair_of_surrogates", content: file(named(`"\ud83d\uDE00"`), 8)},
		{name: "name_noncharacter", content: file(named(`"\uffff"`), 8)},
		{name: "name_all_escapes", content: file(named(`"\"\\\/\b\f\n\r\t"`), 8)},
		{name: "name_absolute", content: file(named(`"/etc/passwd"`), 8)},
		{name: "name_lone_surrogate", content: file(named(`"\ud800"`), 8)},
		{name: "name_low_surrogate", content: file(named(`"\udc00"`), 8)},
		{name: "name_half_pair", content: file(named(`"\ud800\u0061"`), 8)},
		{name: "name_bad_escape", content: file(named(`"\x41"`), 8)},
		{name: "name_bad_hex", content: file(named(`"\u00g1"`), 8)},
		{name: "name_escape_at_end", content: file(`{"\`, 0)},
		{name: "name_unended", content: file(`{"a`, 0)},
		{name: "name_raw_control", content: file(named("\"\x01\""), 8)},
		{name: "name_raw_nul", content: file(named("\"\x00\""), 8)},
		{name: "name_raw_newline", content: file(named("\"\n\""), 8)},
		{name: "name_overlong_utf8", content: file(named("\"\xc0\x80\""), 8)},
		{name: "name_utf8_surrogate", content: file(named("\"\xed\xa0\x80\""), 8)},
		{name: "name_long", content: file(named(`"`+strings.Repeat("x", 1<<20)+`"`), 8)},
		{name: "name_number", content: file(`{1: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}`, 8)},

		// Metadata.
		{name: "metadata_null", content: file(withMetadata(`null`), 8), stricter: "metadata is null"},
		{name: "metadata_duplicate_key", content: file(withMetadata(`{"k": "v", "k": "w"}`), 8), stricter: "a key twice"},
		{name: "metadata_empty", content: file(withMetadata(`{}`), 8)},
		{name: "metadata_last", content: file(`{`+f32("a", "[0, 8]")+`, "__metadata__": {"k": "v"}}`, 8)},
		{name: "metadata_many", content: file(`{"__metadata__":{`+strings.TrimSuffix(many.String(), ",")+`}}`, 0)},
		{name: "metadata_twice", content: file(`{"__metadata__": {}, "__metadata__": {}, `+f32("a", "[0, 8]")+`}`, 8)},
		{name: "metadata_array", content: file(withMetadata(`[]`), 8)},
		{name: "metadata_string", content: file(withMetadata(`"x"`), 8)},
		{name: "metadata_nested", content: file(withMetadata(`{"k": {"a": "b"}}`), 8)},
		{name: "metadata_null_value", content: file(withMetadata(`{"k": null}`), 8)},
		{name: "metadata_is_tensor", content: file(named(`"__metadata__"`), 8)},

		// Fields.
		{name: "field_unknown", content: file(`{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "x": 1}}`, 8), stricter: "a field that is not known"},
		{name: "field_unknown_deep", content: file(`{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "x": `+deep+`}}`, 8)},
		{name: "field_twice", content: file(`{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "dtype": "F32"}}`, 8)},
		{name: "shape_twice", content: file(`{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "shape": [2]}}`, 8)},
		{name: "offsets_twice", content: file(`{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "data_offsets": [0, 8]}}`, 8)},
		{name: "field_case", content: file(`{"a": {"Dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}`, 8)},
		{name: "missing_dtype", content: file(`{"a": {"shape": [2], "data_offsets": [0, 8]}}`, 8)},
		{name: "missing_shape", content: file(`{"a": {"dtype": "F32", "data_offsets": [0, 8]}}`, 8)},
		{name: "missing_all", content: file(`{"a": {}}`, 0)},
		{name: "tensor_null", content: file(`{"a": null}`, 0)},
		{name: "tensor_string", content: file(`{"a": "x"}`, 0)},
		{name: "tensor_array", content: file(`{"a": ["F32", [2], [0, 8]]}`, 8), stricter: "a tensor that is no object"},
		{name: "fields_in_other_order", content: file(`{"a": {"data_offsets": [0, 8], "shape": [2], "dtype": "F32"}}`, 8)},

		// Types.
		{name: "dtype_lower_case", content: file(entry("f32", "[2]", "[0, 8]"), 8)},
		{name: "dtype_null", content: file(`{"a": {"dtype": null, "shape": [2], "data_offsets": [0, 8]}}`, 8)},
		{name: "dtype_number", content: file(`{"a": {"dtype": 1, "shape": [2], "data_offsets": [0, 8]}}`, 8)},
		{name: "dtype_object", content: file(`{"a": {"dtype": {"F32": null}, "shape": [2], "data_offsets": [0, 8]}}`, 8), stricter: "a dtype that is no string"},
		{name: "dtype_escaped", content: file(`{"a": {"dtype": "\u004632", "shape": [2], "data_offsets": [0, 8]}}`, 8)},
		{name: "dtype_i4", content: file(entry("I4", "[16]", "[0, 8]"), 8)},
		{name: "dtype_f8", content: file(entry("F8_E4M3", "[8]", "[0, 8]"), 8)},
		{name: "dtype_f4_half_byte", content: file(entry("F4", "[3]", "[0, 2]"), 2)},
		{name: "dtype_f6", content: file(entry("F6_E2M3", "[4]", "[0, 3]"), 3)},
		{name: "dtype_c64", content: file(entry("C64", "[1]", "[0, 8]"), 8)},
		{name: "bool_of_2", content: append(file(entry("BOOL", "[2]", "[0, 2]"), 0), 1, 2), stricter: "a truth value that is neither 0 nor 1"},

		// Shapes.
		{name: "shape_exponent", content: file(entry("F32", "[2e0]", "[0, 8]"), 8)},
		{name: "shape_minus_zero", content: file(entry("F32", "[-0]", "[0, 0]"), 0)},
		{name: "shape_plus", content: file(entry("F32", "[+2]", "[0, 8]"), 8)},
		{name: "shape_leading_zero", content: file(entry("F32", "[02]", "[0, 8]"), 8)},
		{name: "shape_hexadecimal", content: file(entry("F32", "[0x2]", "[0, 8]"), 8)},
		{name: "shape_string", content: file(entry("F32", `["2"]`, "[0, 8]"), 8)},
		{name: "shape_null", content: file(entry("F32", "null", "[0, 8]"), 8)},
		{name: "shape_number", content: file(entry("F32", "2", "[0, 8]"), 8)},
		{name: "shape_nested", content: file(entry("F32", "[[2]]", "[0, 8]"), 8)},
		{name: "shape_nan", content: file(entry("F32", "[NaN]", "[0, 8]"), 8)},
		{name: "shape_comma_last", content: file(entry("F32", "[2,]", "[0, 8]"), 8)},
		{name: "shape_over_64_bits", content: file(entry("F32", "[99999999999999999999999]", "[0, 8]"), 8)},
		{name: "shape_zero_and_2_63", content: file(entry("F32", "[0, 9223372036854775808]", "[0, 0]"), 0)},
		{name: "shape_overflow_then_zero", content: file(entry("F32", "[9223372036854775807, 9223372036854775807, 0]", "[0, 0]"), 0)},
		{name: "shape_zero_then_overflow", content: file(entry("F32", "[0, 9223372036854775807, 9223372036854775807]", "[0, 0]"), 0)},
		{name: "shape_bytes_overflow", content: file(entry("F32", "[4611686018427387905]", "[0, 4]"), 4)},
		{name: "rank_64", content: file(entry("F32", ones(64), "[0, 4]"), 4)},
		{name: "rank_65", content: file(entry("F32", ones(65), "[0, 4]"), 4)},
		{name: "rank_100000", content: file(entry("F32", ones(100000), "[0, 4]"), 4)},

		// Offsets.
		{name: "offsets_float", content: file(`{`+f32("a", "[0, 8.0]")+`}`, 8)},
		{name: "offsets_string", content: file(`{`+f32("a", `["0", "8"]`)+`}`, 8)},
		{name: "offsets_object", content: file(`{`+f32("a", `{"0": 0, "1": 8}`)+`}`, 8)},
		{name: "offsets_null", content: file(`{`+f32("a", "null")+`}`, 8)},
		{name: "offsets_one", content: file(`{`+f32("a", "[0]")+`}`, 8)},
		{name: "offsets_2_64", content: file(`{`+f32("a", "[0, 18446744073709551615]")+`}`, 8)},
		{name: "offsets_wrap", content: file(`{`+f32("a", "[18446744073709551608, 0]")+`}`, 8)},
		{name: "offsets_far_apart", content: file(`{`+f32("a", "[0, 9223372036854775807]")+`}`, 8)},
		{name: "empty_inside_another", content: file(`{`+f32("a", "[0, 8]")+`, "z": {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}}`, 8)},
		{name: "empty_past_the_end", content: file(`{`+f32("a", "[0, 8]")+`, "z": {"dtype": "F32", "shape": [0], "data_offsets": [16, 16]}}`, 8)},
		{name: "unaligned", content: file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}`, 5)},
	}
}
