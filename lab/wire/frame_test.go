package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

var events = []Event{
	{Kind: EventHello, Stage: StageFirst, Seq: 1, Uptime: 1.5},
	{Kind: EventPhase, Stage: StageFirst, Seq: 2, Uptime: 1.6, Name: PhaseModules},
	{Kind: EventError, Stage: StageFirst, Seq: 3, Uptime: 1.7, Name: PhaseArm, Text: "kexec_file_load: \xc1\xabW operation not permitted", Errno: 1},
	{Kind: EventProgress, Stage: StageCapture, Seq: 4, Uptime: 2, Bytes: 1 << 40, Total: 1 << 41},
	{Kind: EventDone, Stage: StageCapture, Seq: 5, Uptime: 3, Text: strings.Repeat("long ", 1000)},
}

func encode(t testing.TB, events []Event) [][]byte {
	t.Helper()
	var out [][]byte
	for _, e := range events {
		b, err := AppendEvent(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func decode(r io.Reader) (got []Event, skipped int64, err error) {
	d := NewDecoder(r)
	for {
		e, err := d.Next()
		if err != nil {
			return got, d.Skipped(), err
		}
		got = append(got, e)
	}
}

// wantEvents is what JSON makes of bytes that are not UTF-8.
func wantEvents() []Event {
	want := append([]Event(nil), events...)
	want[2].Text = strings.ToValidUTF8(want[2].Text, "\ufffd\ufffd")
	return want
}

func TestDecoder(t *testing.T) {
	f := encode(t, events)
	all := bytes.Join(f, nil)
	want := wantEvents()
	damaged := bytes.Clone(all)
	damaged[len(f[0])+20] ^= 1 // inside the second frame
	for name, c := range map[string]struct {
		in      []byte
		want    []Event
		skipped int
	}{
		"clean":              {all, want, 0},
		"empty":              {nil, nil, 0},
		"boot noise":         {append([]byte("\x00\xffSeaBIOS\r\n"), all...), want, 11},
		"noise like a frame": {append([]byte(frameMagic+"\x05\x00\xfa\xff"), all...), want, 8},
		"between":            {bytes.Join(f, []byte("\xc1\xab")), want, 8},
		"damaged frame":      {damaged, append(append([]Event(nil), want[0]), want[2:]...), len(f[1])},
		"cut off":            {all[:len(all)-1], want[:4], len(f[4]) - 1},
		"lost bytes":         {append(bytes.Clone(f[0][:20]), bytes.Join(f[1:], nil)...), want[1:], 20},
	} {
		for _, r := range []io.Reader{bytes.NewReader(c.in), iotest.OneByteReader(bytes.NewReader(c.in))} {
			got, skipped, err := decode(r)
			if diff := cmp.Diff(c.want, got); diff != "" || !errors.Is(err, io.EOF) || skipped != int64(c.skipped) {
				t.Errorf("%s: decoded with error %v, %d bytes skipped, want %d (-want +got):\n%s", name, err, skipped, c.skipped, diff)
			}
		}
	}
}

func TestDecoderReturnsTheReadersError(t *testing.T) {
	f := encode(t, events[:1])
	broken := errors.New("broken")
	got, _, err := decode(io.MultiReader(bytes.NewReader(f[0]), iotest.ErrReader(broken)))
	if len(got) != 1 || !errors.Is(err, broken) {
		t.Errorf("decoded %d events with error %v; want 1 and %v", len(got), err, broken)
	}
}

// A good frame must be delivered before the next one arrives.
func TestDecoderDoesNotWait(t *testing.T) {
	f := encode(t, events[:1])
	r, w := io.Pipe()
	defer r.Close()
	go func() {
		_, _ = w.Write(append([]byte("noise"), f[0]...)) // and nothing more
	}()
	if e, err := NewDecoder(r).Next(); err != nil || e.Kind != EventHello {
		t.Errorf("Next() = %v, %v; want hello", e, err)
	}
}

func TestDecoderRandomDamage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	f := encode(t, events)
	want := wantEvents()
	for range 2000 {
		var in []byte
		var keep []Event
		for i, frame := range f {
			b := bytes.Clone(frame)
			if rnd.IntN(2) == 0 {
				b[rnd.IntN(len(b))] ^= byte(1 + rnd.IntN(255))
			} else {
				keep = append(keep, want[i])
			}
			in = append(in, b...)
		}
		got, _, err := decode(bytes.NewReader(in))
		if diff := cmp.Diff(keep, got); diff != "" || !errors.Is(err, io.EOF) {
			t.Fatalf("decoded with error %v (-want +got):\n%s", err, diff)
		}
	}
}

func TestAppendEventBoundsText(t *testing.T) {
	b, err := AppendEvent(nil, Event{Kind: EventError, Text: strings.Repeat("\x00", 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := decode(bytes.NewReader(b)); len(got) != 1 {
		t.Errorf("decoded %d events; want 1", len(got))
	}
}

func FuzzDecoder(f *testing.F) {
	for _, b := range encode(f, events) {
		f.Add(b, []byte("noise"))
	}
	good := encode(f, events[:1])[0]
	f.Fuzz(func(t *testing.T, a, b []byte) {
		in := append(append(bytes.Clone(a), good...), b...)
		got, skipped, err := decode(bytes.NewReader(in))
		if !errors.Is(err, io.EOF) {
			t.Fatalf("Next() = %v; want io.EOF", err)
		}
		if skipped < 0 || skipped > int64(len(in)) {
			t.Fatalf("Skipped() = %d of %d bytes", skipped, len(in))
		}
		_ = got
	})
}
