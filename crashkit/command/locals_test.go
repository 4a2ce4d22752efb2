package command

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"crashlab/crashkit/debuginfo"
	"crashlab/crashkit/internal/fixture"
)

// What the variables of the functions that led to the crash were is known from elsewhere:
// from the kernel's own words about the fault and from the registers of the system call.
func TestLocals(t *testing.T) {
	p := fixture.Open(t)
	env := NewEnv(p, fixture.NullDeref)
	env.Debug = debuginfo.New(p, fixture.Path(t, fixture.NullDeref), fixture.Path(t, fixture.VMLinux), nil)
	defer env.Debug.Close()
	a := Run(t.Context(), env, "bt --locals")
	traces, ok := a.Result.(*traces)
	if !ok || len(traces.Traces) != 1 {
		t.Fatalf("bt --locals = %v, %v", a.Result, a.Err)
	}
	tr := traces.Traces[0]
	saved, user := "", tr.User
	for _, f := range tr.Frames {
		if f.Regs != nil {
			saved = fmt.Sprintf("%#x", uint64(f.At))
		}
	}
	console := strings.Join(lines(t, "nullderef-6.1.console"), "\n")
	fault := regexp.MustCompile(`(?s)address: ([0-9a-f]{16}).*error_code\(0x([0-9a-f]+)\)`).FindStringSubmatch(console)
	if fault == nil || user == nil || saved == "" {
		t.Fatalf("the truth is not there: %q, %v, %q", fault, user, saved)
	}
	module, ok := p.Symbol("nullderef:__this_module")
	if !ok {
		t.Fatal("no symbol __this_module of nullderef")
	}
	number16 := func(s string) uint64 {
		v, err := strconv.ParseUint(s, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	want := map[string]string{
		"exc_page_fault.regs":          saved,
		"exc_page_fault.error_code":    fmt.Sprint(number16(fault[2])),
		"exc_page_fault.address":       fmt.Sprint(number16(fault[1])),
		"handle_page_fault.regs":       saved,
		"handle_page_fault.error_code": fmt.Sprint(number16(fault[2])),
		"crash_kexec.regs":             saved, // by its caller's words
		"do_init_module.mod":           fmt.Sprintf("%v <__this_module>", module.Addr),
		"__do_sys_finit_module.fd":     fmt.Sprint(int32(user.RDI)),
		"__do_sys_finit_module.uargs":  fmt.Sprintf("%#x <not mapped>", user.RSI), // user memory
		"__do_sys_finit_module.flags":  fmt.Sprint(int32(user.RDX)),
		"do_syscall_64.regs":           fmt.Sprintf("%#x", uint64(tr.Frames[len(tr.Frames)-1].At)+8),
		"do_syscall_64.nr":             "<optimized out>",
		// The callee, in a module without debug information, may have changed it.
		"do_one_initcall.fn":         "<RBX is not known>",
		"page_fault_oops.error_code": "<known only when the function was called>",
	}
	got := make(map[string]local)
	for _, frame := range tr.Locals {
		for _, f := range frame {
			for _, v := range f.Variables {
				got[f.Function+"."+v.Name] = v
			}
		}
	}
	for name, text := range want {
		v, ok := got[name]
		if !ok || v.Value.text != text {
			t.Errorf("%s = %q; want %q", name, v.Value.text, text)
		}
		if unknown := strings.HasSuffix(text, " known>") || strings.HasSuffix(text, " out>") || strings.HasSuffix(text, " called>"); unknown != (v.Error != "") {
			t.Errorf("%s has the error %q with the value %q", name, v.Error, text)
		}
	}
	if v := got["__do_sys_finit_module.fd"]; v.Type != "int" || !v.Param || v.Where == "" {
		t.Errorf("__do_sys_finit_module.fd = %+v; want a parameter of type int", v)
	}
	text := text(t, a.Result)
	for _, line := range []string{
		"        struct module *mod = " + want["do_init_module.mod"] + "\n",
		"      handle_page_fault (inlined):\n",
		"        int nr = <optimized out>\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("bt --locals does not print %q", line)
		}
	}
}
