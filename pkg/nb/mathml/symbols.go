package mathml

import (
	"html"
	"strings"
	"unicode/utf8"
)

// alphabet is how letters look: "" is italic for one letter, as mathematics has it.
type alphabet string

// alphabets are the commands that choose one.
var alphabets = map[string]alphabet{
	"mathbf": "bold", "boldsymbol": "bold", "bm": "bold", "mathrm": "roman", "mathbb": "double", "mathcal": "script", "mathscr": "script",
	"mathit": "italic", "mathsf": "sans", "mathtt": "mono", "mathfrak": "fraktur",
}

// first are the code points of A, a, 0, Α and α in the alphabets, 0 where an alphabet has none.
var first = map[alphabet][5]rune{
	"bold": {0x1D400, 0x1D41A, 0x1D7CE, 0x1D6A8, 0x1D6C2}, "double": {0x1D538, 0x1D552, 0x1D7D8, 0, 0}, "script": {0x1D49C, 0x1D4B6, 0, 0, 0},
	"sans": {0x1D5A0, 0x1D5BA, 0x1D7E2, 0, 0}, "mono": {0x1D670, 0x1D68A, 0x1D7F6, 0, 0}, "fraktur": {0x1D504, 0x1D51E, 0, 0, 0},
}

// elsewhere are the letters that were in Unicode before their alphabets.
var elsewhere = map[rune]rune{
	0x1D53A: 'ℂ', 0x1D53F: 'ℍ', 0x1D545: 'ℕ', 0x1D547: 'ℙ', 0x1D548: 'ℚ', 0x1D549: 'ℝ', 0x1D551: 'ℤ',
	0x1D49D: 'ℬ', 0x1D4A0: 'ℰ', 0x1D4A1: 'ℱ', 0x1D4A3: 'ℋ', 0x1D4A4: 'ℐ', 0x1D4A7: 'ℒ', 0x1D4A8: 'ℳ', 0x1D4AD: 'ℛ', 0x1D4BA: 'ℯ', 0x1D4BC: 'ℊ', 0x1D4C4: 'ℴ',
	0x1D506: 'ℭ', 0x1D50B: 'ℌ', 0x1D50C: 'ℑ', 0x1D515: 'ℜ', 0x1D51D: 'ℨ',
}

// text returns letters and digits in the alphabet.
func (a alphabet) text(text string) string {
	from, ok := first[a]
	if !ok {
		return text
	}
	return strings.Map(func(r rune) rune {
		for i, base := range [5]rune{'A', 'a', '0', 'Α', 'α'} {
			if n := r - base; from[i] != 0 && n >= 0 && n < [5]rune{26, 26, 10, 25, 25}[i] {
				r = from[i] + n
				if other, ok := elsewhere[r]; ok {
					r = other
				}
				break
			}
		}
		return r
	}, text)
}

// identifier is the element of a letter.
func (a alphabet) identifier(text string) string {
	attribute := ""
	if a == "roman" && utf8.RuneCountInString(text) == 1 {
		attribute = ` mathvariant="normal"`
	}
	return "<mi" + attribute + ">" + html.EscapeString(a.text(text)) + "</mi>"
}

// identifiers are letters with names.
var identifiers = map[string]string{
	"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ϵ", "varepsilon": "ε", "zeta": "ζ", "eta": "η", "theta": "θ", "vartheta": "ϑ",
	"iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "varpi": "ϖ", "rho": "ρ", "varrho": "ϱ", "sigma": "σ",
	"varsigma": "ς", "tau": "τ", "upsilon": "υ", "phi": "ϕ", "varphi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "Gamma": "Γ", "Delta": "Δ",
	"Theta": "Θ", "Lambda": "Λ", "Xi": "Ξ", "Pi": "Π", "Sigma": "Σ", "Upsilon": "Υ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω", "ell": "ℓ", "hbar": "ℏ",
	"partial": "∂", "nabla": "∇", "infty": "∞", "emptyset": "∅", "varnothing": "∅", "aleph": "ℵ", "Re": "ℜ", "Im": "ℑ", "imath": "ı", "jmath": "ȷ",
	"dots": "…", "ldots": "…", "cdots": "⋯", "vdots": "⋮", "ddots": "⋱", "top": "⊤", "bot": "⊥", "forall": "∀", "exists": "∃", "nexists": "∄",
	"_": "_", "%": "%", "#": "#", "$": "$", "&": "&",
}

// operators are relations, arrows, fences and the like.
var operators = map[string]string{
	"cdot": "⋅", "times": "×", "div": "÷", "pm": "±", "mp": "∓", "circ": "∘", "bullet": "•", "ast": "∗", "star": "⋆", "odot": "⊙", "oplus": "⊕",
	"ominus": "⊖", "otimes": "⊗", "cap": "∩", "cup": "∪", "setminus": "∖", "wedge": "∧", "land": "∧", "vee": "∨", "lor": "∨", "neg": "¬", "lnot": "¬",
	"le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "ll": "≪", "gg": "≫", "lt": "<", "gt": ">", "approx": "≈", "sim": "∼",
	"simeq": "≃", "cong": "≅", "equiv": "≡", "propto": "∝", "in": "∈", "notin": "∉", "ni": "∋", "subset": "⊂", "subseteq": "⊆", "supset": "⊃",
	"supseteq": "⊇", "perp": "⊥", "parallel": "∥", "mid": "∣", "nmid": "∤", "prec": "≺", "succ": "≻", "models": "⊨", "vdash": "⊢", "coloneqq": "≔",
	"to": "→", "rightarrow": "→", "leftarrow": "←", "gets": "←", "leftrightarrow": "↔", "Rightarrow": "⇒", "Leftarrow": "⇐", "Leftrightarrow": "⇔",
	"implies": "⟹", "iff": "⟺", "mapsto": "↦", "longrightarrow": "⟶", "longmapsto": "⟼", "uparrow": "↑", "downarrow": "↓", "hookrightarrow": "↪",
	"colon": ":", "prime": "′", "backslash": `\`, "{": "{", "}": "}", "lbrace": "{", "rbrace": "}", "|": "‖", "Vert": "‖", "lVert": "‖", "rVert": "‖",
	"vert": "|", "lvert": "|", "rvert": "|", "langle": "⟨", "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "lbrack": "[", "rbrack": "]",
}

// big are operators that grow and have limits.
var big = map[string]string{
	"sum": "∑", "prod": "∏", "coprod": "∐", "int": "∫", "iint": "∬", "oint": "∮", "bigcup": "⋃", "bigcap": "⋂", "bigoplus": "⨁", "bigotimes": "⨂",
	"bigodot": "⨀", "bigvee": "⋁", "bigwedge": "⋀",
}

// functions are set upright; whether scripts are limits.
var functions = map[string]bool{
	"exp": false, "log": false, "ln": false, "lg": false, "sin": false, "cos": false, "tan": false, "cot": false, "sinh": false, "cosh": false, "tanh": false,
	"arcsin": false, "arccos": false, "arctan": false, "ker": false, "dim": false, "deg": false, "arg": false, "hom": false,
	"max": true, "min": true, "sup": true, "inf": true, "lim": true, "limsup": true, "liminf": true, "det": true, "gcd": true, "Pr": true, "argmax": true, "argmin": true,
}

var spaces = map[string]string{
	",": "0.167em", ":": "0.222em", ">": "0.222em", ";": "0.278em", " ": "0.333em", "!": "-0.167em", "quad": "1em", "qquad": "2em", "enspace": "0.5em",
	"thinspace": "0.167em",
}

type accent struct {
	text                    string
	stretchy, below, limits bool
}

var accents = map[string]accent{
	"hat": {text: "^"}, "widehat": {text: "^", stretchy: true}, "tilde": {text: "~"}, "widetilde": {text: "~", stretchy: true}, "bar": {text: "¯"},
	"overline": {text: "¯", stretchy: true}, "vec": {text: "→"}, "overrightarrow": {text: "→", stretchy: true}, "dot": {text: "˙"}, "ddot": {text: "¨"},
	"check": {text: "ˇ"}, "breve": {text: "˘"}, "acute": {text: "´"}, "grave": {text: "`"}, "underline": {text: "_", stretchy: true, below: true},
	"underbrace": {"⏟", true, true, true}, "overbrace": {"⏞", true, false, true},
}

var sizes = map[string]string{"big": "1.2em", "Big": "1.8em", "bigg": "2.4em", "Bigg": "3em"}

type environment struct{ open, close, columns string }

var environments = map[string]environment{
	"matrix": {}, "array": {}, "pmatrix": {"(", ")", ""}, "bmatrix": {"[", "]", ""}, "Bmatrix": {"{", "}", ""}, "vmatrix": {"|", "|", ""},
	"Vmatrix": {"‖", "‖", ""}, "cases": {"{", "", "l"}, "aligned": {"", "", "rl"}, "align": {"", "", "rl"}, "align*": {"", "", "rl"}, "split": {"", "", "rl"},
	"gathered": {}, "smallmatrix": {},
}
