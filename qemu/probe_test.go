package qemu

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestProbeROM executes the probe where it must succeed.
func TestProbeROM(t *testing.T) {
	version, err := execute(t.Context(), qemuBinary(t), TCG)
	if err != nil || version == "" {
		t.Errorf("execute(TCG) = %q, %v; want QEMU's version", version, err)
	}
}

func TestProbeAccel(t *testing.T) {
	tmp := privateTemp(t)
	p, err := ProbeAccel(t.Context(), qemuBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	// Which one it is depends on the machine; the answer must hold.
	if _, err := execute(t.Context(), qemuBinary(t), p.Accel); err != nil {
		t.Errorf("ProbeAccel = %v, but execute says: %v", p.Accel, err)
	}
	if p.Reason == "" || strings.Contains(p.Reason, "\n") {
		t.Errorf("reason %q; want one line", p.Reason)
	}
	key, err := ProbeKey(qemuBinary(t))
	if err != nil || key != p.Key {
		t.Errorf("ProbeKey = %q, %v; want %q", key, err, p.Key)
	}
	b, err := json.Marshal(p)
	var back Probe
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	if err != nil || back != p {
		t.Errorf("%s read back = %+v, %v; want %+v", b, back, err, p)
	}
	wantEmpty(t, tmp)
}

func TestProbeAccelNoQEMU(t *testing.T) {
	if p, err := ProbeAccel(t.Context(), "/bin/false"); err == nil {
		t.Errorf("ProbeAccel(/bin/false) = %+v; want an error", p)
	}
}
