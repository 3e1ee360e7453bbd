package peers

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Picture is an SVG: for each goal, how many times better (left) or worse (right) the figure
// is than the goal asks for.
func (r *Report) Picture() string {
	const (
		width, left, right = 1080, 560, 150
		line, heading      = 20, 34
		span               = 5.0 // the scale goes from 1/2^span to 2^span
	)
	plot := float64(width - left - right)
	x := func(distance float64) float64 {
		at := math.Log2(max(distance, 1e-9))
		return left + plot*(min(max(at, -span), span)+span)/(2*span)
	}

	var b strings.Builder
	y := 0
	text := func(x float64, anchor, style, content string) {
		fmt.Fprintf(&b, `<text x="%.0f" y="%d" text-anchor="%s"%s>%s</text>`+"\n", x, y, anchor, style, html.EscapeString(content))
	}
	const (
		bold = ` font-weight="bold"`
		gray = ` fill="#666"`
	)
	for _, section := range []string{"Memory", "Redis"} {
		y += heading
		text(12, "start", bold+` font-size="15"`, section)
		top := y
		text(x(0.5), "end", gray, "better than the goal")
		text(x(2), "start", gray, "worse")
		for _, result := range r.Results {
			if result.Scenario.Section != section {
				continue
			}
			y += line + 6
			text(12, "start", bold, result.Scenario.Name)
			for _, g := range result.Scenario.Goals {
				y += line
				f := g.figure(result)
				text(28, "start", "", g.String())
				if f.Missing != "" {
					text(left, "start", gray, "not measurable")
					continue
				}
				color := "#2a7f4f"
				if !f.Met {
					color = "#c4501b"
				}
				from, to := x(1), x(g.distance(f))
				fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="10" fill="%s"/>`+"\n", min(from, to), y-9, max(math.Abs(to-from), 2), color)
				text(width-right+12, "start", "", g.show(Figure{Value: f.Value, Low: f.Value, High: f.Value}))
			}
		}
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#333"/>`+"\n", x(1), top+6, x(1), y+6)
	}
	height := y + 24
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
<title>How far each figure is from its goal</title>
<rect width="%d" height="%d" fill="#fff"/>
%s</svg>
`, width, height, width, height, width, height, b.String())
}

// distance is 1 where the figure is just what the goal asks for, and more where it is worse.
func (g Goal) distance(f Figure) float64 {
	switch {
	case g.Limit == 0 && f.Value == 0:
		return 1
	case g.Limit == 0 || f.Value == 0 && g.Op == "≥":
		return math.Inf(1)
	case g.Op == "≤":
		return f.Value / g.Limit
	}
	return g.Limit / f.Value
}
