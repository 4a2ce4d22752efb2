package kconfig

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// A tree with everything that the language has (Documentation/kbuild/kconfig-language.rst).
var sampleTree = fstest.MapFS{
	"Kconfig": {Data: []byte(`# SPDX-License-Identifier: GPL-2.0
mainmenu "Linux/$(ARCH) Configuration"

source "scripts/Kconfig.include"
source "arch/$(SRCARCH)/Kconfig"
source "crypto/Kconfig"

menu "Debugging"
	depends on !TINY

config DEBUG_INFO_BTF
	bool "Generate BTF"
	depends on !DEBUG_INFO_SPLIT && \
		BPF_SYSCALL
	depends on !DEBUG_INFO_DWARF5 || PAHOLE_VERSION >= 121
	help
	  config in a help text is text.

	    depends on NOTHING
	  Its last line.

config BPF_SYSCALL
	bool "Enable bpf() system call"

config PAHOLE_VERSION
	int
	default $(shell,$(srctree)/scripts/pahole-version.sh "()")

config DEBUG_INFO_DWARF5
	bool
	default y

config DEBUG_INFO_SPLIT
	bool "Split"

config HIDDEN
	def_bool X86 && EXPERT

endmenu

config TINY
	bool "Tiny" if EXPERT

config EXPERT
	bool "Experts"
	select FORCED

config FORCED
	bool "Forced"

choice
	prompt "Compression"
	default KERNEL_GZIP

config KERNEL_GZIP
	bool "Gzip"
	depends on HAVE_GZIP
config KERNEL_XZ
	bool "XZ"
endchoice

config HAVE_GZIP
	bool

config NR_CPUS
	int "CPUs" if SMP
	range 2 64 if SMP
	range 1 1
	default "8"

config SMP
	bool "SMP"

config ORPHAN
	bool "Orphan"
	depends on NEVER_DEFINED
`)},
	"scripts/Kconfig.include": {Data: []byte("cc-option = $(success,trap \"rm $$\" EXIT; $(CC) $(1))\nleft_paren := (\n$(error-if,$(failure,x),no compiler)\n")},
	"arch/x86/Kconfig": {Data: []byte(`config X86
	def_bool y
	select HAVE_GZIP if $(cc-option,-m64) && 64BIT
config 64BIT
	bool "64-bit kernel" if "$(ARCH)" = "x86"
	default "$(ARCH)" != "i386"
if X86
config KEXEC_FILE
	bool "kexec file based system call"
	depends on CRYPTO=y
	depends on CRYPTO_SHA256=y || COMPILE_TEST
endif
`)},
	"crypto/Kconfig": {Data: []byte("menuconfig CRYPTO\n\ttristate \"Crypto\"\nif CRYPTO\nconfig CRYPTO_SHA256\n\ttristate \"SHA-256\"\n\tdepends on CRYPTO_HASH\nconfig CRYPTO_HASH\n\ttristate\nendif\n")},
}

func sampleOptions(t *testing.T) *Tree {
	t.Helper()
	tree, err := ParseTree(sampleTree, map[string]string{"SRCARCH": "x86"})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestParseTree(t *testing.T) {
	tree := sampleOptions(t)
	s := tree.Symbol("DEBUG_INFO_BTF")
	if s == nil || len(s.Defs) != 1 {
		t.Fatalf("DEBUG_INFO_BTF = %+v; want one definition", s)
	}
	d := s.Defs[0]
	if got, want := d.DependsOn.String(), "!TINY && !DEBUG_INFO_SPLIT && BPF_SYSCALL && (!DEBUG_INFO_DWARF5 || PAHOLE_VERSION >= 121)"; got != want {
		t.Errorf("DEBUG_INFO_BTF depends on %s; want %s", got, want)
	}
	if d.File != "Kconfig" || d.Line != 11 || s.Type != "bool" || d.Prompt != "Generate BTF" {
		t.Errorf("DEBUG_INFO_BTF: %s:%d %s %q; want Kconfig:11 bool", d.File, d.Line, s.Type, d.Prompt)
	}
	if got, want := d.Help, "config in a help text is text.\n\n  depends on NOTHING\nIts last line."; got != want {
		t.Errorf("help = %q; want %q", got, want)
	}
	if tree.Symbol("NOTHING") != nil || tree.Symbol("BPF_SYSCALL") == nil {
		t.Error("the help text did not end where it does")
	}
	if s := tree.Symbol("64BIT"); s == nil || s.Defs[0].Prompt != "64-bit kernel" {
		t.Errorf("64BIT = %+v; want it, with its prompt", s)
	}
}

func TestParseTreeErrors(t *testing.T) {
	for text, want := range map[string]string{
		"endmenu\n":                                "Kconfig:1: endmenu without menu",
		"if A\n":                                   "Kconfig: if has no end",
		"config\n":                                 `Kconfig:1: "" is not the name of an option`,
		"config A\n\tbool \"x\n":                   "has no end",
		"config A\n\tdepends on (B\n":              "Kconfig:1: in line 2:",
		"config A\n\tdepends on B &&\n":            "operand is missing",
		"config A\n\tdepends on B C\n":             "behind the end",
		"source \"$(NO)/Kconfig\"\n":               "variable NO",
		"source \"Kconfig\"\n":                     "reads itself",
		"source \"../etc/passwd\"\n":               "not exist",
		"frobnicate\n":                             `"frobnicate" begins no entry`,
		"if " + strings.Repeat("!", 1000) + "A\n":  "nested deeper",
		"if " + strings.Repeat("A&&", 30000) + "A": "longer than",
		"config A\n\tdefault $(shell,(\n":          "macro has no end",
	} {
		tree, err := ParseTree(fstest.MapFS{"Kconfig": {Data: []byte(text)}}, nil)
		if err == nil || !strings.Contains(err.Error(), want) || tree != nil {
			t.Errorf("ParseTree(%.40q) = %v; want an error with %q", text, err, want)
		}
	}
}

func TestExplain(t *testing.T) {
	tree := sampleOptions(t)
	tests := []struct {
		name, got string
		want      Setting
		why       []string
	}{
		{"a dependency, and what that needs", "CONFIG_X86=y\n", Setting{"KEXEC_FILE", "y"}, []string{
			"it needs CRYPTO = y (CRYPTO=n)", "it needs CRYPTO_SHA256 = y || COMPILE_TEST (CRYPTO_SHA256=n, COMPILE_TEST=n)"}},
		{"by name, down to the one that is missing", "", Setting{"CRYPTO_SHA256", "y"}, []string{
			"it needs CONFIG_CRYPTO, which is not set",
			"it needs CONFIG_CRYPTO_HASH, which is not set",
			"CONFIG_CRYPTO_HASH needs CONFIG_CRYPTO"}},
		{"a version", "CONFIG_BPF_SYSCALL=y\nCONFIG_DEBUG_INFO_DWARF5=y\nCONFIG_PAHOLE_VERSION=117\n", Setting{"DEBUG_INFO_BTF", "y"}, []string{
			"it needs !DEBUG_INFO_DWARF5 || PAHOLE_VERSION >= 121 (DEBUG_INFO_DWARF5=y, PAHOLE_VERSION=117)"}},
		{"what must not be", "CONFIG_TINY=y\nCONFIG_BPF_SYSCALL=y\n", Setting{"DEBUG_INFO_BTF", "y"}, []string{"it needs !TINY (TINY=y)"}},
		{"no such option", "", Setting{"DEBUG_INFO_BFT", "y"}, []string{
			"there is no CONFIG_DEBUG_INFO_BFT in this release, but CONFIG_DEBUG_INFO_BTF, CONFIG_DEBUG_INFO_SPLIT"}},
		{"a dependency that does not exist", "", Setting{"ORPHAN", "y"}, []string{"it needs CONFIG_NEVER_DEFINED, which does not exist here"}},
		{"only a menu for experts", "", Setting{"TINY", "y"}, []string{"it needs CONFIG_EXPERT, which is not set"}},
		{"nobody is asked", "CONFIG_X86=y\nCONFIG_EXPERT=y\n", Setting{"HAVE_GZIP", "y"}, []string{"CONFIG_HAVE_GZIP cannot be asked for; it is selected by CONFIG_X86"}},
		{"selected", "CONFIG_EXPERT=y\nCONFIG_FORCED=y\n", Setting{"FORCED", "n"}, []string{"it is selected by CONFIG_EXPERT"}},
		{"another of a choice", "CONFIG_HAVE_GZIP=y\nCONFIG_KERNEL_XZ=y\n", Setting{"KERNEL_GZIP", "y"}, []string{
			`CONFIG_KERNEL_XZ is chosen instead: of "Compression" only one can be set`}},
		{"one of a choice", "CONFIG_KERNEL_XZ=y\n", Setting{"KERNEL_XZ", "n"}, []string{`of "Compression" one must be set: set another one`}},
		{"out of range", "CONFIG_SMP=y\nCONFIG_NR_CPUS=64\n", Setting{"NR_CPUS", "512"}, []string{"it may be from 2 to 64"}},
		{"of another type", "CONFIG_SMP=y\n", Setting{"NR_CPUS", "y"}, []string{"it is of type int, and y is none"}},
		{"bool as a module", "", Setting{"SMP", "m"}, []string{"it is of type bool, and m is none"}},
		{"nothing turns it off", "CONFIG_DEBUG_INFO_DWARF5=y\n", Setting{"DEBUG_INFO_DWARF5", "n"}, []string{"it has a default, and there is nothing to turn it off by"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.why, tree.Explain(tt.want, parse(t, tt.got))); diff != "" {
				t.Errorf("Explain(%v) (-want +got):\n%s", tt.want, diff)
			}
		})
	}
}

func TestVerify(t *testing.T) {
	tree := sampleOptions(t)
	m := Merge(nil, fragment(t, "mine", "# Mine\nCONFIG_SMP=y\nCONFIG_BTF=y\n# if it exists: x\nCONFIG_KERNEL_NEW=y\n# CONFIG_ABSENT is not set\nCONFIG_NR_CPUS=0x8\n"))
	got := parse(t, "CONFIG_SMP=y\nCONFIG_NR_CPUS=8\n")
	refusals := tree.Verify(m, got)
	if len(refusals) != 1 {
		t.Fatalf("Verify = %v; want only the one that does not exist", refusals)
	}
	if got, want := refusals[0].String(), "mine asks for CONFIG_BTF=y: it is not set; there is no CONFIG_BTF in this release, but CONFIG_DEBUG_INFO_BTF"; got != want {
		t.Errorf("refusal = %q; want %q", got, want)
	}
}

func TestSearch(t *testing.T) {
	tree := sampleOptions(t)
	for words, want := range map[string]string{"btf": "DEBUG_INFO_BTF", "config_kexec": "KEXEC_FILE", "bpf system": "BPF_SYSCALL", "last line": "DEBUG_INFO_BTF"} {
		if got := tree.Search(strings.Fields(words)...); len(got) == 0 || got[0].Name != want {
			t.Errorf("Search(%q) = %v; want %s first", words, got, want)
		}
	}
	if got := tree.Search("xylophone"); len(got) != 0 {
		t.Errorf("Search(xylophone) = %v; want nothing", got)
	}
}

func FuzzTree(f *testing.F) {
	for _, file := range sampleTree {
		f.Add(string(file.Data), "CONFIG_A=y\n")
	}
	f.Fuzz(func(t *testing.T, text, config string) {
		tree, err := ParseTree(fstest.MapFS{"Kconfig": {Data: []byte(text)}}, map[string]string{"SRCARCH": "x86"})
		if (err == nil) != (tree != nil) {
			t.Fatalf("ParseTree = %v, %v; want one of them", tree, err)
		}
		c, cerr := Parse(strings.NewReader(config))
		if err != nil || cerr != nil {
			return
		}
		for _, n := range tree.Names() {
			for _, v := range []string{"y", "m", "n", "1"} {
				tree.Explain(Setting{n, v}, c)
			}
		}
		tree.Search("a")
	})
}
