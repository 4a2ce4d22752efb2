package kconfig

import "fmt"

// Compression is how the kernel image is packed: the choice "Kernel compression
// mode" of init/Kconfig.
type Compression string

// Compressions lists them all. With none the image holds the plain vmlinux, which
// x86 does not offer (HAVE_KERNEL_UNCOMPRESSED).
func Compressions() []Compression {
	return []Compression{"gzip", "bzip2", "lzma", "xz", "lzo", "lz4", "zstd", "none"}
}

func (c Compression) option() string {
	return map[Compression]string{
		"gzip": "KERNEL_GZIP", "bzip2": "KERNEL_BZIP2", "lzma": "KERNEL_LZMA", "xz": "KERNEL_XZ",
		"lzo": "KERNEL_LZO", "lz4": "KERNEL_LZ4", "zstd": "KERNEL_ZSTD", "none": "KERNEL_UNCOMPRESSED",
	}[c]
}

// Program names the program that the build packs with; none needs none.
func (c Compression) Program() string {
	return map[Compression]string{
		"gzip": "gzip", "bzip2": "bzip2", "lzma": "xz", "xz": "xz", "lzo": "lzop", "lz4": "lz4", "zstd": "zstd",
	}[c]
}

// Fragment returns the options that choose c and nothing else.
func (c Compression) Fragment() *Fragment {
	var members []string
	for _, o := range Compressions() {
		members = append(members, o.option())
	}
	return choose(string(c), fmt.Sprintf("The image packed with %s.", c), c.option(), members)
}

// CompressionOf returns the compression that c chooses; empty if none.
func CompressionOf(c *Config) Compression {
	for _, o := range Compressions() {
		if c.State(o.option()) == Yes {
			return o
		}
	}
	return ""
}

// Preemption is when the kernel may take the processor from a task that runs
// in it: the choice "Preemption Model" of kernel/Kconfig.preempt, PREEMPT_RT,
// which is an option of its own since v6.13, and PREEMPT_DYNAMIC, with which
// preempt= on the command line decides.
type Preemption string

// Preemptions lists them all.
func Preemptions() []Preemption {
	return []Preemption{"none", "voluntary", "full", "lazy", "rt", "dynamic"}
}

func (p Preemption) option() string {
	return map[Preemption]string{
		"none": "PREEMPT_NONE", "voluntary": "PREEMPT_VOLUNTARY", "full": "PREEMPT", "lazy": "PREEMPT_LAZY",
		"rt": "PREEMPT_RT", "dynamic": "PREEMPT_DYNAMIC",
	}[p]
}

// Fragment returns the options that choose p and nothing else.
func (p Preemption) Fragment() *Fragment {
	members := []string{"PREEMPT_NONE", "PREEMPT_VOLUNTARY", "PREEMPT", "PREEMPT_LAZY", "PREEMPT_RT"}
	f := choose("preempt-"+string(p), fmt.Sprintf("Preemption model %s.", p), p.option(), members)
	switch p {
	case "dynamic":
		// Depends on nothing that is asked for here, but up to v6.12 on the
		// full model's code, which it selects.
		f.Lines = []FragmentLine{{Setting: Setting{"PREEMPT_DYNAMIC", "y"}, Why: "preempt= on the command line decides"}}
	case "rt":
		// From v6.13 on a model is chosen beside it.
		f.Lines = []FragmentLine{
			{Setting: Setting{"EXPERT", "y"}, Why: "PREEMPT_RT asks for it"},
			{Setting: Setting{"PREEMPT_RT", "y"}, Why: f.Title},
		}
	default:
		f.Lines = append(f.Lines, FragmentLine{Setting: Setting{"PREEMPT_DYNAMIC", "n"}, Why: "the model is what was chosen here, not what preempt= says"})
	}
	return f
}

// choose returns a fragment that sets one member of a choice and unsets the others.
func choose(name, title, option string, members []string) *Fragment {
	f := &Fragment{Name: name, Title: title}
	for _, m := range members {
		l := FragmentLine{Setting: Setting{m, "n"}, Why: "the choice is " + option}
		if m == option {
			l.Value, l.Why = "y", title
		}
		f.Lines = append(f.Lines, l)
	}
	return f
}
