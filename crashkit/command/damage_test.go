package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"crashlab/crashkit"
	"crashlab/crashkit/addr"
	"crashlab/crashkit/dump"
	"crashlab/crashkit/internal/fixture"
)

// writerAt is a file in memory.
type writerAt []byte

func (w *writerAt) WriteAt(b []byte, off int64) (int, error) {
	if end := int(off) + len(b); end > len(*w) {
		*w = append(*w, make([]byte, end-len(*w))...)
	}
	return copy((*w)[off:], b), nil
}

// plain returns the dump in a file with its pages uncompressed, so that damage
// to the file is damage to memory and not to a compressed page, and without a
// part of its pages.
func plain(t *testing.T, whole []byte, dropped func(addr.PFN) bool) []byte {
	t.Helper()
	img, err := dump.NewImage(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	cfg := dump.ConfigOf(img)
	cfg.Workers = 1
	there := cfg.Keep
	cfg.Keep = func(pfn addr.PFN) bool { return there(pfn) && !dropped(pfn) }
	var file writerAt
	if _, err := dump.Write(t.Context(), &file, cfg, img); err != nil {
		t.Fatal(err)
	}
	return file
}

// damageCommands read as much as can be read.
var damageCommands = []string{
	"sys", "log -T", "ps", "ps -p 1", "ps -c", "mod -t", "mod", "bt -a", "foreach bt", "bt 1", "bt 0", "sym -M", "sym panic", "sym -n panic",
	"struct task_struct init_task", "struct -o page", "dis -r schedule+20", "rd -s modules 64",
	// Of the NULL pointer dereference in a module alone:
	"ps -p 350", "sym -n ffffffffc0598016", "struct module ffffffffc059a040", "struct task_struct ff12c08f1fd40000", "dis hello_crash",
}

// TestDamage runs commands on real dumps with bytes changed, the end cut off or
// pages left out. They may answer what they like, but they must answer, in
// bounded time and memory, and what is missing must be an error.
func TestDamage(t *testing.T) {
	dumps, err := filepath.Glob(filepath.Join(filepath.Dir(fixture.Path(t, fixture.NullDeref)), "*.vmcore"))
	if err != nil || len(dumps) == 0 {
		t.Fatalf("no dumps to damage: %v", err)
	}
	var whole [][]byte
	for _, path := range dumps {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, plain(t, b, func(addr.PFN) bool { return false }))
	}
	for _, name := range fixture.Generations() {
		dumps = append(dumps, name)
		whole = append(whole, fixture.Generation(t, name))
	}
	rounds := 8 * len(dumps) // eight kinds of damage to each
	if s := os.Getenv("CRASHKIT_DAMAGE_ROUNDS"); s != "" {
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for round := range rounds {
		r := rand.New(rand.NewPCG(1, uint64(round)))
		which := round / 8 % len(dumps)
		file := bytes.Clone(whole[which])
		damage := func() {
			for range 1 << r.IntN(14) {
				// In runs, as damage to a pointer does more harm than to a number.
				at := r.IntN(len(file))
				for i := range 1 + r.IntN(8) {
					file[(at+i)%len(file)] = byte(r.Uint32())
				}
			}
		}
		name := strings.TrimSuffix(filepath.Base(dumps[which]), ".vmcore")
		t.Run(fmt.Sprintf("%d/%s", round, name), func(t *testing.T) {
			switch round % 8 {
			case 0: // before it is opened: symbols and types are mostly lost
				damage()
				runAll(t, file, func() {})
			case 1:
				runAll(t, file[:r.IntN(len(file))], func() {})
			case 2:
				one := 1 << r.IntN(10) // of so many pages is lost
				runAll(t, plain(t, whole[which], func(addr.PFN) bool { return r.IntN(one) == 0 }), func() {})
			default: // when symbols and types have been read
				runAll(t, file, damage)
			}
		})
	}
}

func runAll(t *testing.T, file []byte, opened func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	img, err := dump.NewImage(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return // an error is all that is asked for
	}
	defer img.Close()
	p, err := crashkit.New(img)
	if err != nil {
		return
	}
	opened()
	env := NewEnv(p, "damaged")
	for _, line := range damageCommands {
		a := Run(ctx, env, line)
		if a.Err == nil && a.Result == nil {
			t.Errorf("%s: neither answer nor error", line)
		}
		if a.Result != nil {
			text(t, a.Result)
			if _, err := json.Marshal(a); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	if ctx.Err() != nil {
		t.Errorf("the commands took more than 30 s")
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 2048 {
		t.Errorf("%d MB allocated", n)
	}
}
