package tokenizer_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/data/tokenizer"
)

// benchTexts returns the texts of ELASTIC_BENCH_TEXTS, one a line, or else ordinary English of our own.
// tools/bench/tokenizer_peer.py measures the reference on the same.
func benchTexts(b *testing.B) []string {
	b.Helper()
	path := os.Getenv("ELASTIC_BENCH_TEXTS")
	if path == "" {
		path = filepath.Join("testdata", "bench.txt")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

func BenchmarkEncode(b *testing.B) {
	for _, family := range []string{"bert-minilm", "bert-cased-small"} {
		b.Run(family, func(b *testing.B) {
			tok, texts := load(b, family), benchTexts(b)
			tokens := 0
			b.ReportAllocs()
			for b.Loop() {
				for _, text := range texts {
					e, err := tok.Encode(text, tokenizer.Options{})
					if err != nil {
						b.Fatal(err)
					}
					tokens += len(e.IDs)
				}
			}
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}

func BenchmarkEncodeParallel(b *testing.B) {
	tok, texts := load(b, "bert-minilm"), benchTexts(b)
	tokens := 0
	for _, text := range texts {
		e, err := tok.Encode(text, tokenizer.Options{})
		if err != nil {
			b.Fatal(err)
		}
		tokens += len(e.IDs)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			for _, text := range texts {
				if _, err := tok.Encode(text, tokenizer.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.ReportMetric(float64(tokens)*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}

func BenchmarkParse(b *testing.B) {
	data, err := os.ReadFile(familyDir + "bert-minilm/tokenizer.json")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tokenizer.Parse("tokenizer.json", data); err != nil {
			b.Fatal(err)
		}
	}
}
