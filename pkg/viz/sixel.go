package viz

import (
	"fmt"
	"image/color"
	"strings"

	"github.com/mattn/go-sixel"
	"gonum.org/v1/plot/vg/vgimg"
)

// Sixel draws the chart for a terminal that shows pictures of this kind, as bytes to print there; see [Chart.Text] for
// one that does not. It refuses what [Chart.SVG] refuses.
//
// Source: VT330/VT340 Programmer Reference Manual (1987), volume 2, chapter 14.
func (c Chart) Sixel() (string, error) { return c.sheet().sixel() }

func (s sheet) sixel() (string, error) {
	if err := s.validate(); err != nil {
		return "", err
	}
	// On white: what the colours of the terminal are is not known.
	canvas := vgimg.NewWith(vgimg.UseWH(s.width, s.height), vgimg.UseDPI(96), vgimg.UseBackgroundColor(color.White))
	s.draw(canvas)
	var b strings.Builder
	if err := sixel.NewEncoder(&b).Encode(canvas.Image()); err != nil {
		return "", fmt.Errorf("drawing %q: %w", s.title, err)
	}
	return b.String(), nil
}
