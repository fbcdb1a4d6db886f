package strictjson_test

import (
	"testing"

	"github.com/elastic-attention/workbench/internal/strictjson"
)

func TestDecode(t *testing.T) {
	type config struct {
		Heads int     `json:"heads"`
		Rate  float64 `json:"rate"`
		Inner struct {
			On bool `json:"on"`
		} `json:"inner"`
		List []string `json:"list"`
	}
	for content, want := range map[string]string{
		`{"heads": 3, "list": ["a"]} `:        "",
		`{"heads": "x"}`:                      "heads is a JSON string, want a whole number",
		`{"heads": 1.5}`:                      "heads is a JSON number 1.5, want a whole number",
		`{"rate": []}`:                        "rate is a JSON array, want a number",
		`{"inner": "x"}`:                      "inner is a JSON string, want an object",
		`{"inner": {"on": 1}}`:                "inner.on is a JSON number, want true or false",
		`{"list": {}}`:                        "list is a JSON object, want a list",
		`[]`:                                  "a JSON array, want an object",
		`{"head": 1}`:                         `unknown field "head", want heads, rate, inner, list`,
		`{"inner": {"off": true}}`:            `unknown field "off"`,
		`{"heads": 1, "inner": {"heads": 1}}`: `unknown field "heads"`,
		`{"heads": 1`:                         "the JSON ends too early: a bracket or a quote is not closed",
		"a,b\n1,2":                            "line 1: invalid character 'a' looking for beginning of value",
		"{\n\"heads\": 1,\n\n}":               "line 4: invalid character '}' looking for beginning of object key string",
		"{\"heads\": x}\n":                    "invalid character 'x' looking for beginning of value",
		`{} {}`:                               "more than one JSON value",
		`{}}`:                                 "more than one JSON value",
	} {
		got := ""
		if err := strictjson.Decode([]byte(content), &config{}); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", content, got, want)
		}
	}
}

// TestDecodeKnown: unknown fields pass, all else is told as by Decode.
func TestDecodeKnown(t *testing.T) {
	for content, want := range map[string]string{
		`{"heads": 3, "later": []}`: "",
		`{"heads": {}}`:             "heads is a JSON object, want a whole number",
		`[]`:                        "a JSON array, want an object",
		``:                          "it is empty",
		`{"heads": 3}{}`:            "more than one JSON value",
	} {
		var config struct {
			Heads int `json:"heads"`
		}
		got := ""
		if err := strictjson.DecodeKnown([]byte(content), &config); err != nil {
			got = err.Error()
		}
		if got != want || want == "" && config.Heads != 3 {
			t.Errorf("%s: %q, heads %d, want %q", content, got, config.Heads, want)
		}
	}
}

// TestDecodeList: the fields of what is in a list are named too.
func TestDecodeList(t *testing.T) {
	type base struct {
		Kind string `json:"kind"`
	}
	type controller struct {
		base
		Patience int `json:"patience,omitempty"`
		Hidden   int `json:"-"`
		Plain    int
		private  int
	}
	list := []controller{{private: 1}}
	want := `unknown field "foo", want kind, patience, Plain`
	if err := strictjson.Decode([]byte(`[{"kind": "x"}, {"foo": {}}]`), &list); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
