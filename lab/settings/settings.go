// Package settings holds what a user may choose for all runs: defaults, then
// crashlab.yaml in the current directory, then CRASHLAB_… environment variables;
// the last one wins.
package settings

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/viper"

	"crashlab/lab/blame"
)

// Settings are the user's choices.
type Settings struct {
	Kernel  string        // kernel spec, such as "debian:6.1"; empty means the scenario's
	Arch    string        // "x86-64" or "arm64": what kernels are built for that do not name it
	Accel   string        // "auto", "tcg" or "kvm"
	Install string        // "auto": install what the host lacks if that needs no password; "never"
	Mirrors []string      // folders with kernel.org's releases; "none": do not ask; empty: those of kernel.org
	Keys    string        // folder of the keys that RPM packages must be signed with; empty: they need not be
	Ubuntu  string        // where Ubuntu's packages are; empty: where the host's apt gets them
	Cache   string        // folder of kernels, modules and images, reused by all runs
	Runs    string        // folder that gets one folder for each run
	QEMU    string        // the QEMU program
	Timeout time.Duration // longest time for one whole run; 0 means the sum of the stages' deadlines
	Verbose bool          // stream the guest's console
}

// names are the settings' names in the file; CRASHLAB_ and the upper-case name
// is the environment variable.
var names = []string{"kernel", "arch", "accel", "install", "mirrors", "keys", "ubuntu", "cache", "runs", "qemu", "timeout", "verbose"}

// Load reads the settings; dir is where crashlab.yaml may stand.
func Load(dir string) (Settings, error) {
	const doing = "read the settings"
	usage := func(err error) error { return blame.New(blame.Usage, doing, err) }

	cache, err := os.UserCacheDir()
	if err != nil {
		return Settings{}, usage(fmt.Errorf("%w: set CRASHLAB_CACHE to a folder", err))
	}
	v := viper.New()
	v.SetDefault("kernel", "")
	v.SetDefault("arch", "x86-64")
	v.SetDefault("accel", "auto")
	v.SetDefault("install", "auto")
	v.SetDefault("mirrors", "")
	v.SetDefault("keys", "")
	v.SetDefault("ubuntu", "")
	v.SetDefault("cache", filepath.Join(cache, "crashlab"))
	v.SetDefault("runs", "runs")
	v.SetDefault("qemu", "qemu-system-x86_64")
	v.SetDefault("timeout", "0s")
	v.SetDefault("verbose", false)
	v.SetEnvPrefix("crashlab")
	v.AutomaticEnv()

	file := filepath.Join(dir, "crashlab.yaml")
	v.SetConfigFile(file)
	if err := v.ReadInConfig(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Settings{}, usage(fmt.Errorf("%s: %w", file, err))
	}
	for _, k := range v.AllKeys() {
		if !slices.Contains(names, k) {
			return Settings{}, usage(fmt.Errorf("%s: no setting is called %q; there are %s", file, k, strings.Join(names, ", ")))
		}
	}
	s := Settings{
		Kernel: v.GetString("kernel"), Arch: v.GetString("arch"), Accel: v.GetString("accel"), Install: v.GetString("install"),
		Ubuntu: v.GetString("ubuntu"), Keys: v.GetString("keys"), QEMU: v.GetString("qemu"), Verbose: v.GetBool("verbose"),
	}
	s.Mirrors = strings.Fields(strings.ReplaceAll(strings.Join(v.GetStringSlice("mirrors"), " "), ",", " "))
	for _, m := range s.Mirrors {
		if m != "none" && !isAddress(m) {
			return Settings{}, usage(fmt.Errorf("mirrors: %q is not an address such as https://cdn.kernel.org/pub/linux/kernel", m))
		}
	}
	if !slices.Contains([]string{"x86-64", "arm64"}, s.Arch) {
		return Settings{}, usage(fmt.Errorf("arch is %q: it may be x86-64 or arm64", s.Arch))
	}
	if s.Ubuntu != "" && !isAddress(s.Ubuntu) {
		return Settings{}, usage(fmt.Errorf("ubuntu: %q is not the address of a mirror", s.Ubuntu))
	}
	if !slices.Contains([]string{"auto", "tcg", "kvm"}, s.Accel) {
		return Settings{}, usage(fmt.Errorf("accel is %q: it may be auto, tcg or kvm", s.Accel))
	}
	if !slices.Contains([]string{"auto", "never"}, s.Install) {
		return Settings{}, usage(fmt.Errorf("install is %q: it may be auto or never", s.Install))
	}
	if s.Timeout, err = time.ParseDuration(v.GetString("timeout")); err != nil {
		return Settings{}, usage(fmt.Errorf("timeout: %w", err))
	}
	if s.Cache, err = filepath.Abs(v.GetString("cache")); err != nil {
		return Settings{}, usage(err)
	}
	if s.Runs, err = filepath.Abs(v.GetString("runs")); err != nil {
		return Settings{}, usage(err)
	}
	return s, nil
}

func isAddress(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}
