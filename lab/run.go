// Package lab is the pipeline: from a scenario's name to a verdict on a real
// crash of a real kernel. Each stage is a file; Run strings them together.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"crashlab/kconfig"
	"crashlab/lab/blame"
	"crashlab/lab/doctor"
	"crashlab/lab/kernels"
	"crashlab/lab/kmod"
	"crashlab/lab/ledger"
	"crashlab/lab/settings"
	"crashlab/lab/store"
	"crashlab/lab/ui"
	"crashlab/lab/wire"
	"crashlab/modules"
	"crashlab/qemu"
	"crashlab/scenarios"
)

// Lab runs scenarios.
type Lab struct {
	Settings settings.Settings
	Root     string       // the checkout, with go.mod
	UI       *ui.UI       // required
	Log      *slog.Logger // nil discards

	began func(stage string, r *run) // for tests: a stage begins
}

// The stages of a run, in order.
const (
	StageHost    = "host"
	StageKernel  = "kernel"
	StageModule  = "module"
	StageImage   = "initramfs"
	StageBoot    = "boot"
	StageArm     = "arm"
	StageTrigger = "trigger"
	StageCapture = "capture"
	StageVMCore  = "vmcore"
	StageAnalyze = "analyze"
	StageAssert  = "assert"
	StageReport  = "report"
)

// run is one run in the making.
type run struct {
	*Lab
	scenario *scenarios.Scenario
	spec     string // of the kernel
	dir      string // the run's folder
	ledger   *ledger.Ledger
	store    *store.Store

	shown *ui.Stage // the stage that runs

	probe  qemu.Probe
	kernel *kernels.Kernel
	module *kmod.Module
	images images
	crash  *crash
}

// Run runs the scenario once. It returns the record of the run and its folder,
// which hold what is known also when the error is not nil; the error says whose
// fault it is (package blame).
func (l *Lab) Run(ctx context.Context, s *scenarios.Scenario) (ledger.Run, string, error) {
	r := &run{Lab: l, scenario: s, spec: s.Kernel}
	if l.Settings.Kernel != "" {
		r.spec = l.Settings.Kernel
	}
	if err := r.open(); err != nil {
		return ledger.Run{}, "", err
	}
	if l.Settings.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, l.Settings.Timeout, fmt.Errorf("the run took longer than %v", l.Settings.Timeout))
		defer cancel()
	}
	err := r.stages(ctx)
	if err != nil && ctx.Err() != nil {
		err = interrupted(ctx, err)
	}
	err = errors.Join(err, r.ledger.Finish(err))
	// The report is written of failed runs too: it is where one looks.
	if rerr := r.stage(StageReport, r.report); rerr != nil && err == nil {
		err = rerr
	}
	return r.ledger.Run(), r.dir, err
}

// interrupted blames the one who stopped the run rather than what stopped first.
func interrupted(ctx context.Context, err error) error {
	doing := "run the scenario"
	if e, ok := errors.AsType[*blame.Error](err); ok {
		doing = e.Doing
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) {
		cause = errors.New("interrupted")
	}
	return blame.New(blame.Infrastructure, doing, cause)
}

// open makes the run's folder and its ledger.
func (r *run) open() error {
	const doing = "make the run's folder"
	var err error
	if r.store, err = store.Open(r.Settings.Cache, r.Log); err != nil {
		return stageError(blame.Infrastructure, "open the cache", err)
	}
	if err := os.MkdirAll(r.Settings.Runs, 0o777); err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	now := time.Now()
	// Two runs may start in the same second: the first one to make the folder has it.
	for n := 1; ; n++ {
		id := r.scenario.Name + "-" + now.Format("20060102-150405")
		if n > 1 {
			id += fmt.Sprintf("-%d", n)
		}
		r.dir = filepath.Join(r.Settings.Runs, id)
		err := os.Mkdir(r.dir, 0o777)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) || n > 1000 {
			return blame.New(blame.Infrastructure, doing, err)
		}
	}
	r.ledger, err = ledger.New(r.dir, ledger.Run{
		ID: filepath.Base(r.dir), Scenario: r.scenario.Name, Title: r.scenario.Title, Started: now, PID: os.Getpid(),
		Kernel: ledger.Kernel{Spec: r.spec},
		Host:   ledger.Host{OS: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU()},
		Replay: fmt.Sprintf("CRASHLAB_KERNEL=%s go tool mage scenario:run %s", r.spec, r.scenario.Name),
	})
	if err != nil {
		return blame.New(blame.Infrastructure, doing, err)
	}
	return nil
}

// outcome is what a stage tells about itself.
type outcome struct {
	note   string
	cached bool
}

// stage runs f, shows it and keeps its ledger.
func (r *run) stage(name string, f func() (outcome, error)) error {
	if err := r.ledger.Begin(name); err != nil {
		return blame.New(blame.Infrastructure, "write the run's ledger", err)
	}
	r.shown = r.UI.Begin(name)
	if r.began != nil {
		r.began(name, r)
	}
	o, err := f()
	r.shown.End(o.note, o.cached, err)
	if lerr := r.ledger.End(name, o.note, o.cached, err); lerr != nil && err == nil {
		err = blame.New(blame.Infrastructure, "write the run's ledger", lerr)
	}
	return err
}

// stages runs everything up to the report.
func (r *run) stages(ctx context.Context) error {
	defer func() {
		if r.crash != nil {
			r.crash.close()
		}
	}()
	with := func(f func(context.Context) (outcome, error)) func() (outcome, error) {
		return func() (outcome, error) {
			if err := ctx.Err(); err != nil {
				return outcome{}, err
			}
			return f(ctx)
		}
	}
	for _, s := range []struct {
		name string
		f    func(context.Context) (outcome, error)
	}{
		{StageHost, r.doHost},
		{StageKernel, r.doKernel},
		{StageModule, r.doModule},
		{StageImage, r.doImage},
		{StageBoot, r.doBoot},
		{StageArm, r.doArm},
		{StageTrigger, r.doTrigger},
		{StageCapture, r.doCapture},
		{StageVMCore, r.doVMCore},
		{StageAnalyze, r.doAnalyze},
		{StageAssert, r.doAssert},
	} {
		if s.name == StageModule && r.scenario.Module == "" {
			continue
		}
		if err := r.stage(s.name, with(s.f)); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) doHost(ctx context.Context) (outcome, error) {
	if kernels.ArchOf(r.spec) == "arm64" {
		return outcome{}, blame.New(blame.Usage, "crash "+r.spec, errors.New("the analyzer does not know arm64")).
			WithHint("go tool mage kernel:boot boots it")
	}
	o := doctor.Options{Kernel: r.spec, Cache: r.Settings.Cache, Space: SpaceNeeded}
	o.Build, o.Packers = kernels.Tools(r.spec)
	err := doctor.New().Ensure(ctx, o, func(line string) { r.UI.Say("%s", line) })
	if err != nil {
		return outcome{}, err
	}
	if r.probe, err = Accelerator(ctx, r.store, r.Settings.QEMU, r.Settings.Accel); err != nil {
		return outcome{}, err
	}
	err = r.ledger.Update(func(l *ledger.Run) {
		l.Host.QEMU, l.Host.Accel, l.Host.AccelWhy = r.probe.Version, string(r.probe.Accel), r.probe.Reason
	})
	return outcome{note: fmt.Sprintf("QEMU %s, %s: %s", r.probe.Version, strings.ToUpper(string(r.probe.Accel)), r.probe.Reason)}, err
}

// SpaceNeeded is what a kernel, its headers, the images and a run take at most, in bytes.
const SpaceNeeded = 1 << 30

func (r *run) doKernel(ctx context.Context) (outcome, error) {
	fetched := false
	src := kernels.New(r.store, r.Log, func(doing string, done, total int64) {
		fetched = true
		if total > 0 {
			r.shown.Note("%s: %d of %d MB", doing, done>>20, total>>20)
		} else {
			r.shown.Note("%s", doing)
		}
	}, r.kernelOptions())
	var err error
	if r.kernel, err = src.Fetch(ctx, r.spec); err != nil {
		return outcome{}, stageError(blame.Infrastructure, "fetch the kernel "+r.spec, err)
	}
	lacks, err := missing(r.kernel)
	if err != nil {
		return outcome{}, err
	}
	// The module may want another compiler than the one that is there.
	err = doctor.New().Ensure(ctx, doctor.Options{Kernel: r.spec, Compiler: compilerName(r.kernel.Compiler), Cache: r.Settings.Cache}, func(line string) { r.UI.Say("%s", line) })
	if err != nil {
		return outcome{}, err
	}
	note := strings.Join(append([]string{r.kernel.Release + " (" + r.kernel.Version + ")"}, lacks...), "; ")
	err = r.ledger.Update(func(l *ledger.Run) { l.Kernel.Release = r.kernel.Release })
	return outcome{note, !fetched}, err
}

// missing checks the kernel's configuration. What a run cannot do without is an
// error; what only loses something is returned, one sentence each.
func missing(k *kernels.Kernel) (lacks []string, err error) {
	config, err := kconfig.ReadFile(k.Config)
	if err != nil {
		return nil, blame.New(blame.Kernel, "read the kernel's configuration", err)
	}
	var vital []string
	for _, l := range config.Missing(kconfig.LabNeeds()) {
		if l.Vital {
			vital = append(vital, l.String())
		} else {
			lacks = append(lacks, l.String())
		}
	}
	if len(vital) > 0 {
		e := blame.New(blame.Kernel, "use "+k.Release, errors.New("it was built without what the lab needs"))
		e.Look = vital
		return nil, e
	}
	return lacks, nil
}

// compilerName returns the command in a kernel's CONFIG_CC_VERSION_TEXT.
func compilerName(text string) string {
	name, _, _ := strings.Cut(text, " ")
	return name
}

func (r *run) doModule(ctx context.Context) (outcome, error) {
	b := &kmod.Builder{Store: r.store, Log: r.Log}
	var err error
	r.module, err = b.Build(ctx, r.kernel, modules.FS, r.scenario.Module)
	if r.module != nil && len(r.module.Log) > 0 {
		if werr := os.WriteFile(filepath.Join(r.dir, "build.log"), r.module.Log, 0o666); werr != nil && err == nil {
			err = blame.New(blame.Infrastructure, "keep the build log", werr)
		}
	}
	if err != nil {
		return outcome{}, stageError(blame.Kernel, "build the module "+r.scenario.Module, err)
	}
	note := r.scenario.Module + ".ko"
	ko, err := os.ReadFile(r.module.KO)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, note), ko, 0o666)
	}
	if err != nil {
		return outcome{}, blame.New(blame.Infrastructure, "keep the module beside the dump", err)
	}
	if len(r.module.Warnings) > 0 {
		note += "; " + strings.Join(r.module.Warnings, "; ")
	}
	return outcome{note, r.module.Cached}, nil
}

func (r *run) doImage(ctx context.Context) (outcome, error) {
	config, err := kconfig.ReadFile(r.kernel.Config)
	if err != nil {
		return outcome{}, blame.New(blame.Kernel, "read the kernel's configuration", err)
	}
	job := wire.FirstJob{
		Workload: wire.DefaultWorkload(),
		Truth:    wire.DefaultTruth(),
		Kexec:    &wire.Kexec{Cmdline: captureCmdline(config), MinCrashSize: minCrashSize},
		Trigger:  wire.Trigger{Kind: wire.TriggerKind(r.scenario.Trigger), Sysctl: r.scenario.Sysctl},
	}
	ko := ""
	if r.module != nil {
		ko = r.module.KO
	}
	if r.images, err = buildImages(ctx, r.store, r.Root, r.kernel, job, ko); err != nil {
		return outcome{}, err
	}
	fi, err := os.Stat(r.images.first)
	if err != nil {
		return outcome{}, blame.New(blame.Infrastructure, "read the initramfs", err)
	}
	return outcome{fmt.Sprintf("%.1f MB", float64(fi.Size())/1e6), r.images.cached}, nil
}

func (r *run) doBoot(ctx context.Context) (outcome, error) {
	binary, err := findQEMU(r.Settings.QEMU)
	if err != nil {
		return outcome{}, err
	}
	g := r.scenario.Guest
	r.crash, err = newCrash(crashSpec{
		dir: r.dir, binary: binary, accel: r.probe.Accel, cpus: g.CPUs, memoryMiB: g.MemoryMiB,
		kernel: r.kernel.Image, initrd: r.images.first, crashkernel: g.Crashkernel, cmdline: g.Cmdline,
		truth: true, nmi: r.scenario.Trigger == scenarios.TriggerNMI, timeouts: r.scenario.Timeouts,
	})
	if err != nil {
		return outcome{}, err
	}
	note, err := r.crash.boot(ctx, r.Log, filepath.Join(r.dir, consoleFile), r.console())
	return outcome{note: note}, err
}

// console returns where the guest's console is shown live, if it is.
func (r *run) console() io.Writer {
	if !r.Settings.Verbose {
		return nil
	}
	return consoleWriter{r.UI}
}

// consoleWriter shows each line written to it.
type consoleWriter struct{ ui *ui.UI }

func (w consoleWriter) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		w.ui.Console(strings.TrimRight(line, "\n"))
	}
	return len(b), nil
}

func (r *run) doArm(ctx context.Context) (outcome, error) {
	note, err := r.crash.arm(ctx)
	return outcome{note: note}, err
}

func (r *run) doTrigger(ctx context.Context) (outcome, error) {
	note, err := r.crash.trigger(ctx)
	return outcome{note: note}, err
}

func (r *run) doCapture(ctx context.Context) (outcome, error) {
	note, err := r.crash.capture(ctx)
	return outcome{note: note}, err
}

// The files of a run's folder.
const (
	consoleFile = "console.log"
	vmcoreFile  = "vmcore"
	truthDir    = "truth"
)

func (r *run) doVMCore(ctx context.Context) (outcome, error) {
	st, err := writeVMCore(ctx, r.crash.captureDisk, filepath.Join(r.dir, vmcoreFile))
	if err != nil {
		return outcome{}, err
	}
	if err := extractTruth(r.crash.truthDisk, filepath.Join(r.dir, truthDir)); err != nil {
		return outcome{}, err
	}
	for _, disk := range []string{r.crash.captureDisk, r.crash.truthDisk} {
		if err := os.Remove(disk); err != nil {
			return outcome{}, blame.New(blame.Infrastructure, "remove the guest's disk", err)
		}
	}
	note := fmt.Sprintf("%.1f MB (zstd, own writer): %d of %d pages, %d were free",
		float64(st.Bytes)/1e6, st.Stored, st.Pages, st.Free)
	return outcome{note: strings.Join(append([]string{note}, st.Warnings...), "; ")}, nil
}

// extractTruth writes the files that the guest recorded about itself below dir.
func extractTruth(disk, dir string) error {
	files, err := wire.ReadTruth(disk)
	if err != nil {
		return blame.New(blame.Kernel, "receive the guest's own view of itself", err)
	}
	if err := files.Extract(dir); err != nil {
		return blame.New(blame.Infrastructure, "keep the guest's own view of itself", err)
	}
	return nil
}
