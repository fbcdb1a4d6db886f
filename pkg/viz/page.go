package viz

import (
	"fmt"
	"image/color"
	"math"
	"strings"
)

// class marks our SVGs, whose style must not reach into the page around them.
const class = "elastic-viz"

// style colours our SVGs. Charts come from gonum/plot with their colours in style attributes, which stand for light
// pages; where the reader prefers dark ones, paper, ink, grid and pale curves are exchanged.
var style = `<style>
.elastic-viz .paper{fill:#fff}.elastic-viz .ink{fill:#1a1a1a}.elastic-viz .soft{fill:#555}.elastic-viz .frame{fill:none;stroke:#999}
@media (prefers-color-scheme:dark){
.elastic-viz .paper,.elastic-viz [style*="fill:#FFFFFF"]{fill:#1e1e1e!important}
.elastic-viz text,.elastic-viz .ink,.elastic-viz [style*="fill:#000000"]{fill:#e6e6e6!important}
.elastic-viz .soft{fill:#b0b0b0!important}
.elastic-viz [style*="stroke:#000000"]{stroke:#c8c8c8!important}
.elastic-viz [style*="stroke:#E1E1E1"]{stroke:#3c3c3c!important}
` + dimPales() + `}
</style>`

// What style makes of white and of black lines on dark pages.
var (
	darkPaper = color.NRGBA{0x1e, 0x1e, 0x1e, 255}
	darkLine  = color.NRGBA{0xc8, 0xc8, 0xc8, 255}
)

// pale is a colour of palette for curves that stand behind.
func pale(hue color.NRGBA) color.NRGBA { return blend(hue, 0.7) }

// unsure is the colour of a [Forest] for what may be luck.
func unsure() color.NRGBA { return blend(palette[0], 0.45) }

// dim is a blend of a colour, such as [pale], for dark pages, where that would be the brightest of all: the colour mixed with the dark
// paper, so that it stands out from that as the blend does from white.
func dim(hue, blended color.NRGBA) color.NRGBA {
	want := contrast(blended, color.NRGBA{255, 255, 255, 255})
	if hue == (color.NRGBA{A: 255}) {
		hue = darkLine
	}
	least, most := 0.0, 1.0 // of paper; contrast falls with it
	for range 16 {
		if share := (least + most) / 2; contrast(mix(hue, darkPaper, share), darkPaper) > want {
			least = share
		} else {
			most = share
		}
	}
	return mix(hue, darkPaper, most)
}

// dimPales are rules for dark pages.
func dimPales() string {
	var b strings.Builder
	for _, hue := range palette {
		fmt.Fprintf(&b, ".elastic-viz [style*=\"stroke:%s\"]{stroke:%s!important}\n", hex(pale(hue)), hex(dim(hue, pale(hue))))
	}
	for _, part := range []string{"stroke", "fill"} {
		fmt.Fprintf(&b, ".elastic-viz [style*=\"%[1]s:%[2]s\"]{%[1]s:%[3]s!important}\n", part, hex(unsure()), hex(dim(palette[0], unsure())))
	}
	return b.String()
}

// hex is a colour as gonum/plot writes it.
func hex(c color.NRGBA) string { return fmt.Sprintf("#%02X%02X%02X", c.R, c.G, c.B) }

// contrast is the contrast ratio of two colours, 1 to 21:
//
//	(L₁ + 0.05) / (L₂ + 0.05), the lighter one's luminance first
//
// Source: WCAG 2.2, "contrast ratio" and "relative luminance".
func contrast(a, b color.NRGBA) float64 {
	luminance := func(c color.NRGBA) float64 {
		linear := func(v uint8) float64 {
			x := float64(v) / 255
			if x <= 0.04045 {
				return x / 12.92
			}
			return math.Pow((x+0.055)/1.055, 2.4)
		}
		return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
	}
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// beginSVG opens an SVG of a size in pixels, with its text alternative and a paper.
func beginSVG(b *strings.Builder, width, height float64, title, desc string) {
	w, h := short(width), short(height)
	b.WriteString(`<svg xmlns="http://www.w3.org/2000/svg" width="` + w + `" height="` + h + `" viewBox="0 0 ` + w + " " + h +
		`" class="` + class + `" role="img" aria-label="` + escape(title) + `" font-family="Liberation Sans,Arial,Helvetica,sans-serif">` +
		"\n<title>" + escape(title) + "</title>\n<desc>" + escape(desc) + "</desc>\n" + style + "\n" +
		`<rect class="paper" width="` + w + `" height="` + h + `"/>` + "\n")
}

// Page writes pictures and tables, as the functions of this package return them, as an HTML file of its own, which
// follows the reader's preference for light or dark pages.
func Page(title string, parts ...string) string {
	var b strings.Builder
	b.WriteString(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"/><meta name="viewport" content="width=device-width"/>
<title>` + escape(title) + `</title>
<style>:root{color-scheme:light dark}body{font-family:sans-serif;margin:1.5em}figure{margin:1em 0;overflow-x:auto}</style>
</head><body><h1>` + escape(title) + "</h1>\n")
	for _, part := range parts {
		b.WriteString("<figure>" + part + "</figure>\n")
	}
	b.WriteString("</body></html>\n")
	return b.String()
}
