//go:build linux

package main

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const iomem = `00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-1ffd9fff : System RAM
  11400000-12201ef1 : Kernel code
  15000000-1effffff : Crash kernel
1ffda000-1fffffff : Reserved
`

func TestCheckReserved(t *testing.T) {
	without := strings.ReplaceAll(iomem, "Crash kernel", "Kernel bss")
	for name, c := range map[string]struct {
		size, want uint64
		iomem      string
		err        string // part of it; empty means none
	}{
		"good":              {160 << 20, 96 << 20, iomem, ""},
		"exactly enough":    {96 << 20, 96 << 20, iomem, ""},
		"nothing asked for": {1 << 20, 0, iomem, ""},
		"nothing reserved":  {0, 0, without, "crashkernel="},
		"too little":        {64 << 20, 96 << 20, iomem, "64 MiB are reserved for the capture kernel, want 96"},
		"not in iomem":      {160 << 20, 0, without, "/proc/iomem"},
		"only in a name":    {160 << 20, 0, "00000000-00000fff : Crash kernel image\n", "/proc/iomem"},
	} {
		err := checkReserved(c.size, c.want, c.iomem)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: checkReserved(%d, %d, …) = %v; want %q", name, c.size, c.want, err, c.err)
		}
	}
}

func TestMeminfo(t *testing.T) {
	const text = "MemTotal:         122372 kB\nMemFree:           97212 kB\nMemAvailable:      96000 kB\nHugePages_Total:       0\nBroken:   x kB\n"
	for _, c := range []struct {
		key  string
		want uint64
		ok   bool
	}{
		{"MemTotal", 122372 << 10, true},
		{"MemAvailable", 96000 << 10, true},
		{"HugePages_Total", 0, true},
		{"Mem", 0, false},
		{"Broken", 0, false},
	} {
		got, err := meminfo(text, c.key)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("meminfo(%q) = %d, %v; want %d, ok %t", c.key, got, err, c.want, c.ok)
		}
	}
}

func TestTriggerResult(t *testing.T) {
	for name, c := range map[string]struct {
		status unix.WaitStatus
		err    error
		want   string
		errno  error
	}{
		"loaded":      {0, nil, "returned without a crash", nil},
		"refused":     {unix.WaitStatus(unix.ENOEXEC) << 8, nil, "exec format error", unix.ENOEXEC},
		"killed":      {unix.WaitStatus(unix.SIGKILL), nil, "an oops that did not panic", nil},
		"cannot wait": {0, unix.ECHILD, "wait for the trigger", unix.ECHILD},
	} {
		err := triggerResult("/scenario/x.ko", c.status, c.err)
		if err == nil || !strings.Contains(err.Error(), c.want) || c.errno != nil && !errors.Is(err, c.errno) {
			t.Errorf("%s: triggerResult() = %v; want %q and %v", name, err, c.want, c.errno)
		}
	}
}
