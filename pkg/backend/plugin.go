package backend

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/gomlx/go-xla/pjrt"
)

// pluginFile is a file that is named like an XLA plugin; nothing is known yet about its content.
type pluginFile struct {
	Path   string
	Name   string // as GoMLX derives it from the file's name: "cpu", "cpu_v0.114.0"
	Device string // "cpu", "cuda", …
}

// rank orders plugins for the automatic choice as GoMLX does.
func (f pluginFile) rank() int {
	if i := slices.Index([]string{"cuda", "rocm", "tpu", "cpu"}, f.Device); i >= 0 {
		return i
	}
	return 9
}

var pluginNames = []*regexp.Regexp{
	regexp.MustCompile(`^pjrt_c_api_(.+)_plugin\.(so|dylib)$`),
	regexp.MustCompile(`^pjrt[-_]plugin[-_](.+)\.(so|dylib)$`),
}

// findPlugins lists the files named like plugins: those in our cache first, then
// those in the folders that GoMLX searches. Unlike GoMLX's own search, it loads none.
func findPlugins(cacheDir string) ([]pluginFile, error) {
	if cacheDir == "" {
		dir, err := CacheDir()
		if err != nil {
			return nil, err
		}
		cacheDir = dir
	}
	dirs := []string{pluginDir(cacheDir, "cuda"), pluginDir(cacheDir, "cpu")}
	var found []pluginFile
	seen := make(map[string]bool)
	for _, dir := range append(dirs, searchDirs()...) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // most of these folders do not exist
		}
		for _, entry := range entries {
			name := pluginName(entry.Name())
			if name == "" {
				continue
			}
			path := filepath.Join(dir, entry.Name())
			key := path
			if real, err := filepath.EvalSymlinks(path); err == nil {
				key = real
			}
			if !seen[key] {
				seen[key] = true
				found = append(found, pluginFile{Path: path, Name: name, Device: deviceOf(path)})
			}
		}
	}
	return found, nil
}

// pluginDir is the folder that Install gives to one kind of device.
func pluginDir(cacheDir, device string) string {
	return filepath.Join(cacheDir, "pjrt", device)
}

func pluginName(file string) string {
	for _, pattern := range pluginNames {
		if match := pattern.FindStringSubmatch(file); match != nil {
			return match[1]
		}
	}
	return ""
}

// deviceOf guesses the kind of device from the name of a plugin's file.
func deviceOf(path string) string {
	base := filepath.Base(path)
	name := strings.ToLower(pluginName(base))
	if name == "" {
		name = strings.ToLower(base)
	}
	for _, device := range []string{"cuda", "rocm", "tpu", "cpu"} {
		if strings.Contains(name, device) {
			return device
		}
	}
	if strings.Contains(name, "nvidia") {
		return "cuda"
	}
	return "plugin"
}

// deviceLooksPresent keeps the automatic choice from trying plugins for hardware that is not there.
func deviceLooksPresent(device string) bool {
	var pattern string
	switch device {
	case "cuda":
		pattern = "/dev/nvidia[0-9]*"
	case "rocm":
		pattern = "/dev/kfd"
	case "tpu":
		pattern = "/dev/accel*"
	default:
		return true
	}
	matches, err := filepath.Glob(pattern)
	return err == nil && len(matches) > 0
}

// searchDirs lists the folders in which go-xla v0.4.5 looks for plugins, in its order. Its
// own function for it loads every file that it finds, which a truncated file does not survive.
func searchDirs() []string {
	if paths, ok := os.LookupEnv(pjrt.PJRTPluginPathsEnv); ok {
		return filepath.SplitList(paths)
	}
	var dirs []string
	if home, err := os.UserHomeDir(); err == nil {
		base := filepath.Join(home, ".local", "lib", "go-xla")
		if runtime.GOOS == "darwin" {
			base = filepath.Join(home, "Library", "Application Support", "go-xla")
		}
		dirs = append(dirs, base, filepath.Join(base, "nvidia"), filepath.Join(home, ".local", "lib", "gomlx", "pjrt"))
	}
	dirs = append(dirs, "/usr/local/lib/go-xla", "/usr/local/lib/go-xla/nvidia", "/usr/local/lib/gomlx/pjrt")
	for _, variable := range []string{"DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH"} {
		if variable == "DYLD_LIBRARY_PATH" && runtime.GOOS != "darwin" {
			continue
		}
		for _, dir := range filepath.SplitList(os.Getenv(variable)) {
			if filepath.IsAbs(dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	if runtime.GOOS == "linux" {
		dirs = append(dirs, linkerDirs("/etc/ld.so.conf", 0)...)
	}
	return dirs
}

// linkerDirs reads the folders that the system's loader is configured with.
func linkerDirs(file string, depth int) []string {
	content, err := os.ReadFile(file)
	if err != nil || depth > 4 {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(content)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if pattern, ok := strings.CutPrefix(line, "include"); ok {
			pattern = strings.TrimSpace(pattern)
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(file), pattern)
			}
			matches, _ := filepath.Glob(pattern)
			for _, match := range matches {
				dirs = append(dirs, linkerDirs(match, depth+1)...)
			}
		} else if filepath.IsAbs(line) {
			dirs = append(dirs, strings.TrimSpace(line))
		}
	}
	return dirs
}

// problem is what is wrong with a plugin's file, and what to do about it.
func problem(path, wrong, remedy string) error {
	return fmt.Errorf("plugin %s %s; %s", path, wrong, remedy)
}
