package usage

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReadOwn(t *testing.T) {
	debug.FreeOSMemory() // what other tests have left would be taken again
	m := New(t.TempDir())
	before := m.Read()
	block := make([]byte, 256<<20)
	for i := 0; i < len(block); i += 1024 {
		block[i] = 1
	}
	for begin := time.Now(); time.Since(begin) < 200*time.Millisecond; {
	}
	after := m.Read()
	runtime.KeepAlive(block)
	if runtime.GOOS == "linux" { // the systems that are known to tell
		for _, name := range []string{"system/resident_mb", "system/peak_mb", "system/cpus", "system/disk_free_gb"} {
			if _, ok := after.Metrics()[name]; !ok {
				t.Errorf("%s is not known", name)
			}
		}
	}
	if grown := after.Resident - before.Resident; !math.IsNaN(grown) && grown < 200<<20 {
		t.Errorf("memory grew by %s, want by 268 MB", Size(grown))
	}
	if after.PeakResident < 256<<20 || after.PeakResident < after.Resident-1e6 {
		t.Errorf("peak %s, resident %s", Size(after.PeakResident), Size(after.Resident))
	}
	if after.CPUs < 0.05 || after.CPUs > float64(runtime.NumCPU())+1 {
		t.Errorf("%g CPUs busy of %d, in a loop that does not stop", after.CPUs, runtime.NumCPU())
	}
}

// TestTooSoon: within a tick of the clock that counts CPU seconds, no number of cores is known, and the next reading
// counts from the one before.
func TestTooSoon(t *testing.T) {
	m := New(t.TempDir())
	m.at = time.Now().Add(time.Hour) // it was just made, however slow the machine is
	if r := m.Latest(); !math.IsNaN(r.CPUs) {
		t.Errorf("%g CPUs in no time", r.CPUs)
	}
	m.at = time.Now().Add(-Interval)
	if r := m.Latest(); runtime.GOOS == "linux" && math.IsNaN(r.CPUs) {
		t.Error("CPUs are not known after five seconds")
	}
}

func TestUnknownIsAbsent(t *testing.T) {
	nan := math.NaN()
	r := Reading{Resident: 612e6, PeakResident: nan, CPUs: nan, DiskFree: 50e9, DeviceMemory: nan, DeviceTotal: nan, DeviceBusy: nan}
	if got := slices.Sorted(maps.Keys(r.Metrics())); !slices.Equal(got, []string{"system/disk_free_gb", "system/resident_mb"}) {
		t.Errorf("metrics %q", got)
	}
	if got := r.String(); got != "612 MB" {
		t.Errorf("%q", got)
	}
	r = Reading{nan, nan, nan, nan, nan, nan, nan}
	if got := r.String(); got != "" || len(r.Metrics()) != 0 {
		t.Errorf("%q, %v of a system that tells nothing", got, r.Metrics())
	}
	r = Reading{Resident: 2.34e9, CPUs: 1.87, DiskFree: 300e6, DeviceMemory: 4e9, DeviceTotal: 80e9}
	if got := r.String(); got != "2.3 GB, 1.9 CPUs, device 4.0 GB of 80.0 GB, only 300 MB of disk left" {
		t.Errorf("%q", got)
	}
}

func TestDevices(t *testing.T) {
	used, total, busy := devices("1024, 81559, 50\n2048, 81559, 25\n")
	if used != 3072<<20 || total != 2*81559<<20 || busy != 0.75 {
		t.Errorf("%g, %g, %g", used, total, busy)
	}
	if used, total, busy = devices("[N/A], 24000, 5"); !math.IsNaN(used) || total != 24000<<20 || busy != 0.05 {
		t.Errorf("%g, %g, %g", used, total, busy)
	}
	if used, _, busy = devices("No devices were found\n"); !math.IsNaN(used) || !math.IsNaN(busy) {
		t.Errorf("%g, %g", used, busy)
	}
}

// TestDevicesOfThisProcess has a program in the place of nvidia-smi.
func TestDevicesOfThisProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("devices are looked for on Linux")
	}
	dir := t.TempDir()
	script := "#!/bin/sh\ncase \"$*\" in *--id=1) echo 1000, 2000, 90;; *) echo 10, 2000, 0; echo 20, 2000, 100;; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("CUDA_VISIBLE_DEVICES", "")
	if r := New(dir).Read(); !math.IsNaN(r.DeviceMemory) {
		t.Errorf("a device for a process that has none: %v", r)
	}
	was := mapped
	mapped = filepath.Join(dir, "maps")
	defer func() { mapped = was }()
	if err := os.WriteFile(mapped, []byte("7f00-7f01 r-xp 00000000 08:01 1 /usr/lib/libcuda.so.550\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := New(dir).Read(); r.DeviceMemory != 30<<20 || r.DeviceBusy != 1 || !strings.Contains(r.String(), "device 31 MB of 4.2 GB") {
		t.Errorf("%+v, %s", r, r)
	}
	t.Setenv("CUDA_VISIBLE_DEVICES", "1")
	if r := New(dir).Read(); r.DeviceMemory != 1000<<20 || r.DeviceBusy != 0.9 {
		t.Errorf("%+v", r)
	}
}

func BenchmarkRead(b *testing.B) {
	m := New(b.TempDir())
	for b.Loop() {
		m.Read()
	}
}
