package usage

import (
	"bytes"
	"context"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// smiTimeout is how long nvidia-smi may take, which hangs when a driver does.
const smiTimeout = 2 * time.Second

// mapped lists the files that are mapped into this process, on Linux. The runtime of GoMLX does not tell the memory of a
// device, but a process that computes on NVIDIA's has their driver's library there.
var mapped = "/proc/self/maps"

// readDevices asks nvidia-smi about devices, if this process may use some.
func (m *Meter) readDevices(r *Reading) {
	m.find.Do(func() { m.smi, _ = exec.LookPath("nvidia-smi") })
	if m.smi == "" {
		return
	}
	if files, err := os.ReadFile(mapped); err != nil || !bytes.Contains(files, []byte("libcuda.so")) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), smiTimeout)
	defer cancel()
	args := []string{"--query-gpu=memory.used,memory.total,utilization.gpu", "--format=csv,noheader,nounits"}
	if visible := os.Getenv("CUDA_VISIBLE_DEVICES"); visible != "" {
		args = append(args, "--id="+visible)
	}
	out, err := exec.CommandContext(ctx, m.smi, args...).Output()
	if err != nil {
		return
	}
	r.DeviceMemory, r.DeviceTotal, r.DeviceBusy = devices(string(out))
}

// devices adds up the lines "used, total, busy" of nvidia-smi, in MiB and percent. What a device does not tell
// ("[N/A]") is NaN.
func devices(text string) (used, total, busy float64) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines {
		fields := strings.Split(line, ",")
		if len(fields) != 3 {
			return math.NaN(), math.NaN(), math.NaN()
		}
		number := func(i int) float64 {
			v, err := strconv.ParseFloat(strings.TrimSpace(fields[i]), 64)
			if err != nil {
				return math.NaN()
			}
			return v
		}
		used += number(0) * (1 << 20)
		total += number(1) * (1 << 20)
		busy += number(2) / 100
	}
	return used, total, busy
}
