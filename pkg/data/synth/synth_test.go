package synth_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/elastic-attention/workbench/pkg/data"
	"github.com/elastic-attention/workbench/pkg/data/format"
	"github.com/elastic-attention/workbench/pkg/data/synth"
	"github.com/google/go-cmp/cmp"
)

func checksum(t *testing.T, sentences []data.Sentence) string {
	t.Helper()
	hash := sha256.New()
	if err := format.WriteCoNLL(hash, slices.Values(sentences)); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

// TestFormat pins what a seed gives. If it fails, published results that name a seed
// can no longer be compared: take the change back, or announce a change of format in the
// change log and put the new checksums here.
func TestFormat(t *testing.T) {
	for seed, want := range map[uint64]string{
		1: "0f14c5b0d123dfce1554cf37a977c2b68d2f4a5e32e43e4d86429591a75cda7f",
		2: "e06dbde8c99b09ca3ac5f8a774735c9393e458f3ef32240be67844a13fceb13b",
	} {
		if got := checksum(t, synth.Entities(seed, 1000)); got != want {
			t.Errorf("seed %d: got %s, want %s", seed, got, want)
		}
	}
	hash := sha256.Sum256(synth.Tokenizer())
	if got, want := hex.EncodeToString(hash[:]), "85697e4640f0b5191b8d382ad9d319aa01d70397b74397aa7b5c8be99b1a73c6"; got != want {
		t.Errorf("tokenizer: got %s, want %s", got, want)
	}
}

func TestEntities(t *testing.T) {
	for _, n := range []int{0, -1} {
		if got := synth.Entities(1, n); got != nil {
			t.Errorf("n = %d: got %v", n, got)
		}
	}
	const n = 3000
	sentences := synth.Entities(7, n)
	if diff := cmp.Diff(sentences[:100], synth.Entities(7, 100)); diff != "" {
		t.Errorf("a shorter corpus is not the beginning of a longer one (-long +short):\n%s", diff)
	}
	if checksum(t, sentences) == checksum(t, synth.Entities(8, n)) {
		t.Error("two seeds give the same corpus")
	}
	spans, longest, ids, texts := map[string]int{}, 0, map[string]bool{}, map[string]bool{}
	for _, sentence := range sentences {
		if err := sentence.Validate(); err != nil {
			t.Fatal(err)
		}
		ids[sentence.ID], texts[sentence.Text] = true, true
		longest = max(longest, len(sentence.Words))
		if got, want := strings.ReplaceAll(sentence.Text, " ", ""), strings.Join(sentence.Words, ""); got != want {
			t.Errorf("text %q and words %q differ", sentence.Text, sentence.Words)
		}
		for _, span := range spansOf(sentence.Tags) {
			spans[span.kind]++
		}
	}
	if len(ids) != n || len(texts) < n*95/100 {
		t.Errorf("%d IDs and %d texts of %d sentences", len(ids), len(texts), n)
	}
	if longest > 60 {
		t.Errorf("the longest sentence has %d words", longest)
	}
	for _, kind := range synth.Types {
		if share := float64(spans[kind]) / n; share < .4 || share > .9 {
			t.Errorf("%.2f spans of type %s a sentence", share, kind)
		}
	}
	if len(spans) != len(synth.Types) {
		t.Errorf("types %v", spans)
	}

	// The tags are IOB2, and the whole survives a file.
	var file strings.Builder
	if err := format.WriteCoNLL(&file, slices.Values(sentences)); err != nil {
		t.Fatal(err)
	}
	read, err := data.Collect(format.CoNLL("synth", strings.NewReader(file.String()), format.CoNLLOptions{
		Types: synth.Types[:], RefuseOther: true, Scheme: format.SchemeError,
	}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range read {
		read[i].File, read[i].Line = "", 0
	}
	if diff := cmp.Diff(sentences, read); diff != "" {
		t.Errorf("written and read again (-want +got):\n%s", diff)
	}
}

type span struct {
	start, end int
	kind       string
}

func spansOf(tags []string) []span {
	var all []span
	for i, tag := range tags {
		switch {
		case strings.HasPrefix(tag, "B-"), strings.HasPrefix(tag, "I-") && (i == 0 || tags[i-1] == "O" || tags[i-1][2:] != tag[2:]):
			all = append(all, span{i, i + 1, tag[2:]})
		case strings.HasPrefix(tag, "I-"):
			all[len(all)-1].end = i + 1
		}
	}
	return all
}

// f1 is the micro F1 of whole entities.
func f1(sentences []data.Sentence, predict func([]string) []string) float64 {
	right, found, there := 0, 0, 0
	for _, sentence := range sentences {
		gold, got := spansOf(sentence.Tags), spansOf(predict(sentence.Words))
		there, found = there+len(gold), found+len(got)
		for _, s := range got {
			if slices.Contains(gold, s) {
				right++
			}
		}
	}
	return 2 * float64(right) / float64(found+there)
}

// TestDifficulty holds the corpus to what it promises: looking words up is not
// enough, a linear model with a small window is much better, and most names of
// another seed are new.
func TestDifficulty(t *testing.T) {
	train, dev := synth.Entities(1, 4000), synth.Entities(2, 1000)

	counts := map[string]map[string]int{}
	mentions := map[string]bool{}
	for _, sentence := range train {
		for i, word := range sentence.Words {
			word = strings.ToLower(word)
			if counts[word] == nil {
				counts[word] = map[string]int{}
			}
			counts[word][sentence.Tags[i]]++
		}
		for _, s := range spansOf(sentence.Tags) {
			mentions[strings.ToLower(strings.Join(sentence.Words[s.start:s.end], " "))] = true
		}
	}
	unseen, all := 0, 0
	for _, sentence := range dev {
		for _, s := range spansOf(sentence.Tags) {
			all++
			if !mentions[strings.ToLower(strings.Join(sentence.Words[s.start:s.end], " "))] {
				unseen++
			}
		}
	}
	share := float64(unseen) / float64(all)
	if share < .7 {
		t.Errorf("%.2f of the names of another seed are new, want at least .7", share)
	}
	lookup := f1(dev, func(words []string) []string {
		tags := make([]string, len(words))
		for i, word := range words {
			best := 0
			tags[i] = "O"
			for _, tag := range []string{"B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "O"} {
				if n := counts[strings.ToLower(word)][tag]; n > best {
					tags[i], best = tag, n
				}
			}
		}
		return tags
	})
	if lookup > .6 {
		t.Errorf("looking words up has F1 %.3f, want at most .6: the corpus is too easy", lookup)
	}
	context := f1(dev, newPerceptron(train, 5).predict)
	if context < .85 {
		t.Errorf("a linear model of the context has F1 %.3f, want at least .85: the corpus cannot be learned", context)
	}
	t.Logf("new names %.2f; F1 by looking up %.3f, by context %.3f", share, lookup, context)
}

// perceptron is a small averaged perceptron over the lower-case words around a word and the tag before it.
type perceptron struct {
	weights, sums map[uint64]*[7]float64
	step          float64
}

var allTags = []string{"O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"}

func features(words []string, i int, previous string, out []uint64) []uint64 {
	at := func(j int) string {
		if j < 0 || j >= len(words) {
			return "|"
		}
		return strings.ToLower(words[j])
	}
	add := func(parts ...string) {
		hash := fnv.New64a()
		for _, part := range parts {
			hash.Write([]byte(part))
			hash.Write([]byte{0})
		}
		out = append(out, hash.Sum64())
	}
	word := at(i)
	out = out[:0]
	add("word", word)
	add("end", word[max(0, len(word)-3):])
	add("end2", word[max(0, len(word)-2):])
	add("before", at(i-1), previous)
	add("after", at(i+1))
	add("before2", at(i-2), at(i-1))
	add("after2", at(i+1), at(i+2))
	add("around", at(i-1), at(i+1))
	add("far", at(i-2))
	add("far", at(i+2))
	add("far3", at(i+3))
	add("tag", previous)
	add("previous", previous, at(i+1))
	for j := range words {
		add("any", at(j))
	}
	return out
}

func newPerceptron(train []data.Sentence, rounds int) *perceptron {
	p := &perceptron{weights: map[uint64]*[7]float64{}, sums: map[uint64]*[7]float64{}, step: 1}
	var space []uint64
	for range rounds {
		for _, sentence := range train {
			previous := "O"
			for i := range sentence.Words {
				space = features(sentence.Words, i, previous, space)
				got, want := p.best(space, previous), slices.Index(allTags, sentence.Tags[i])
				if got != want {
					for _, f := range space {
						if p.weights[f] == nil {
							p.weights[f], p.sums[f] = &[7]float64{}, &[7]float64{}
						}
						p.weights[f][want]++
						p.weights[f][got]--
						p.sums[f][want] += p.step
						p.sums[f][got] -= p.step
					}
				}
				p.step++
				previous = sentence.Tags[i]
			}
		}
	}
	for f, w := range p.weights {
		for k := range w {
			w[k] -= p.sums[f][k] / p.step
		}
	}
	return p
}

func (p *perceptron) best(features []uint64, previous string) int {
	var total [7]float64
	for _, f := range features {
		if w := p.weights[f]; w != nil {
			for k := range w {
				total[k] += w[k]
			}
		}
	}
	best := 0
	for k := range total {
		allowed := allTags[k][0] != 'I' || len(previous) > 1 && previous[2:] == allTags[k][2:]
		if allowed && total[k] > total[best] {
			best = k
		}
	}
	return best
}

func (p *perceptron) predict(words []string) []string {
	tags := make([]string, len(words))
	previous := "O"
	var space []uint64
	for i := range words {
		space = features(words, i, previous, space)
		tags[i] = allTags[p.best(space, previous)]
		previous = tags[i]
	}
	return tags
}

// TestVocabulary makes sure that WordPiece finds pieces for every word.
func TestVocabulary(t *testing.T) {
	vocabulary := synth.Vocabulary()
	ids := map[string]int{}
	for id, piece := range vocabulary {
		if _, twice := ids[piece]; twice {
			t.Errorf("piece %q is there twice", piece)
		}
		ids[piece] = id
	}
	if diff := cmp.Diff([]string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}, vocabulary[:5]); diff != "" {
		t.Errorf("special tokens (-want +got):\n%s", diff)
	}
	pieces, words := 0, 0
	for _, sentence := range synth.Entities(3, 2000) {
		for _, word := range sentence.Words {
			words++
			rest, prefix := strings.ToLower(word), ""
			if strings.HasSuffix(rest, ".") && len(rest) > 1 { // the splitter cuts punctuation off
				rest = rest[:len(rest)-1]
			}
			if rest == "'s" {
				rest = "s"
			}
			for rest != "" {
				n := len(rest)
				for ; n > 0; n-- {
					if _, ok := ids[prefix+rest[:n]]; ok {
						break
					}
				}
				if n == 0 {
					t.Fatalf("no pieces for %q at %q", word, rest)
				}
				rest, prefix = rest[n:], "##"
				pieces++
			}
		}
	}
	if per := float64(pieces) / float64(words); per > 1.6 {
		t.Errorf("%.2f pieces a word, want at most 1.6", per)
	}
	if len(vocabulary) > 1000 {
		t.Errorf("%d pieces, want a small vocabulary", len(vocabulary))
	}
}

func TestTokenizer(t *testing.T) {
	var tokenizer struct {
		Model struct {
			Type  string         `json:"type"`
			Vocab map[string]int `json:"vocab"`
		} `json:"model"`
	}
	if err := json.Unmarshal(synth.Tokenizer(), &tokenizer); err != nil {
		t.Fatal(err)
	}
	if tokenizer.Model.Type != "WordPiece" || len(tokenizer.Model.Vocab) != len(synth.Vocabulary()) {
		t.Errorf("model %s with %d pieces", tokenizer.Model.Type, len(tokenizer.Model.Vocab))
	}
}

func ExampleEntities() {
	sentences := synth.Entities(1, 3)
	for _, sentence := range sentences {
		fmt.Println(sentence.Text)
	}
	fmt.Println(sentences[1].Words)
	fmt.Println(sentences[1].Tags)
	// Output:
	// at twelve, the river between north riros and migramenstadt is cheap
	// Last week, Veva married Nosik in Saint Komak.
	// How far is Lavanburg from here?
	// [Last week , Veva married Nosik in Saint Komak .]
	// [O O O B-PER O B-PER O B-LOC I-LOC O]
}

func ExampleTokenizer() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	// A folder with this file is what a tokenizer is loaded from.
	err = os.WriteFile(filepath.Join(dir, "tokenizer.json"), synth.Tokenizer(), 0o644)
	fmt.Println(err, len(synth.Vocabulary()), "pieces")
	// Output:
	// <nil> 566 pieces
}
