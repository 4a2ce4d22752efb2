package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"crashlab/crashkit/dump"
	"crashlab/crashkit/internal/fixture"
)

// vmlinux writes an ELF file of which nothing but its build ID is there.
func vmlinux(t *testing.T, id string) string {
	t.Helper()
	desc, err := hex.DecodeString(id)
	if err != nil {
		t.Fatal(err)
	}
	note := dump.AppendNote(nil, dump.Note{Name: "GNU", Type: 3, Desc: desc})
	names := "\x00.note.gnu.build-id\x00.shstrtab\x00"
	const header = 64
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: header,
		Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: uint64(header + len(note) + len(names)),
	}
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_NOTE), Off: header, Size: uint64(len(note)), Addralign: 4},
		{Name: 20, Type: uint32(elf.SHT_STRTAB), Off: uint64(header + len(note)), Size: uint64(len(names)), Addralign: 1},
	}
	var b bytes.Buffer
	for _, part := range []any{h, note, []byte(names), sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVMLinux(t *testing.T) {
	// As file(1) prints it for Debian's vmlinux.
	const id = "3b43fad5034874490492495d552c0af6a5fab235"
	dump := fixture.Path(t, fixture.NullDeref)
	for _, test := range []struct {
		name, path string
		status     int
		stderr     []string
	}{
		{"the same", vmlinux(t, id), exitOK, nil},
		{"another", vmlinux(t, "00"+id[2:]), exitOpen, []string{id, "00" + id[2:], "not the kernel of this dump"}},
		{"no ELF file", "vmlinux_test.go", exitOpen, []string{"bad magic number"}},
		{"none", "nothing", exitOpen, []string{"no such file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			status := run([]string{"-c", "sym panic", dump, test.path}, os.Stdin, &stdout, &stderr)
			if status != test.status {
				t.Errorf("status %d; want %d", status, test.status)
			}
			if (stdout.String() != "") != (status == exitOK) {
				t.Errorf("status %d with output %q", status, stdout.String())
			}
			for _, want := range test.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("stderr is %q; want %s in it", stderr.String(), want)
				}
			}
		})
	}
}
