package kernel

import "time"

// SetIdleWait sets how long outputs behind a reply are waited for.
func (k *Kernel) SetIdleWait(d time.Duration) { k.idleWait = d }
