package viz

import (
	"image"
	"image/color"
	"math"
	"strings"
	"testing"

	"github.com/mattn/go-sixel"
)

// decode reads a picture as a terminal does.
func decode(t *testing.T, text string) image.Image {
	t.Helper()
	if !strings.HasPrefix(text, "\x1bP") || !strings.HasSuffix(text, "\x1b\\") {
		t.Fatalf("%q… is no device control string", text[:min(len(text), 10)])
	}
	var picture image.Image
	if err := sixel.NewDecoder(strings.NewReader(text)).Decode(&picture); err != nil {
		t.Fatal(err)
	}
	return picture
}

// near counts pixels of about a colour, in a part of a picture.
func near(picture image.Image, want color.NRGBA, part image.Rectangle) (n int) {
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			c := color.NRGBAModel.Convert(picture.At(x, y)).(color.NRGBA)
			far := max(math.Abs(float64(c.R)-float64(want.R)), math.Abs(float64(c.G)-float64(want.G)), math.Abs(float64(c.B)-float64(want.B)))
			if far < 24 {
				n++
			}
		}
	}
	return n
}

func TestSixel(t *testing.T) {
	chart := Chart{Title: "loss", XLabel: "step", YLabel: "nats", Series: []Series{{X: []float64{1, 2}, Y: []float64{3, 3}}}}
	text, err := chart.Sixel()
	if err != nil {
		t.Fatal(err)
	}
	picture := decode(t, text)
	size := picture.Bounds()
	if size.Dx() != 640 || size.Dy() < 360 || size.Dy() > 365 { // of six rows each
		t.Errorf("size %v, want 640 by 360", size)
	}
	if white := near(picture, color.NRGBA{255, 255, 255, 255}, size); white < size.Dx()*size.Dy()*8/10 {
		t.Errorf("%d white pixels of %d", white, size.Dx()*size.Dy())
	}
	// A constant is a line across the middle.
	if line := near(picture, palette[0], image.Rect(0, 120, 640, 220)); line < 500 {
		t.Errorf("%d pixels of the curve in the middle", line)
	}
	if line := near(picture, palette[0], image.Rect(0, 0, 640, 100)); line > 0 {
		t.Errorf("%d pixels of the curve at the top", line)
	}
	chart.Width = -1
	if _, err := chart.Sixel(); err == nil {
		t.Error("no error for a negative size")
	}
}
