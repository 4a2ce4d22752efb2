package wire

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseJob(t *testing.T) {
	want := &Job{
		Modules: []Module{{Path: "/modules/virtio.ko"}, {Path: "/modules/x.ko", Params: "a=1 b=2"}},
		First: &FirstJob{
			Workload: DefaultWorkload(),
			Kexec:    &Kexec{Kernel: "/vmlinuz", Initrd: "/capture.cpio", Cmdline: "nr_cpus=1", MinCrashSize: 96 << 20},
			Truth:    DefaultTruth(),
			Trigger:  Trigger{Kind: TriggerModule, Module: Module{Path: "/x.ko"}, Timeout: 30e9},
		},
	}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseJob(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseJob() (-want +got):\n%s", diff)
	}
}

func TestParseJobBad(t *testing.T) {
	for text, want := range map[string]string{
		``:   "unexpected end",
		`{}`: "exactly one of first and capture",
		`{"modules":[{}],"capture":{"disk":"capture"}}`: "a module has no path",
		`{"capture":{}}`: "capture has no disk",
		`{"capture":{"disk":"a"},"first":{"trigger":{"kind":"sysrq"}}}`: "exactly one of",
		`{"first":{}}`: `unknown trigger kind ""`,
		`{"first":{"trigger":{"kind":"button"}}}`:                                                       `unknown trigger kind "button"`,
		`{"first":{"trigger":{"kind":"module"}}}`:                                                       "trigger has no module",
		`{"first":{"trigger":{"kind":"sysrq"},"kexec":{"kernel":"/vmlinuz"}}}`:                          "no initrd",
		`{"first":{"trigger":{"kind":"sysrq"},"workload":[{"name":"a","kind":"walk"}]}}`:                `unknown kind "walk"`,
		`{"first":{"trigger":{"kind":"sysrq"},"workload":[{"name":"","kind":"spin"}]}}`:                 "want 1 to 15 bytes",
		`{"first":{"trigger":{"kind":"sysrq"},"workload":[{"name":"0123456789abcdef","kind":"spin"}]}}`: "want 1 to 15 bytes",
	} {
		if _, err := ParseJob([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseJob(%s) = %v; want %q", text, err, want)
		}
	}
}
