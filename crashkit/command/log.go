package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"crashlab/crashkit/kernel"
)

func logCommand() *Command {
	return &Command{
		Name:    "log",
		Aliases: []string{"dmesg"},
		Summary: "show the kernel log",
		Flags: []Flag{
			{"t", "", "without time stamps"},
			{"T", "", "with the wall-clock time, UTC, instead of seconds since boot"},
			{"m", "", "with the level of each record, <0> to <7>"},
			{"c", "", "with the thread or CPU that wrote each record"},
		},
		Help: "Shows the records of the kernel's log buffer, oldest first. Further lines of one record are indented under its " +
			"first. With -T, times are as exact as the difference between the clock of printk and the wall clock at the crash.",
		Examples: []string{"log -m", "log -T"},
		run:      showLog,
	}
}

// logResult is the kernel log.
type logResult struct {
	Records []kernel.LogRecord `json:"records"`
	// Boot is the wall-clock time at which the log's clock was 0.
	Boot *time.Time `json:"boot,omitempty"`

	noTime, level, caller bool
}

func showLog(_ context.Context, env *Env, args *Args) (Result, error) {
	if args.Has("t") && args.Has("T") {
		return nil, args.usage("-t and -T exclude each other")
	}
	records, err := kernel.Log(env.Program)
	if len(records) == 0 {
		return nil, err
	}
	r := &logResult{Records: records, noTime: args.Has("t"), level: args.Has("m"), caller: args.Has("c")}
	if args.Has("T") {
		sys := kernel.Sys(env.Program)
		if sys.CrashTime.IsZero() || sys.Uptime == 0 {
			return r, fmt.Errorf("the dump does not say when the kernel booted: %w", sys.Problems.Err())
		}
		boot := sys.CrashTime.Add(-sys.Uptime)
		r.Boot = &boot
	}
	return r, err
}

// crashTimeLayout is how crash writes a time.
const crashTimeLayout = "Mon Jan _2 15:04:05 MST 2006"

// WriteText implements Result.
func (r *logResult) WriteText(t *Text) {
	for _, rec := range r.Records {
		prefix := ""
		switch {
		case r.Boot != nil:
			prefix = "[" + r.Boot.Add(time.Duration(rec.TimeNS)).UTC().Format(crashTimeLayout) + "] "
		case !r.noTime:
			prefix = fmt.Sprintf("[%5d.%06d] ", rec.TimeNS/1e9, rec.TimeNS%1e9/1e3)
		}
		if r.caller {
			prefix += fmt.Sprintf("[%6s] ", rec.Caller)
		}
		if r.level {
			prefix += fmt.Sprintf("<%d>", rec.Level)
		}
		for i, line := range strings.Split(rec.Text, "\n") {
			if i > 0 {
				prefix = strings.Repeat(" ", len(prefix))
			}
			t.String(prefix + safe(line) + "\n")
		}
	}
}
