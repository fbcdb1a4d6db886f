package augment

import (
	"math/rand/v2"
	"slices"
	"strings"
	"unicode"
)

// keyboard has the rows of a QWERTY keyboard; each is shifted by half a key against the one above.
var keyboard = []string{"qwertyuiop", "asdfghjkl", "zxcvbnm"}

// neighbours returns the letters beside a lower-case letter, none for one that the keyboard lacks.
func neighbours(letter rune) []rune {
	for row, keys := range keyboard {
		at := strings.IndexRune(keys, letter)
		if at < 0 {
			continue
		}
		var near []rune
		add := func(row, at int) {
			if row >= 0 && row < len(keyboard) && at >= 0 && at < len(keyboard[row]) {
				near = append(near, rune(keyboard[row][at]))
			}
		}
		add(row, at-1)
		add(row, at+1)
		add(row-1, at)
		add(row-1, at+1)
		add(row+1, at-1)
		add(row+1, at)
		return near
	}
	return nil
}

// mistype puts one error at a place where two letters stand side by side.
func mistype(random *rand.Rand, word string) string {
	letters := []rune(word)
	var places []int
	for i := range len(letters) - 1 {
		if unicode.IsLetter(letters[i]) && unicode.IsLetter(letters[i+1]) {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		return word
	}
	at := places[random.IntN(len(places))]
	switch random.IntN(3) {
	case 0:
		near := neighbours(unicode.ToLower(letters[at]))
		if len(near) == 0 {
			return word
		}
		wrong := near[random.IntN(len(near))]
		if unicode.IsUpper(letters[at]) {
			wrong = unicode.ToUpper(wrong)
		}
		letters[at] = wrong
	case 1:
		letters[at], letters[at+1] = letters[at+1], letters[at]
	default:
		letters = slices.Delete(letters, at, at+1)
	}
	return string(letters)
}
