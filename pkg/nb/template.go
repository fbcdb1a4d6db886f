package nb

import (
	"fmt"
	"strings"
)

// New returns a notebook in the form of the house, which passes [Check] and runs as it is: a title with a question, a
// cell that pins the module, parameters, one that computes, and one that answers and is tested. File is the name that it
// will be saved under.
func New(file, title string) *Notebook {
	n := &Notebook{Minor: 5, Metadata: map[string]any{
		"kernelspec":    map[string]any{"display_name": "Go (gonb)", "language": "go", "name": "gonb"},
		"language_info": map[string]any{"file_extension": ".go", "mimetype": "text/x-go", "name": "go"},
		planField: map[string]any{
			"budget": 120, "cell_timeout": 60,
			"expect": map[string]any{"error": []any{0, 0.05}},
		},
	}}
	add := func(kind, source string, tags ...any) {
		c := &Cell{Kind: kind, ID: fmt.Sprintf("c%02d", len(n.Cells)), Source: strings.TrimSpace(source)}
		if len(tags) > 0 {
			c.Metadata = map[string]any{"tags": tags}
		}
		n.Cells = append(n.Cells, c)
	}
	add(Markdown, "# "+title+`
*中文标题*

**Question.** What does this notebook ask? One sentence; the last cell answers it.`)
	add(Markdown, "## 1. The module")
	add(Code, `
%noautoget
!*test -e go.work || { go work init && go work use . "${NB_MODULE:-$GONB_DIR/..}"; }
import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/elastic-attention/workbench/pkg/viz/nb"
	"github.com/janpfeifer/must"
)

// An error says which lines of the notebook led to it.
func init_must() { must.M = nb.Must }`)
	add(Markdown, `## 2. Parameters

`+"An environment variable `NB_DRAWS` sets another number of draws, and so on; headless: `elastic nb run -p DRAWS=100`."+`
What is expected, and how long it may take, stands in this notebook's metadata.`)
	add(Code, `
var (
	draws = must.M1(nb.Param("DRAWS", 10000))    // random points
	seed  = must.M1(nb.Param("SEED", uint64(1))) // of the points
)

%%
nb.Markdown(fmt.Sprintf("%d draws, seed %d.\n\n", draws, seed) + must.M1(nb.ReadPlan("`+file+`")).Markdown())`, ParametersTag)
	add(Markdown, `## 3. The idea

A point that is drawn at random from the unit square lies in the quarter of the unit circle with probability $\pi/4$.`)
	add(Code, `
// estimate draws n points and returns an estimate of π.
func estimate(n int) float64 {
	r, inside := rand.New(rand.NewPCG(seed, 0)), 0
	for range n {
		if x, y := r.Float64(), r.Float64(); x*x+y*y < 1 {
			inside++
		}
	}
	return 4 * float64(inside) / float64(n)
}

%%
for n := 100; n <= draws; n *= 10 {
	fmt.Printf("%6d draws: %.3f\n", n, estimate(n))
}`)
	add(Markdown, "## 4. The answer")
	add(Code, `
%%
fmt.Printf("result: error=%.4f\n", math.Abs(estimate(draws)-math.Pi))`)
	add(Markdown, `**Answer.** What was found, in words, with the numbers above.`)
	return n
}
