// Package plural writes numbers of things.
package plural

import "strconv"

// Of is a number of things in words: "1 batch", "2 batches".
func Of(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + several
}
