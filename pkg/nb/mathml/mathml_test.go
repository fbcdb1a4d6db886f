package mathml_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/elastic-attention/workbench/pkg/nb"
	"github.com/elastic-attention/workbench/pkg/nb/mathml"
)

// inner returns what is between semantics and annotation.
func inner(t *testing.T, tex string) string {
	t.Helper()
	markup, err := mathml.Convert(tex, false)
	if err != nil {
		t.Errorf("%s: %v", tex, err)
		return ""
	}
	wellFormed(t, markup)
	markup = strings.TrimPrefix(markup, "<math><semantics>")
	markup, _, _ = strings.Cut(markup, "<annotation")
	return markup
}

func wellFormed(t *testing.T, markup string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(markup))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("%s: %v", markup, err)
			return
		}
	}
}

func TestConvert(t *testing.T) {
	for tex, want := range map[string]string{
		`x`:                      `<mi>x</mi>`,
		`x_i^{2}`:                `<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>`,
		`x^2_i`:                  `<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup>`,
		`x^10`:                   `<mrow><msup><mi>x</mi><mn>1</mn></msup><mn>0</mn></mrow>`,
		`f'^2`:                   `<msup><mi>f</mi><mrow><mo>′</mo><mn>2</mn></mrow></msup>`,
		`{}^\top`:                `<msup><mrow></mrow><mi>⊤</mi></msup>`,
		`-1.5`:                   `<mrow><mo>−</mo><mn>1.5</mn></mrow>`,
		`a<b`:                    `<mrow><mi>a</mi><mo>&lt;</mo><mi>b</mi></mrow>`,
		`\frac12`:                `<mfrac><mn>1</mn><mn>2</mn></mfrac>`,
		`\frac{a}{b+1}`:          `<mfrac><mi>a</mi><mrow><mi>b</mi><mo>+</mo><mn>1</mn></mrow></mfrac>`,
		`\sqrt[3]{x}`:            `<mroot><mi>x</mi><mn>3</mn></mroot>`,
		`\mathbf{w}`:             `<mi>𝐰</mi>`,
		`\mathbf{w}_1`:           `<msub><mi>𝐰</mi><mn>1</mn></msub>`,
		`\boldsymbol\theta`:      `<mi>𝛉</mi>`,
		`\mathbb{R}^{d\times d}`: `<msup><mi>ℝ</mi><mrow><mi>d</mi><mo>×</mo><mi>d</mi></mrow></msup>`,
		`\mathcal L`:             `<mi>ℒ</mi>`,
		`\mathrm{d}x`:            `<mrow><mi mathvariant="normal">d</mi><mi>x</mi></mrow>`,
		`\sum_{i=1}^n`:           `<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover>`,
		`\int_0^1`:               `<msubsup><mo>∫</mo><mn>0</mn><mn>1</mn></msubsup>`,
		`\int\limits_0`:          `<munder><mo>∫</mo><mn>0</mn></munder>`,
		`\max_i`:                 `<munder><mi>max</mi><mi>i</mi></munder>`,
		`\log x`:                 `<mrow><mi>log</mi><mi>x</mi></mrow>`,
		`\hat{y}`:                `<mover accent="true"><mi>y</mi><mo stretchy="false">^</mo></mover>`,
		`\left( a \right]`:       `<mrow><mo stretchy="true" form="prefix">(</mo><mi>a</mi><mo stretchy="true" form="postfix">]</mo></mrow>`,
		`\left. a \right|`:       `<mrow><mi>a</mi><mo stretchy="true" form="postfix">|</mo></mrow>`,
		`\text{if } x`:           "<mrow><mtext>if\u00a0</mtext><mi>x</mi></mrow>",
		`\operatorname{softmax}`: `<mi>softmax</mi>`,
		`\not\in`:                "<mo>∈\u0338</mo>",
		`\{a\}`:                  `<mrow><mo stretchy="false">{</mo><mi>a</mi><mo stretchy="false">}</mo></mrow>`,
		`a\,b % a remark`:        `<mrow><mi>a</mi><mspace width="0.167em"></mspace><mi>b</mi></mrow>`,
		`\begin{pmatrix}1&2\\3&4\end{pmatrix}`: `<mrow><mo stretchy="true" form="prefix">(</mo><mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr>` +
			`<mtr><mtd><mn>3</mn></mtd><mtd><mn>4</mn></mtd></mtr></mtable><mo stretchy="true" form="postfix">)</mo></mrow>`,
		`\begin{matrix}a\\\end{matrix}`: `<mtable><mtr><mtd><mi>a</mi></mtd></mtr></mtable>`,
		`第`:                             `<mi>第</mi>`,
	} {
		if diff := cmp.Diff(want, inner(t, tex)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tex, diff)
		}
	}
}

func TestRefused(t *testing.T) {
	for tex, want := range map[string]string{
		`a + \foo`: `at byte 4: \foo is not known`, `\frac{a}`: "something is missing", `{a`: "group at byte 0: at byte 2: it ends too early",
		`a}`: "} has no beginning", `\left( a`: "it ends too early", `\left a \right)`: `"a" is no delimiter`, `a_b_c`: "a second _",
		`\begin{tikz}\end{tikz}`: "environment tikz is not known", `\begin{matrix}a\end{cases}`: `is closed by "cases"`, `\text a`: "want {",
		`x^`: "something is missing", `\`: "", strings.Repeat(`\hat{`, 5e6): "nested more than 255 deep", // whose markup grew with the square
	} {
		if _, err := mathml.Convert(tex, true); want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", tex, err, want)
		}
	}
}

func TestSplit(t *testing.T) {
	for text, want := range map[string][]mathml.Part{
		"a $x$, $$y\n+ z$$ b":           {{"a ", false, false}, {"x", true, false}, {", ", false, false}, {"y\n+ z", true, true}, {" b", false, false}},
		"costs $5 or $6":                {{"costs $5 or $6", false, false}},
		"`$x$` and ``a ` $y$``":         {{"`$x$` and ``a ` $y$``", false, false}},
		"```\n$x$\n```\n$y$":            {{"```\n$x$\n```\n", false, false}, {"y", true, false}},
		`\$x$ $a\$b$`:                   {{`\$x$ `, false, false}, {`a\$b`, true, false}},
		"| $|T|$ |":                     {{"| ", false, false}, {"|T|", true, false}, {" |", false, false}},
		"open $x and\n\nanother $ here": {{"open $x and\n\nanother $ here", false, false}},
		"$x$$y$":                        {{"x", true, false}, {"y", true, false}},
	} {
		if diff := cmp.Diff(want, mathml.Split(text)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

// TestHouse: all formulas of the notebooks are known.
func TestHouse(t *testing.T) {
	paths, err := filepath.Glob("../../../notebooks/*.ipynb")
	if err != nil {
		t.Fatal(err)
	}
	formulas := 0
	for _, path := range paths {
		n, err := nb.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, cell := range n.Cells {
			for _, part := range mathml.Split(cell.Source) {
				if cell.Kind != nb.Markdown || !part.Formula {
					continue
				}
				formulas++
				markup, err := mathml.Convert(part.Text, part.Display)
				if err != nil {
					t.Errorf("%s: %v", path, err)
				}
				wellFormed(t, markup)
			}
		}
	}
	if formulas < 20 {
		t.Errorf("only %d formulas", formulas)
	}
}

func FuzzConvert(f *testing.F) {
	for _, seed := range []string{`\frac{a}{b}_i^2`, `\begin{cases}a&b\\c\end{cases}`, `\left(x\right)`, `\mathbf{α}`, `\not=`, `\big|`, `$`, `\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, tex string) {
		var whole strings.Builder
		for _, part := range mathml.Split(tex) {
			whole.WriteString(part.Text)
		}
		if strings.ReplaceAll(whole.String(), "$", "") != strings.ReplaceAll(tex, "$", "") {
			t.Errorf("%q was split into %q", tex, whole.String())
		}
		markup, err := mathml.Convert(tex, false)
		if err != nil {
			return
		}
		if strings.Contains(strings.ToLower(markup), "<script") {
			t.Errorf("%q became %s", tex, markup)
		}
	})
}

func ExampleConvert() {
	markup, err := mathml.Convert(`\frac{a}{b}`, false)
	if err != nil {
		panic(err)
	}
	fmt.Println(markup)
	// Output: <math><semantics><mfrac><mi>a</mi><mi>b</mi></mfrac><annotation encoding="application/x-tex">\frac{a}{b}</annotation></semantics></math>
}
