package study

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The drawing's measures in pixels.
const (
	svgWidth   = 760
	labelWidth = 190 // of the column of labels
	rowHeight  = 34
	barHeight  = 18
	axisHeight = 30
	valueRoom  = 210 // right of the longest bar, for its number
)

// svg draws a chart: a bar up to the median of each point, hatched so that it
// reads in black and white, a line from the least to the greatest value, and the
// number in words.
func svg(c Chart) string {
	top := 0.0
	for _, p := range c.Points {
		_, hi := p.Range()
		top = max(top, hi)
	}
	tick := step(top)
	scale := 0.0
	if top > 0 {
		scale = (svgWidth - labelWidth - valueRoom) / top
	}
	x := func(v float64) float64 { return labelWidth + v*scale }
	height := rowHeight*len(c.Points) + axisHeight

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`, svgWidth, height, html.EscapeString(c.Title))
	b.WriteString(`<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">` +
		`<rect width="6" height="6" fill="#d7e3f4"/><line x1="0" y1="0" x2="0" y2="6" stroke="#1f4e8c" stroke-width="3"/></pattern></defs>`)
	bottom := rowHeight * len(c.Points)
	if top > 0 {
		for v := 0.0; v <= top*1.0001; v += tick {
			fmt.Fprintf(&b, `<line x1="%.1f" y1="0" x2="%.1f" y2="%d" class="grid"/>`, x(v), x(v), bottom)
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" class="axis">%s</text>`, x(v), bottom+18, trimmed(v))
		}
	}
	for i, p := range c.Points {
		y := rowHeight * i
		mid := y + rowHeight/2
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" class="label">%s</text>`, labelWidth-10, mid+5, html.EscapeString(p.Label))
		end := x(0)
		if v, ok := p.Median(); ok {
			fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" class="bar"/>`, x(0), mid-barHeight/2, max(v*scale, 1), barHeight)
			lo, hi := p.Range()
			if hi > lo {
				fmt.Fprintf(&b, `<path d="M%.1f %dH%.1fM%.1f %dv12M%.1f %dv12" class="range"/>`, x(lo), mid, x(hi), x(lo), mid-6, x(hi), mid-6)
			}
			end = x(hi)
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" class="value">%s</text>`, end+8, mid+5, html.EscapeString(p.text(c.Unit)))
	}
	b.WriteString(`</svg>`)
	return b.String()
}

// step returns the distance of the axis's ticks: 1, 2 or 5 times a power of ten,
// so that there are 3 to 8 of them up to top.
func step(top float64) float64 {
	if top <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(top)))
	switch n := top / unit; {
	case n < 1.5:
		return unit / 5
	case n < 4:
		return unit / 2
	}
	return unit
}

func trimmed(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", v), "0"), ".")
}
