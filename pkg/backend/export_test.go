package backend

import "context"

// CheckPlugin looks at a file as Open does before it loads it.
func CheckPlugin(ctx context.Context, path string) error {
	_, err := checkPlugin(ctx, path)
	return err
}

// Wheels returns the pinned plugins that Install falls back to.
func Wheels() []Wheel { return wheels }

// SetGoMLXServer makes the installation ask another server whether GoMLX's installer can work.
func SetGoMLXServer(address string) (restore func()) {
	old := gomlxServer
	gomlxServer = address
	return func() { gomlxServer = old }
}
