package batch

import "iter"

// prefetch runs seq in a goroutine of its own, up to n items ahead of the
// consumer. The goroutine has ended when the loop over the result ends, however
// it ends. For n < 1 it returns seq.
func prefetch[T any](seq iter.Seq[T], n int) iter.Seq[T] {
	if n < 1 {
		return seq
	}
	return func(yield func(T) bool) {
		items := make(chan T, n-1) // one more is held by the goroutine while it waits
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			defer close(items)
			for item := range seq {
				select {
				case items <- item:
				case <-stop:
					return
				}
			}
		}()
		defer func() {
			close(stop)
			<-ended
		}()
		for item := range items {
			if !yield(item) {
				return
			}
		}
	}
}
