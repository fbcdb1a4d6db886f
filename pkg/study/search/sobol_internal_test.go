package search

import (
	"encoding/json"
	"math/bits"
	"os"
	"testing"
)

// TestSobolIsThatOfScipy compares points before scrambling.
func TestSobolIsThatOfScipy(t *testing.T) {
	content, err := os.ReadFile("testdata/sobol.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Bits   int        `json:"bits"`
		Index  []uint32   `json:"index"`
		Points [][]uint32 `json:"points"`
	}
	if err := json.Unmarshal(content, &want); err != nil {
		t.Fatal(err)
	}
	for i, point := range want.Points {
		if len(point) != SobolDimensions {
			t.Fatalf("scipy has %d dimensions", len(point))
		}
		for d, digits := range point {
			if got := sobol(d, want.Index[i]) >> (32 - want.Bits); got != digits {
				t.Errorf("point %d, dimension %d: %030b, want %030b", want.Index[i], d, got, digits)
			}
		}
	}
}

// TestScrambledSobolIsANet: of 2^m points each interval [k, k+1)/2^m of each dimension has one, and in the first two
// dimensions, which make a (0, 2)-sequence, so has each rectangle of that area.
func TestScrambledSobolIsANet(t *testing.T) {
	const m = 8
	space := make(Space, SobolDimensions)
	for _, seed := range []uint64{0, 1, 99} {
		var points [][]float64
		for n := range 1 << m {
			points = append(points, sobolPoint(History{Space: space, Number: n, Seed: seed}))
		}
		for d := range SobolDimensions {
			seen := map[int]bool{}
			for _, p := range points {
				seen[int(p[d]*(1<<m))] = true
			}
			if len(seen) != 1<<m {
				t.Errorf("seed %d, dimension %d: %d intervals have a point, want %d", seed, d, len(seen), 1<<m)
			}
		}
		for k := range m + 1 {
			seen := map[[2]int]bool{}
			for _, p := range points {
				seen[[2]int{int(p[0] * float64(int(1)<<k)), int(p[1] * float64(int(1)<<(m-k)))}] = true
			}
			if len(seen) != 1<<m {
				t.Errorf("seed %d: %d of %d rectangles of 2^-%d by 2^-%d have a point", seed, len(seen), 1<<m, k, m-k)
			}
		}
	}
	// All digits are scrambled, each by its own coin.
	flips := 0
	for n := range uint32(64) {
		flips += bits.OnesCount32(scramble(n*0x9e3779b9, 5) ^ n*0x9e3779b9)
	}
	if share := float64(flips) / (64 * 32); share < 0.45 || share > 0.55 {
		t.Errorf("%.2f of the digits are flipped, want a half", share)
	}
}
