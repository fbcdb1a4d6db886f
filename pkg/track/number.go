package track

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// number is a float64 whose JSON has a word for what JSON has no number for: "NaN", "Infinity", "-Infinity".
type number float64

func (n number) MarshalJSON() ([]byte, error) { return appendNumber(nil, float64(n)), nil }

func (n *number) UnmarshalJSON(text []byte) error {
	var v float64
	err := json.Unmarshal(text, &v)
	if len(text) > 0 && text[0] == '"' {
		var word string
		if err = json.Unmarshal(text, &word); err == nil {
			switch word {
			case "NaN":
				v = math.NaN()
			case "Infinity":
				v = math.Inf(1)
			case "-Infinity":
				v = math.Inf(-1)
			default:
				err = fmt.Errorf("%q is no number, want one, \"NaN\", \"Infinity\" or \"-Infinity\"", word)
			}
		}
	}
	*n = number(v)
	return err
}

// appendNumber writes a value so that it is read back bit by bit, but for the payload of a NaN.
func appendNumber(b []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(b, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(b, `"-Infinity"`...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

func appendInt(b []byte, v int64) []byte { return strconv.AppendInt(b, v, 10) }

// appendString writes a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			text, _ := json.Marshal(s) // a string does not fail
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
