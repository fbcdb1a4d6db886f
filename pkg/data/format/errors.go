package format

import "fmt"

// ParseError is what a reader reports about its input. Column counts bytes from
// 1 and is 0 where the whole line is meant; Line is 0 where the whole file is.
type ParseError struct {
	File   string
	Line   int
	Column int
	Err    error
}

// Error gives "file:line:column: what is wrong".
func (e *ParseError) Error() string {
	switch {
	case e.Line == 0:
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	case e.Column == 0:
		return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
	}
	return fmt.Sprintf("%s:%d:%d: %v", e.File, e.Line, e.Column, e.Err)
}

// Unwrap returns the cause.
func (e *ParseError) Unwrap() error { return e.Err }
