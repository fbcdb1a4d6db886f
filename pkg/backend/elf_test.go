package backend_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"runtime"
	"testing"
)

// library is a hand-made shared library: headers and tables, no code. It passes
// every check that is made before loading; the system's loader refuses it.
type library struct {
	machine elf.Machine
	class   elf.Class
	kind    elf.Type
	symbol  string
	glibc   string // version asked for, "" for none
}

// goodLibrary looks like a plugin for this machine.
func goodLibrary(t *testing.T) library {
	t.Helper()
	machine, ok := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if !ok || runtime.GOOS != "linux" {
		t.Skipf("libraries are made by hand for 64-bit Linux only, this is %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	return library{machine: machine, class: elf.ELFCLASS64, kind: elf.ET_DYN, symbol: "GetPjrtApi"}
}

func (l library) bytes(t *testing.T) []byte {
	t.Helper()
	names := &stringTable{}
	dynamic := &stringTable{}
	type section struct {
		header elf.Section64
		data   []byte
	}
	var symbols, versions, needs bytes.Buffer
	put := func(b *bytes.Buffer, v any) {
		if err := binary.Write(b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	put(&symbols, elf.Sym64{})
	put(&symbols, elf.Sym64{Name: dynamic.add(l.symbol), Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Shndx: 1, Value: 64})
	put(&versions, []uint16{0, 2})
	if l.glibc != "" {
		put(&needs, struct {
			Version, Count  uint16
			File, Aux, Next uint32
		}{1, 1, dynamic.add("libc.so.6"), 16, 0})
		put(&needs, struct {
			Hash         uint32
			Flags, Other uint16
			Name, Next   uint32
		}{0, 0, 2, dynamic.add("GLIBC_" + l.glibc), 0})
	}
	sections := []section{
		{},
		{elf.Section64{Name: names.add(".dynstr"), Type: uint32(elf.SHT_STRTAB)}, nil},
		{elf.Section64{Name: names.add(".dynsym"), Type: uint32(elf.SHT_DYNSYM), Link: 1, Entsize: elf.Sym64Size}, symbols.Bytes()},
	}
	if l.glibc != "" {
		sections = append(sections,
			section{elf.Section64{Name: names.add(".gnu.version"), Type: uint32(elf.SHT_GNU_VERSYM), Link: 2, Entsize: 2}, versions.Bytes()},
			section{elf.Section64{Name: names.add(".gnu.version_r"), Type: uint32(elf.SHT_GNU_VERNEED), Link: 1, Info: 1}, needs.Bytes()})
	}
	sections = append(sections, section{elf.Section64{Name: names.add(".shstrtab"), Type: uint32(elf.SHT_STRTAB)}, names.data()})
	sections[1].data = dynamic.data()

	const headers = 64 + 56
	var body, table bytes.Buffer
	for i := range sections {
		s := &sections[i]
		s.header.Off, s.header.Size = uint64(headers+body.Len()), uint64(len(s.data))
		body.Write(s.data)
		for body.Len()%8 != 0 {
			body.WriteByte(0)
		}
		put(&table, s.header)
	}
	header := elf.Header64{
		Type: uint16(l.kind), Machine: uint16(l.machine), Version: 1, Phoff: 64, Shoff: uint64(headers + body.Len()),
		Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: uint16(len(sections)), Shstrndx: uint16(len(sections) - 1),
	}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(l.class), byte(elf.ELFDATA2LSB), 1
	var file bytes.Buffer
	put(&file, header)
	put(&file, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R), Filesz: uint64(headers + body.Len()), Memsz: uint64(headers + body.Len())})
	file.Write(body.Bytes())
	file.Write(table.Bytes())
	return file.Bytes()
}

// stringTable is a table of names as ELF has it.
type stringTable struct{ content []byte }

func (s *stringTable) add(name string) uint32 {
	if len(s.content) == 0 {
		s.content = []byte{0}
	}
	at := len(s.content)
	s.content = append(append(s.content, name...), 0)
	return uint32(at)
}

func (s *stringTable) data() []byte { return s.content }
