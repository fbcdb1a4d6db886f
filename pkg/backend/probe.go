package backend

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"golang.org/x/sys/cpu"
)

// Report is what [Probe] found. It marshals to JSON; [Report.WriteText] is for people.
type Report struct {
	Machine  Machine   `json:"machine"`
	Build    Build     `json:"build"`
	Backend  *Choice   `json:"backend,omitempty"` // nil if none opened
	Error    string    `json:"error,omitempty"`   // why none opened
	Speed    *Speed    `json:"speed,omitempty"`
	Plugins  []Plugin  `json:"plugins"` // every plugin found, usable or not
	Caches   []Cache   `json:"caches"`
	Findings []Finding `json:"findings"` // what is missing, and what to do
}

// Machine describes hardware and operating system.
type Machine struct {
	OS       string   `json:"os"`     // "linux/amd64"
	System   string   `json:"system"` // name and version of the distribution, where known
	Kernel   string   `json:"kernel,omitempty"`
	CPU      string   `json:"cpu,omitempty"`
	Cores    int      `json:"cores"`                // that this process may use
	Quota    float64  `json:"cpu_quota,omitempty"`  // of the container, in cores; 0 is none
	Memory   int64    `json:"memory,omitempty"`     // bytes of the machine
	Limit    int64    `json:"memory_cap,omitempty"` // bytes of the container; 0 is none
	Features []string `json:"features"`             // of the CPU, those that matter here
	Libc     string   `json:"libc,omitempty"`
}

// Build describes this program.
type Build struct {
	Go         string `json:"go"`
	Experiment string `json:"goexperiment,omitempty"`
	SIMD       bool   `json:"simd"` // the pure-Go engine has vector kernels
	GoMLX      string `json:"gomlx,omitempty"`
	XLA        string `json:"go_xla,omitempty"`
}

// Speed is a short measurement: square matrices multiplied again and again.
type Speed struct {
	Size    int     `json:"size"`
	Runs    int     `json:"runs"`
	GFLOPS  float64 `json:"gflops"` // best run
	Seconds float64 `json:"seconds"`
}

// Plugin is an XLA plugin on this machine.
type Plugin struct {
	Path    string `json:"path"`
	Device  string `json:"device"`
	Version string `json:"version,omitempty"`
	Problem string `json:"problem,omitempty"` // "" if it can be loaded as far as one can tell without doing it
}

// Cache is a folder with things that can be fetched or made again.
type Cache struct {
	What  string `json:"what"`
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"` // 0 also if it does not exist
}

// Finding is something that is missing or slow, and what to do about it.
type Finding struct {
	What string `json:"what"`
	Do   string `json:"do"`
}

// Probe examines this machine, what is installed on it, and the backend that
// [Open] would choose. It reports problems and does not fail on them; the
// backend is opened, timed for about a second, and closed again.
func Probe(ctx context.Context, opts Options) Report {
	r := Report{Machine: ThisMachine(), Build: build()}
	if opts.CacheDir == "" {
		opts.CacheDir, _ = CacheDir()
	}
	found, err := findPlugins(opts.CacheDir)
	if err != nil {
		r.finding(err.Error(), "set "+CacheEnv)
	}
	for _, file := range found {
		plugin := Plugin{Path: file.Path, Device: file.Device}
		rec, err := checkPlugin(ctx, file.Path)
		plugin.Version = rec.Version
		if err != nil {
			plugin.Problem = err.Error()
		}
		r.Plugins = append(r.Plugins, plugin)
	}
	r.probeBackend(ctx, opts)
	r.Caches = caches(opts.CacheDir)
	r.conclude()
	return r
}

func (r *Report) finding(what, do string) {
	r.Findings = append(r.Findings, Finding{What: what, Do: do})
}

func (r *Report) probeBackend(ctx context.Context, opts Options) {
	engine, choice, err := Open(ctx, opts)
	if err != nil {
		r.Error = err.Error()
		return
	}
	defer engine.Finalize()
	r.Backend = &choice
	speed, err := guard(func() (Speed, error) { return measure(ctx, engine, 1024, time.Second) })
	if err != nil {
		r.Error = "multiplying matrices: " + err.Error()
		return
	}
	r.Speed = &speed
}

// conclude derives the findings.
func (r *Report) conclude() {
	if r.Error != "" {
		r.finding("the backend does not work: "+r.Error, "follow the message, or set "+ConfigEnv+"=go to work in pure Go meanwhile")
	}
	usable := false
	for _, plugin := range r.Plugins {
		usable = usable || plugin.Problem == ""
		if plugin.Problem != "" && !strings.Contains(r.Error, plugin.Problem) {
			r.finding(plugin.Problem, "an unusable plugin is passed over where there is another; remove or reinstall it")
		}
	}
	if !usable && len(r.Plugins) == 0 {
		r.finding("no XLA plugin is installed; pure Go trains several times slower", "run `elastic backend install` (60 MB to download, 260 MB on disk)")
	}
	if deviceLooksPresent("cuda") && (r.Backend == nil || r.Backend.Name != "xla:cuda") {
		r.finding("an NVIDIA device is present but not used", "run `elastic backend install --device cuda` and follow its notes")
	}
	if !r.Build.SIMD && runtime.GOARCH == "amd64" {
		r.finding("this program was built without GOEXPERIMENT=simd; pure Go is four to six times slower so", "build it with `make`, or set GOEXPERIMENT=simd for go build")
	}
	if runtime.GOARCH == "amd64" && !cpu.X86.HasAVX2 {
		r.finding("this CPU has no AVX2; expect low speed on every backend", "use a CPU made after 2013 if you can")
	}
	if r.Machine.Memory > 0 && effective(r.Machine.Memory, r.Machine.Limit) < 3<<30 {
		r.finding(fmt.Sprintf("only %s of memory; training the default model needs about 2 GB", bytesText(effective(r.Machine.Memory, r.Machine.Limit))), "use smaller batches, or give the container more memory")
	}
	if r.Machine.Quota > 0 && r.Machine.Quota+0.5 < float64(r.Machine.Cores) {
		r.finding(fmt.Sprintf("the container may use %.1f cores but sees %d; threads will wait for each other", r.Machine.Quota, r.Machine.Cores), "start it with --cpuset-cpus instead of --cpus")
	}
	for _, cache := range r.Caches {
		if cache.What == "ours" {
			if err := writable(cache.Path); err != nil {
				r.finding("the cache folder cannot be written: "+err.Error(), "set "+CacheEnv+" to a folder that can")
			}
		}
	}
}

func effective(memory, limit int64) int64 {
	if limit > 0 {
		return min(memory, limit)
	}
	return memory
}

// writable tries the nearest existing parent of a folder and leaves nothing behind.
func writable(dir string) error {
	for {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("%s is not a folder", dir)
		}
		if err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, os.ErrNotExist) || parent == dir {
			return err
		}
		dir = parent
	}
	file, err := os.CreateTemp(dir, ".elastic-probe-")
	if err != nil {
		return err
	}
	_ = file.Close()
	return os.Remove(file.Name())
}

// measure multiplies two size x size matrices until limit has passed.
func measure(ctx context.Context, engine compute.Backend, size int, limit time.Duration) (Speed, error) {
	builder := engine.Builder("speed")
	main := builder.Main()
	shape := shapes.Make(dtypes.Float32, size, size)
	a, err := main.Parameter("a", shape, nil)
	if err != nil {
		return Speed{}, err
	}
	b, err := main.Parameter("b", shape, nil)
	if err != nil {
		return Speed{}, err
	}
	product, err := main.DotGeneral(a, []int{1}, nil, b, []int{0}, nil, compute.DotGeneralConfig{})
	if err != nil {
		return Speed{}, err
	}
	if err := main.Return([]compute.Value{product}, nil); err != nil {
		return Speed{}, err
	}
	exec, err := builder.Compile()
	if err != nil {
		return Speed{}, err
	}
	defer exec.Finalize()
	flat := make([]float32, size*size)
	for i := range flat {
		flat[i] = float32(i%7) - 3
	}
	var inputs []compute.Buffer
	for range 2 {
		buffer, err := engine.BufferFromFlatData(0, flat, shape)
		if err != nil {
			return Speed{}, err
		}
		defer func() { _ = buffer.Finalize() }()
		inputs = append(inputs, buffer)
	}
	speed := Speed{Size: size}
	result := make([]float32, size*size)
	begin := time.Now()
	for speed.Runs < 2 || time.Since(begin) < limit { // the first run warms up
		if err := ctx.Err(); err != nil {
			return Speed{}, err
		}
		start := time.Now()
		outputs, err := exec.Execute(inputs, nil, 0)
		if err != nil {
			return Speed{}, err
		}
		err = outputs[0].ToFlatData(result) // engines may return before the work is done
		elapsed := time.Since(start).Seconds()
		_ = outputs[0].Finalize()
		if err != nil {
			return Speed{}, err
		}
		speed.Runs++
		if n := float64(size); speed.Runs > 1 && elapsed > 0 {
			speed.GFLOPS = max(speed.GFLOPS, 2*n*n*n/elapsed/1e9)
		}
	}
	speed.Seconds = time.Since(begin).Seconds()
	if want := dot(flat, size); result[0] != want {
		return Speed{}, fmt.Errorf("wrong result: %g, want %g", result[0], want)
	}
	return speed, nil
}

// dot is the first element of the product, exact since all elements are small integers.
func dot(flat []float32, size int) float32 {
	var sum float32
	for i := range size {
		sum += flat[i] * flat[i*size]
	}
	return sum
}

func build() Build {
	b := Build{Go: runtime.Version(), SIMD: simdBuilt}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, setting := range info.Settings {
		if setting.Key == "GOEXPERIMENT" {
			b.Experiment = setting.Value
		}
	}
	for _, dep := range info.Deps {
		switch dep.Path {
		case "github.com/gomlx/gomlx":
			b.GoMLX = dep.Version
		case "github.com/gomlx/go-xla":
			b.XLA = dep.Version
		}
	}
	return b
}

// ThisMachine describes the machine that this program runs on.
func ThisMachine() Machine {
	m := Machine{OS: platform(), Cores: runtime.NumCPU(), Features: features()}
	if version, musl := processLibc(); musl {
		m.Libc = "musl"
	} else if version != "" {
		m.Libc = "glibc " + version
	}
	m.System = keyed("/etc/os-release", "PRETTY_NAME", "=")
	m.CPU = keyed("/proc/cpuinfo", "model name", ":")
	m.Kernel = firstLine("/proc/sys/kernel/osrelease")
	if fields := strings.Fields(keyed("/proc/meminfo", "MemTotal", ":")); len(fields) > 0 {
		if kb, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
			m.Memory = kb << 10
		}
	}
	m.Quota, m.Limit = containerLimits()
	return m
}

// containerLimits reads the limits of the process's own control group, version 2 or 1; zero is none.
func containerLimits() (cores float64, memory int64) {
	group := "/"
	if content, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		for line := range strings.Lines(string(content)) {
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
				group = path
			}
		}
	}
	for dir := group; ; dir = filepath.Dir(dir) { // a limit of any parent holds too
		base := filepath.Join("/sys/fs/cgroup", dir)
		if fields := strings.Fields(firstLine(filepath.Join(base, "cpu.max"))); len(fields) == 2 {
			cores = smaller(cores, ratio(fields[0], fields[1]))
		}
		memory = smaller(memory, number(firstLine(filepath.Join(base, "memory.max"))))
		if dir == "/" || dir == "." {
			break
		}
	}
	cores = smaller(cores, ratio(firstLine("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), firstLine("/sys/fs/cgroup/cpu/cpu.cfs_period_us")))
	if v1 := number(firstLine("/sys/fs/cgroup/memory/memory.limit_in_bytes")); v1 < 1<<60 { // "none" is a huge number there
		memory = smaller(memory, v1)
	}
	return cores, memory
}

// smaller is the smaller of two limits, where zero is none.
func smaller[T int64 | float64](a, b T) T {
	if a <= 0 || (b > 0 && b < a) {
		return max(b, 0)
	}
	return a
}

func ratio(quota, period string) float64 {
	if p := number(period); p > 0 {
		return float64(number(quota)) / float64(p)
	}
	return 0
}

func number(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func firstLine(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(content), "\n")
	return strings.TrimSpace(line)
}

// keyed returns the value of the first line "key<sep>value" of a file.
func keyed(path, key, sep string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		name, value, ok := strings.Cut(line, sep)
		if ok && strings.TrimSpace(name) == key {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return ""
}

// features lists the CPU's instruction sets that decide about speed here.
func features() []string {
	list := []string{}
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"avx", cpu.X86.HasAVX}, {"fma", cpu.X86.HasFMA}, {"avx2", cpu.X86.HasAVX2},
		{"avx512f", cpu.X86.HasAVX512F}, {"avx512vnni", cpu.X86.HasAVX512VNNI}, {"avx512bf16", cpu.X86.HasAVX512BF16},
		{"amx_tile", cpu.X86.HasAMXTile}, {"amx_bf16", cpu.X86.HasAMXBF16},
		{"asimd", cpu.ARM64.HasASIMD}, {"sve", cpu.ARM64.HasSVE},
	} {
		if f.has {
			list = append(list, f.name)
		}
	}
	return list
}

// caches lists our cache folder with its parts, and GoMLX's folder for plugins.
func caches(cacheDir string) []Cache {
	var list []Cache
	if cacheDir != "" {
		list = append(list, Cache{What: "ours", Path: cacheDir, Bytes: folderSize(cacheDir)})
		entries, _ := os.ReadDir(cacheDir)
		for _, entry := range entries {
			if entry.IsDir() {
				path := filepath.Join(cacheDir, entry.Name())
				list = append(list, Cache{What: "ours/" + entry.Name(), Path: path, Bytes: folderSize(path)})
			}
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		path := filepath.Join(home, ".local", "lib", "go-xla")
		if size := folderSize(path); size > 0 {
			list = append(list, Cache{What: "GoMLX plugins", Path: path, Bytes: size})
		}
	}
	return list
}
