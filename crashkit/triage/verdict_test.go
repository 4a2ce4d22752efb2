package triage

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"crashlab/crashkit/addr"
	"crashlab/crashkit/disasm"
	"crashlab/crashkit/facts"
	"crashlab/crashkit/kernel"
)

func TestVerdict(t *testing.T) {
	at := func(v uint64) *uint64 { return &v }
	modules := []kernel.Module{
		{Name: "mine", Taints: []kernel.Taint{{Name: "PROPRIETARY_MODULE"}, {Name: "OOT_MODULE"}}},
		{Name: "ext4"},
	}
	for _, c := range []struct {
		name  string
		panic facts.Panic
		code  string // at IP, hex
		want  facts.Verdict
	}{
		{
			"read of a member through NULL",
			facts.Panic{
				Kind: "null-deref", Access: "read", Address: at(0x18), Symbol: "ext4_get", Offset: 0x20, Module: "ext4", IP: 0xffffffffc0000020,
				Registers: map[string]uint64{"rdi": 0},
			},
			"488b4718", // mov 0x18(%rdi),%rax
			facts.Verdict{
				What:  "a read of 8 bytes through a NULL pointer, 0x18 bytes from where it points",
				Where: "ext4_get+0x20 in module ext4",
				Why:   "RDI, the base of the address of the load `mov 0x18(%rdi),%rax`, is 0",
				Whose: "module ext4 (from the kernel's own tree)",
			},
		},
		{
			"write to memory that does not allow it",
			facts.Panic{
				Kind: "page-fault", Access: "write", Address: at(0xffffffff82000010), ErrorCode: at(3), Symbol: "f", IP: 0xffffffff81000000,
				Registers: map[string]uint64{"rax": 0xffffffff82000000, "rcx": 2}, Source: "f.c:7",
			},
			"c604c801", // movb $0x1,(%rax,%rcx,8)
			facts.Verdict{
				What:  "a write of 1 byte at 0xffffffff82000010, which is mapped but does not allow it",
				Where: "f+0x0 (f.c:7)",
				Why:   "RAX, the base of the address of the store `movb $0x1,(%rax,%rcx,8)`, is 0xffffffff82000000",
				Whose: "the kernel's own code",
			},
		},
		{
			"an index out of bounds",
			facts.Panic{
				Kind: "page-fault", Access: "read", Address: at(0xffff888000000000 + 8*0x10000000), ErrorCode: at(0), Symbol: "f", IP: 0xffffffff81000000,
				Registers: map[string]uint64{"rax": 0xffff888000000000, "rcx": 0x10000000},
			},
			"8b04c8", // mov (%rax,%rcx,8),%eax
			facts.Verdict{
				What:  "a read of 4 bytes at 0xffff888080000000, which is not mapped",
				Where: "f+0x0",
				Why:   "RCX, the index into the address of the load `mov (%rax,%rcx,8),%eax`, is 0x10000000",
				Whose: "the kernel's own code",
			},
		},
		{
			"an error code taken for a pointer",
			facts.Panic{
				Kind: "page-fault", Access: "read", Address: at(0xfffffffffffffff4), ErrorCode: at(0), Symbol: "f", IP: 0xffffffff81000000,
				Registers: map[string]uint64{"rbx": 0xfffffffffffffff4},
				Frames:    []facts.Frame{{Symbol: "f", Exception: true}, {Symbol: "g", Module: "mine"}},
			},
			"488b03", // mov (%rbx),%rax
			facts.Verdict{
				What:  "a read of 8 bytes at 0xfffffffffffffff4, which is not mapped",
				Where: "f+0x0",
				Why:   "RBX, the address of the load `mov (%rbx),%rax`, is 0xfffffffffffffff4: an error code, -12, taken for a pointer",
				Whose: "the kernel's own code, called by module mine (proprietary, out of tree)",
			},
		},
		{
			"a member of an error code",
			facts.Panic{
				Kind: "null-deref", Access: "read", Address: at(0xc), ErrorCode: at(0), Symbol: "f", IP: 0xffffffff81000000,
				Registers: map[string]uint64{"rdi": 0xfffffffffffffff4},
			},
			"8b4718", // mov 0x18(%rdi),%eax
			facts.Verdict{
				What:  "a read of 4 bytes through a pointer that is an error code",
				Where: "f+0x0",
				Why:   "RDI, the base of the address of the load `mov 0x18(%rdi),%eax`, is 0xfffffffffffffff4: an error code, -12, taken for a pointer",
				Whose: "the kernel's own code",
			},
		},
		{
			"BUG",
			facts.Panic{Kind: "bug", Title: "kernel BUG at mm/slub.c:435!", Symbol: "kfree", Offset: 2, IP: 0xffffffff81000000, Registers: map[string]uint64{"rax": 1}},
			"0f0b",
			facts.Verdict{
				What:  "a BUG(), by which the code says that it found a state that must not be",
				Where: "kfree+0x2",
				Why:   "the check at mm/slub.c:435 failed",
				Whose: "the kernel's own code",
			},
		},
		{
			"endless recursion",
			facts.Panic{
				Kind: "stack-guard", Symbol: "deep", IP: 0xffffffff81000000,
				Frames: []facts.Frame{{Symbol: "deep", Exception: true}, {Symbol: "deep"}, {Symbol: "deep"}, {Symbol: "deep"}, {Symbol: "deep"}, {Symbol: "main"}},
			},
			"",
			facts.Verdict{
				What:  "a kernel stack that grew out of its bounds",
				Where: "deep+0x0",
				Why:   "deep is on the stack 5 times: it calls itself without end",
				Whose: "the kernel's own code",
			},
		},
		{
			"an entry that is off its list",
			facts.Panic{
				Kind: "gpf", Title: "general protection fault, …", Symbol: "f", IP: 0xffffffff81000000,
				Registers: map[string]uint64{"rdx": 0xdead000000000100, "rax": 0},
			},
			"48894208", // mov %rax,0x8(%rdx)
			facts.Verdict{
				What:  "a write of 8 bytes through a pointer that is no address, 0xdead000000000108",
				Where: "f+0x0",
				Why:   "RDX, the base of the address of the store `mov %rax,0x8(%rdx)`, is 0xdead000000000100: LIST_POISON1, the next pointer of an entry that was taken off its list",
				Whose: "the kernel's own code",
			},
		},
		{
			"freed memory",
			facts.Panic{
				Kind: "gpf", Symbol: "f", IP: 0xffffffff81000000,
				Registers: map[string]uint64{"rax": 0x6b6b6b6b6b6b6b7b},
			},
			"ffd0", // call *%rax: no access to memory
			facts.Verdict{
				What:  "an access to memory or to the processor's state that the processor does not allow",
				Where: "f+0x0",
				Whose: "the kernel's own code",
			},
		},
		{
			"a call of a NULL function",
			facts.Panic{
				Kind: "null-deref", Access: "exec", Address: at(0), IP: 0,
				Frames: []facts.Frame{{Exception: true}, {Symbol: "caller", Offset: 0x15, Module: "mine"}},
			},
			"",
			facts.Verdict{
				What:  "a jump to a NULL pointer",
				Where: "0x0",
				Why:   "caller+0x15 called a function through a pointer that holds 0",
				Whose: "module mine (proprietary, out of tree)",
			},
		},
		{
			"the NMI button",
			facts.Panic{
				Kind: "panic", Message: "NMI: Not continuing", Symbol: "unknown_nmi_error.cold", Offset: 0x2a, IP: 0xffffffff81000000,
				Frames: []facts.Frame{{Symbol: "unknown_nmi_error.cold"}, {Symbol: "exc_nmi"}},
			},
			"",
			facts.Verdict{
				What:  "an NMI that nobody claimed, such as the NMI button sends, on a kernel told to panic on it",
				Where: "unknown_nmi_error.cold+0x2a",
				Why:   `unknown_nmi_error.cold called panic: "NMI: Not continuing"`,
				Whose: "nobody's: it was asked for from outside, or hardware complained",
			},
		},
		{
			"sysrq",
			facts.Panic{
				Kind: "sysrq", Title: "sysrq: Trigger a crash", Message: "sysrq triggered crash", Symbol: "sysrq_handle_crash", Offset: 0x16,
				IP: 0xffffffff81000000, Task: facts.Task{Comm: "sh", PID: 123},
				Frames: []facts.Frame{{Symbol: "sysrq_handle_crash"}, {Symbol: "write_sysrq_trigger"}},
			},
			"",
			facts.Verdict{
				What:  "a deliberate crash: sysrq-c by task sh (PID 123)",
				Where: "sysrq_handle_crash+0x16",
				Why:   "it was asked for through /proc/sysrq-trigger",
				Whose: "nobody's: task sh (PID 123) asked for it",
			},
		},
		{
			"panic",
			facts.Panic{
				Kind: "panic", Title: "Kernel panic - not syncing: out of cheese", Message: "out of cheese", Symbol: "redo", Module: "gone",
				IP: 0xffffffff81000000,
			},
			"",
			facts.Verdict{What: "a panic: out of cheese", Where: "redo+0x0 in module gone", Why: `redo called panic: "out of cheese"`, Whose: "module gone"},
		},
		{
			"the end of init",
			facts.Panic{
				Kind: "panic", Message: "Attempted to kill init! exitcode=0x00000300", Symbol: "do_exit.cold", Offset: 0x15,
				IP: 0xffffffff81000000, Task: facts.Task{Comm: "init", PID: 1},
			},
			"",
			facts.Verdict{
				What:  "the end of process 1, without which there is no user space",
				Where: "do_exit.cold+0x15",
				Why:   "task init (PID 1) exited with status 3",
				Whose: "user space's: task init (PID 1)",
			},
		},
		{
			"write to a constant",
			facts.Panic{
				Kind: "page-fault", Access: "write", Address: at(0xffffffffc0590140), ErrorCode: at(3), Symbol: "f", IP: 0xffffffffc059a06c,
			},
			"c605cd60ffff01", // movb $0x1,-0x9f33(%rip)
			facts.Verdict{
				What:  "a write of 1 byte at 0xffffffffc0590140, which is mapped but does not allow it",
				Where: "f+0x0",
				Why:   "the store `movb $0x1,-0x9f33(%rip)` is of a variable itself",
				Whose: "the kernel's own code",
			},
		},
		{"no crash", facts.Panic{}, "", facts.Verdict{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, err := hex.DecodeString(c.code)
			if err != nil {
				t.Fatal(err)
			}
			if len(code) > 0 {
				in, err := disasm.Decode(code, addr.Virt(c.panic.IP), nil)
				if err != nil {
					t.Fatal(err)
				}
				c.panic.Instruction = facts.Instruction{Bytes: in.Bytes, Text: in.Text}
			}
			tr := &triage{f: &facts.Facts{Panic: c.panic}, mods: modules}
			tr.verdict()
			if d := cmp.Diff(c.want, tr.f.Verdict); d != "" {
				t.Errorf("verdict: -want +got:\n%s", d)
			}
		})
	}
}

func TestOperands(t *testing.T) {
	regs := map[string]uint64{"rax": 0x1000, "rcx": 3, "rsi": 0x2000, "rdi": 0x3000, "rsp": 0x4000}
	for _, c := range []struct {
		code string
		want []operand
	}{
		{"c70200000000", nil}, // movl $0,(%rdx): RDX is unknown
		{"c70000000000", []operand{{size: 4, store: true, base: "rax", address: 0x1000, regs: []string{"rax"}}}},
		{"3b4488fc", []operand{{size: 4, base: "rax", index: "rcx", address: 0x1008, regs: []string{"rax", "rcx"}}}}, // cmp -4(%rax,%rcx,4),%eax
		{"0fc10e", []operand{{size: 4, store: true, base: "rsi", address: 0x2000, regs: []string{"rsi"}}}},           // xadd %ecx,(%rsi)
		{"ff6010", []operand{{size: 8, jump: true, base: "rax", address: 0x1010, regs: []string{"rax"}}}},            // jmp *0x10(%rax)
		{"8d4010", nil},             // lea
		{"65488b042500000000", nil}, // mov %gs:0x0,%rax
		{"8b0510000000", []operand{{size: 4, base: "rip", address: 0x9016, regs: []string{"rip"}}}},                                                                        // mov 0x10(%rip),%eax
		{"f348a5", []operand{{size: 8, store: true, base: "rdi", address: 0x3000, regs: []string{"rdi"}}, {size: 8, base: "rsi", address: 0x2000, regs: []string{"rsi"}}}}, // rep movsq
		{"", nil},
	} {
		code, err := hex.DecodeString(c.code)
		if err != nil {
			t.Fatal(err)
		}
		got := operands(code, 0x9010, regs)
		if strings.HasPrefix(c.code, "8b05") {
			got = operands(code, 0x9000, regs)
		}
		if d := cmp.Diff(c.want, got, cmp.AllowUnexported(operand{})); d != "" {
			t.Errorf("operands(%s): -want +got:\n%s", c.code, d)
		}
	}
}
