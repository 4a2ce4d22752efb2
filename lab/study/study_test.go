package study

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sample() *Study {
	return &Study{
		Name: "sample", Title: "What a choice costs", Question: "Is <a> better than b?", Answer: "b is.",
		How: []string{"Measured twice."}, Made: time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC),
		Charts: []Chart{
			{Title: "Size", Unit: "MB", Points: []Point{{Label: "<a>", Values: []float64{12, 10, 11}}, {Label: "b", Values: []float64{2}}}},
			{Title: "Time", Unit: "ms", Points: []Point{{Label: "<a>", Note: "did not boot"}, {Label: "b", Values: []float64{250, 150}}}},
		},
	}
}

func TestWriteText(t *testing.T) {
	var b strings.Builder
	if err := sample().WriteText(&b); err != nil {
		t.Fatal(err)
	}
	want := `     Size                    Time
<a>  11.0 MB (10.0 to 12.0)  did not boot
b    2.00 MB                 200 ms (150 to 250)

b is.

Measured twice.
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("WriteText (-want +got):\n%s", diff)
	}
}

// TestWriteHTML wants a page whose charts are well-formed and where nothing that
// was measured became markup.
func TestWriteHTML(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"Is &lt;a&gt; better", "11.0 MB (10.0 to 12.0)", "did not boot", "25 November 2026"} {
		if !strings.Contains(b.String(), s) {
			t.Errorf("the page has no %q", s)
		}
	}
	if strings.Contains(b.String(), "<a>") {
		t.Error("a label became markup")
	}
	for _, c := range sample().Charts {
		d := xml.NewDecoder(strings.NewReader(svg(c)))
		for {
			_, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("the drawing of %s: %v", c.Title, err)
			}
		}
	}
}

// TestSVG measures the drawing: bars are as long as the numbers are large.
func TestSVG(t *testing.T) {
	var widths []float64
	d := xml.NewDecoder(strings.NewReader(svg(sample().Charts[0])))
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := tok.(xml.StartElement)
		if !ok || e.Name.Local != "rect" {
			continue
		}
		r := struct{ class, width string }{}
		for _, a := range e.Attr {
			switch a.Name.Local {
			case "class":
				r.class = a.Value
			case "width":
				r.width = a.Value
			}
		}
		if r.class == "bar" {
			var v float64
			for _, c := range strings.Split(r.width, ".")[0] {
				v = 10*v + float64(c-'0')
			}
			widths = append(widths, v)
		}
	}
	if len(widths) != 2 || widths[0]/widths[1] < 5.4 || widths[0]/widths[1] > 5.6 {
		t.Errorf("the bars of 11 and 2 are %v wide", widths)
	}
}

func TestDifferentChoices(t *testing.T) {
	s := sample()
	s.Charts[1].Points = s.Charts[1].Points[:1]
	if err := s.WriteText(io.Discard); err == nil {
		t.Error("WriteText of charts with different choices succeeded")
	}
	if err := s.WriteHTML(io.Discard); err == nil {
		t.Error("WriteHTML of charts with different choices succeeded")
	}
}
