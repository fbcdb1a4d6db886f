// Package usage reads what this process uses of its machine.
//
//	journal, err := track.Start("runs/first", record)
//	meter := usage.New("runs/first")
//	for range time.Tick(usage.Interval) {
//		journal.Log(step, meter.Read().Metrics())
//	}
//
// What a system does not tell is left out: it is never 0.
package usage

import (
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/process"
)

// Interval is how often a run reads what it uses: often enough for a curve, and too rare to cost anything.
const Interval = 5 * time.Second

// shortest is the time within which the clock of CPU seconds says nothing.
const shortest = 100 * time.Millisecond

// Reading is what a process uses at a moment. NaN stands for what is not known.
type Reading struct {
	// Resident is the memory of the process in bytes, PeakResident the most that it ever was. Memory of devices
	// does not count.
	Resident, PeakResident float64
	// CPUs is how many cores it kept busy, on average since the reading before. It is not known within a tenth of a second
	// of that: systems count in hundredths.
	CPUs float64
	// DiskFree is what is free for this user on the disk of the run's folder, in bytes.
	DiskFree float64
	// DeviceMemory and DeviceTotal are the used and the whole memory of the devices, in bytes, of all their
	// processes. DeviceBusy is the share of time, up to 1 for each device, in which they computed. They are known for
	// NVIDIA's devices that this process has opened and nvidia-smi sees. XLA reserves most of the memory at its start.
	DeviceMemory, DeviceTotal, DeviceBusy float64
}

// Meter reads what this process uses. It is safe for concurrent use.
type Meter struct {
	folder  string
	process *process.Process // nil if the system does not let us look

	mu   sync.Mutex
	at   time.Time // of the last reading that counted CPU seconds, and these
	cpu  float64
	last Reading
	read bool
	smi  string
	find sync.Once
}

// New returns a meter for this process, and for the disk of a folder.
func New(folder string) *Meter {
	m := &Meter{folder: folder, at: time.Now(), cpu: math.NaN()}
	if p, err := process.NewProcess(int32(os.Getpid())); err == nil {
		m.process = p
		m.cpu = m.seconds()
	}
	return m
}

// seconds is the CPU time that the process has used.
func (m *Meter) seconds() float64 {
	times, err := m.process.Times()
	if err != nil {
		return math.NaN()
	}
	return times.User + times.System
}

// Latest returns the last reading, or a new one if that is older than [Interval]: it may be called at every step.
func (m *Meter) Latest() Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.read || time.Since(m.at) >= Interval {
		m.last, m.read = m.now(), true
	}
	return m.last
}

// Read returns what is used now.
func (m *Meter) Read() Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now()
}

func (m *Meter) now() Reading {
	now, unknown := time.Now(), math.NaN()
	r := Reading{Resident: unknown, PeakResident: unknown, CPUs: unknown, DiskFree: unknown, DeviceMemory: unknown, DeviceTotal: unknown, DeviceBusy: unknown}
	if m.process != nil {
		if memory, err := m.process.MemoryInfo(); err == nil && memory.RSS > 0 {
			r.Resident = float64(memory.RSS)
		}
	}
	if past := now.Sub(m.at); past >= shortest {
		if m.process != nil {
			cpu := m.seconds()
			r.CPUs = max(cpu-m.cpu, 0) / past.Seconds()
			m.cpu = cpu
		}
		m.at = now
	}
	r.PeakResident = peak()
	if space, err := disk.Usage(m.folder); err == nil && space.Total > 0 {
		r.DiskFree = float64(space.Free)
	}
	m.readDevices(&r)
	return r
}

// Metrics are the numbers that are known, for a run's journal: system/resident_mb, system/peak_mb, system/cpus,
// system/disk_free_gb, system/device_mb and system/device_busy. A MB is 10⁶ bytes.
func (r Reading) Metrics() map[string]float64 {
	all := map[string]float64{
		"system/resident_mb": r.Resident / 1e6, "system/peak_mb": r.PeakResident / 1e6, "system/cpus": r.CPUs, "system/disk_free_gb": r.DiskFree / 1e9,
		"system/device_mb": r.DeviceMemory / 1e6, "system/device_busy": r.DeviceBusy,
	}
	for name, value := range all {
		if math.IsNaN(value) {
			delete(all, name)
		}
	}
	return all
}

// String is what a line of progress says: "612 MB, 1.9 CPUs". Little space on the disk is said too.
func (r Reading) String() string {
	var words []string
	if !math.IsNaN(r.Resident) {
		words = append(words, Size(r.Resident))
	}
	if !math.IsNaN(r.CPUs) {
		words = append(words, fmt.Sprintf("%.1f CPUs", r.CPUs))
	}
	if !math.IsNaN(r.DeviceMemory) {
		words = append(words, fmt.Sprintf("device %s of %s", Size(r.DeviceMemory), Size(r.DeviceTotal)))
	}
	if r.DiskFree < lowDisk { // not for NaN
		words = append(words, "only "+Size(r.DiskFree)+" of disk left")
	}
	return strings.Join(words, ", ")
}

// lowDisk is what a few checkpoints may take.
const lowDisk = 2e9

// Size writes bytes in MB or GB.
func Size(bytes float64) string {
	if bytes >= 1e9 {
		return fmt.Sprintf("%.1f GB", bytes/1e9)
	}
	return fmt.Sprintf("%.0f MB", bytes/1e6)
}
