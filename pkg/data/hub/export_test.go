package hub

import "io"

// BreakDisk puts a writer between the client and the disk.
func (c *Client) BreakDisk(wrap func(io.Writer) io.Writer) { c.wrapWriter = wrap }
