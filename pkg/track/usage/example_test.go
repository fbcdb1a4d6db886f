package usage_test

import (
	"fmt"
	"math"

	"github.com/elastic-attention/workbench/pkg/track/usage"
)

func ExampleReading() {
	unknown := math.NaN()
	r := usage.Reading{Resident: 612e6, PeakResident: unknown, CPUs: 1.87, DiskFree: 50e9, DeviceMemory: unknown, DeviceTotal: unknown, DeviceBusy: unknown}
	fmt.Println(r)
	fmt.Println(r.Metrics())
	// Output:
	// 612 MB, 1.9 CPUs
	// map[system/cpus:1.87 system/disk_free_gb:50 system/resident_mb:612]
}
