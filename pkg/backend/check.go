package backend

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/elastic-attention/workbench/internal/atomicfile"
	"github.com/gomlx/go-xla/pjrt"
)

// record is written beside an installed plugin. Size and time of change let a
// later start trust the checksum without reading hundreds of megabytes again.
type record struct {
	Source   string `json:"source"`  // who provided the file
	Version  string `json:"version"` // the provider's version
	Licence  string `json:"licence,omitempty"`
	SHA256   string `json:"sha256"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified_ns"`
}

// recordPath is the name of the record that belongs to a plugin.
func recordPath(plugin string) string { return plugin + ".json" }

const reinstall = "replace it: `elastic backend install --force` puts a good one into the cache"

// checkPlugin finds out, without loading it, whether a file can be a plugin for
// this machine, and whether it is still the file that was installed.
func checkPlugin(ctx context.Context, path string) (record, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return record{}, problem(path, "does not exist", "get one with `elastic backend install`, or correct "+ConfigEnv)
	case err != nil:
		return record{}, fmt.Errorf("looking at plugin: %w", err)
	case !info.Mode().IsRegular():
		return record{}, problem(path, "is not a file ("+info.Mode().Type().String()+")", "name the plugin itself, a shared library")
	case info.Size() == 0:
		return record{}, problem(path, "is empty", reinstall)
	}
	if runtime.GOOS == "linux" {
		if err := checkELF(path, info.Size()); err != nil {
			return record{}, err
		}
	}
	return verify(ctx, path, info)
}

// machines maps Go's names of architectures to those in ELF headers.
var machines = map[string]elf.Machine{
	"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "386": elf.EM_386, "arm": elf.EM_ARM,
	"riscv64": elf.EM_RISCV, "ppc64le": elf.EM_PPC64, "s390x": elf.EM_S390, "loong64": elf.EM_LOONGARCH,
}

// checkELF reads the headers of a shared library. Loading one whose segments reach
// beyond the end of the file kills the process, so this must be known before.
func checkELF(path string, size int64) (err error) {
	defer func() { // the parser is sturdy; a hostile file must not stop us all the same
		if r := recover(); r != nil {
			err = problem(path, fmt.Sprintf("has damaged headers (%v)", r), reinstall)
		}
	}()
	handle, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("looking at plugin: %w", err)
	}
	defer handle.Close()
	var magic [64]byte
	n, err := io.ReadFull(handle, magic[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("looking at plugin %s: %w", path, err)
	}
	if n < 4 || string(magic[:4]) != elf.ELFMAG {
		return problem(path, fmt.Sprintf("is not a shared library: it begins with %q, want %q", magic[:min(n, 8)], elf.ELFMAG), reinstall)
	}
	if n < len(magic) {
		return problem(path, fmt.Sprintf("is truncated: %d bytes are less than a header", n), reinstall)
	}
	want, class := machines[runtime.GOARCH], elf.ELFCLASS64
	if strconv.IntSize == 32 {
		class = elf.ELFCLASS32
	}
	machine := elf.Machine(uint16(magic[18]) | uint16(magic[19])<<8)
	if elf.Data(magic[elf.EI_DATA]) == elf.ELFDATA2MSB {
		machine = elf.Machine(uint16(magic[18])<<8 | uint16(magic[19]))
	}
	if machine != want || elf.Class(magic[elf.EI_CLASS]) != class {
		return problem(path, fmt.Sprintf("is made for another kind of machine: %v %v, want %v %v", machine, elf.Class(magic[elf.EI_CLASS]), want, class),
			"get the one for "+platform())
	}
	file, err := elf.NewFile(handle)
	if err != nil {
		return problem(path, fmt.Sprintf("is truncated or damaged: %v (%d bytes)", err, size), reinstall)
	}
	if file.Type != elf.ET_DYN {
		return problem(path, fmt.Sprintf("is not a shared library but %v", file.Type), "name the plugin itself")
	}
	// The table of sections is the last thing in a library: if it is whole, so is the file.
	var end uint64
	for _, segment := range file.Progs {
		if segment.Type != elf.PT_NULL {
			end = max(end, saturatingAdd(segment.Off, segment.Filesz))
		}
	}
	for _, section := range file.Sections {
		if section.Type != elf.SHT_NOBITS && section.Type != elf.SHT_NULL {
			end = max(end, saturatingAdd(section.Offset, section.FileSize))
		}
	}
	if end > uint64(size) {
		return problem(path, fmt.Sprintf("is truncated: its headers describe %d bytes, the file has %d", end, size), reinstall)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return problem(path, fmt.Sprintf("has no readable table of symbols (%v)", err), reinstall)
	}
	if !slices.ContainsFunc(symbols, func(s elf.Symbol) bool {
		return s.Name == pjrt.GetPJRTApiFunctionName && s.Section != elf.SHN_UNDEF
	}) {
		return problem(path, "is a shared library but not an XLA plugin: it does not export "+pjrt.GetPJRTApiFunctionName, "name a PJRT plugin")
	}
	return checkLibc(path, file)
}

func saturatingAdd(a, b uint64) uint64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return ^uint64(0)
}

// checkLibc compares the C library that a plugin needs with the one of this process.
func checkLibc(path string, file *elf.File) error {
	needs, err := file.DynamicVersionNeeds()
	if err != nil {
		return nil // no versions asked for: the loader will know
	}
	var wanted string
	for _, need := range needs {
		for _, dep := range need.Needs {
			if v, ok := strings.CutPrefix(dep.Dep, "GLIBC_"); ok && compareVersions(v, wanted) > 0 {
				wanted = v
			}
		}
	}
	have, musl := processLibc()
	switch {
	case wanted == "":
		return nil
	case musl:
		return problem(path, "needs glibc "+wanted+", but this system has musl", "use an image based on glibc (Debian, Fedora, …), or "+ConfigEnv+"=go")
	case have != "" && compareVersions(wanted, have) > 0:
		return problem(path, "needs glibc "+wanted+", but this system has "+have, "use a newer system, or "+ConfigEnv+"=go")
	}
	return nil
}

// processLibc is the version of glibc that is loaded in this process, "" if unknown.
func processLibc() (version string, musl bool) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(maps)) {
		slash := strings.IndexByte(line, '/')
		if slash < 0 {
			continue
		}
		path := strings.TrimSpace(line[slash:])
		base := filepath.Base(path)
		if strings.HasPrefix(base, "ld-musl-") {
			return "", true
		}
		if base != "libc.so.6" && !strings.HasPrefix(base, "libc-2.") {
			continue
		}
		library, err := elf.Open(path)
		if err != nil {
			return "", false
		}
		defer library.Close()
		versions, err := library.DynamicVersions()
		if err != nil {
			return "", false
		}
		for _, v := range versions {
			if number, ok := strings.CutPrefix(v.Name, "GLIBC_"); ok && number[0] >= '0' && number[0] <= '9' && compareVersions(number, version) > 0 {
				version = number
			}
		}
		return version, false
	}
	return "", false
}

// compareVersions compares dotted numbers; the empty string comes first.
func compareVersions(a, b string) int {
	return slices.Compare(numbers(a), numbers(b))
}

func numbers(version string) []int {
	if version == "" {
		return nil
	}
	var list []int
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part)
		list = append(list, n)
	}
	return list
}

// verify compares a plugin with its record. A plugin without a record was put
// there by somebody else; there is nothing to compare it with.
func verify(ctx context.Context, path string, info fs.FileInfo) (record, error) {
	content, err := os.ReadFile(recordPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	if err != nil {
		return record{}, fmt.Errorf("reading the record of plugin %s: %w", path, err)
	}
	var rec record
	if err := json.Unmarshal(content, &rec); err != nil || rec.SHA256 == "" {
		return record{}, problem(recordPath(path), fmt.Sprintf("is damaged (%v)", err), reinstall)
	}
	if info.Size() != rec.Size {
		return record{}, problem(path, fmt.Sprintf("is not the file that was installed: %d bytes, want %d", info.Size(), rec.Size), reinstall)
	}
	if info.ModTime().UnixNano() == rec.Modified {
		return rec, nil
	}
	sum, err := fileSum(ctx, path)
	if err != nil {
		return record{}, fmt.Errorf("verifying plugin: %w", err)
	}
	if sum != rec.SHA256 {
		return record{}, problem(path, fmt.Sprintf("is not the file that was installed: SHA-256 %s, want %s", sum, rec.SHA256), reinstall)
	}
	rec.Modified = info.ModTime().UnixNano()
	_ = rec.save(path) // in a read-only folder it is verified again next time
	return rec, nil
}

func (r record) save(plugin string) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(recordPath(plugin), append(content, '\n'))
}

// fileSum is the SHA-256 of a file in hexadecimal.
func fileSum(ctx context.Context, path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, cancellable{ctx, file}); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// cancellable is a reader that ends with the context's error.
type cancellable struct {
	ctx context.Context
	io.Reader
}

func (r cancellable) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
