package nb

import (
	"time"

	"golang.org/x/sys/unix"
)

// awaitPrinted waits until the kernel has what the cell has printed. That goes another way than what the cell shows, which
// would overtake it.
func awaitPrinted() {
	awaitRead(unix.Stdout)
	awaitRead(unix.Stderr)
	time.Sleep(time.Millisecond) // until the kernel has passed on what it has read
}

// awaitRead waits until all that was written to a pipe is read, but no longer than a second or so. It does not wait for
// what is no pipe.
func awaitRead(pipe int) {
	for range 1000 {
		if waiting, err := unix.IoctlGetInt(pipe, unix.TIOCINQ); err != nil || waiting == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
