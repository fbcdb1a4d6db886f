package viz

import "strings"

// class marks our SVGs, whose style must not reach into the page around them.
const class = "elastic-viz"

// style colours our SVGs. Charts come from gonum/plot with their colours in style attributes, which stand for light
// pages; where the reader prefers dark ones, paper, ink and grid are exchanged.
const style = `<style>
.elastic-viz .paper{fill:#fff}.elastic-viz .ink{fill:#1a1a1a}.elastic-viz .soft{fill:#555}.elastic-viz .frame{fill:none;stroke:#999}
@media (prefers-color-scheme:dark){
.elastic-viz .paper,.elastic-viz [style*="fill:#FFFFFF"]{fill:#1e1e1e!important}
.elastic-viz text,.elastic-viz .ink,.elastic-viz [style*="fill:#000000"]{fill:#e6e6e6!important}
.elastic-viz .soft{fill:#b0b0b0!important}
.elastic-viz [style*="stroke:#000000"]{stroke:#c8c8c8!important}
.elastic-viz [style*="stroke:#E1E1E1"]{stroke:#3c3c3c!important}
}
</style>`

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
