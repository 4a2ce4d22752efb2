package settings

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"crashlab/lab/blame"
)

func TestLoad(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		env        map[string]string
		check      func(Settings) bool
		err        string
	}{
		{name: "defaults", check: func(s Settings) bool {
			return s.Arch == "x86-64" && s.Accel == "auto" && s.Install == "auto" && filepath.IsAbs(s.Cache) && !s.Verbose
		}},
		{name: "file", file: "kernel: debian:6.12\nverbose: true\n", check: func(s Settings) bool {
			return s.Kernel == "debian:6.12" && s.Verbose
		}},
		{name: "environment beats file", file: "kernel: debian:6.12\n", env: map[string]string{"CRASHLAB_KERNEL": "debian:6.1"},
			check: func(s Settings) bool { return s.Kernel == "debian:6.1" }},
		{name: "mirror of Ubuntu", env: map[string]string{"CRASHLAB_UBUNTU": "http://a/ubuntu"}, check: func(s Settings) bool {
			return s.Ubuntu == "http://a/ubuntu"
		}},
		{name: "mirrors", file: "mirrors: [https://a/kernel, http://b]\n", check: func(s Settings) bool {
			return slices.Equal(s.Mirrors, []string{"https://a/kernel", "http://b"})
		}},
		{name: "mirrors in the environment", env: map[string]string{"CRASHLAB_MIRRORS": "https://a/kernel,http://b"}, check: func(s Settings) bool {
			return slices.Equal(s.Mirrors, []string{"https://a/kernel", "http://b"})
		}},
		{name: "no mirrors", env: map[string]string{"CRASHLAB_MIRRORS": "none"}, check: func(s Settings) bool {
			return slices.Equal(s.Mirrors, []string{"none"})
		}},
		{name: "mirror without an address", env: map[string]string{"CRASHLAB_MIRRORS": "cdn.kernel.org"}, err: "is not an address"},
		{name: "misspelt", file: "kernal: x\n", err: `no setting is called "kernal"; there are kernel,`},
		{name: "not YAML", file: "kernel: [\n", err: "crashlab.yaml"},
		{name: "bad value", env: map[string]string{"CRASHLAB_ACCEL": "hvf"}, err: `accel is "hvf"`},
		{name: "architecture", file: "arch: arm64\n", check: func(s Settings) bool { return s.Arch == "arm64" }},
		{name: "bad architecture", env: map[string]string{"CRASHLAB_ARCH": "aarch64"}, err: `arch is "aarch64"`},
		{name: "bad install", env: map[string]string{"CRASHLAB_INSTALL": "yes"}, err: `install is "yes"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.file != "" {
				if err := os.WriteFile(filepath.Join(dir, "crashlab.yaml"), []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			s, err := Load(dir)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("Load() error = %v; want one with %q", err, tt.err)
				}
				if got := blame.ExitCode(err); got != 2 {
					t.Errorf("exit code = %d; want 2", got)
				}
				return
			}
			if err != nil || !tt.check(s) {
				t.Errorf("Load() = %+v, %v", s, err)
			}
		})
	}
}
