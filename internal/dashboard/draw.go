package main

import (
	"fmt"
	"image/color"
	"os"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const columns = 2

// draw writes the panels as a picture.
func draw(name string, panels []panel, length time.Duration) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	rows := (len(panels) + columns - 1) / columns
	plots := make([][]*plot.Plot, rows)
	for i := range plots {
		plots[i] = make([]*plot.Plot, columns)
	}
	for i, p := range panels {
		one, err := p.plot(length)
		if err != nil {
			return err
		}
		plots[i/columns][i%columns] = one
	}
	const note = 22
	width, height := vg.Points(900), vg.Points(float64(190*rows+note))
	canvas := vgsvg.New(width, height)
	whole := vgdraw.New(canvas)
	whole.SetColor(color.White)
	whole.Fill(whole.Rectangle.Path())
	style := plot.New().Title.TextStyle
	style.Font.Size = vg.Points(9)
	style.XAlign, style.YAlign = text.XLeft, text.YTop
	whole.FillText(style, vg.Point{X: vg.Points(10), Y: height - vg.Points(6)}, fmt.Sprintf(
		"A real run of %s min, in which the Redis hung for 20 s after %s min. Drawn from Prometheus' answers to the dashboard's queries; not a picture of Grafana.",
		minutes(length.Seconds()), minutes(length.Seconds()/2)))
	tiles := vgdraw.Tiles{Rows: rows, Cols: columns, PadX: vg.Points(20), PadY: vg.Points(14),
		PadTop: vg.Points(note), PadBottom: vg.Points(6), PadLeft: vg.Points(6), PadRight: vg.Points(14)}
	for i, row := range plot.Align(plots, tiles, whole) {
		for j, c := range row {
			if plots[i][j] != nil {
				plots[i][j].Draw(c)
			}
		}
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		return err
	}
	return f.Close()
}

func (p panel) plot(length time.Duration) (*plot.Plot, error) {
	all := plot.New()
	all.Title.Text = p.title
	all.Title.TextStyle.Font.Size = vg.Points(10)
	all.Legend.Top, all.Legend.Left = true, true
	all.Legend.TextStyle.Font.Size = vg.Points(8)
	all.X.Min, all.X.Max = 0, length.Seconds()
	all.Y.Min = 0
	all.X.Tick.Marker = plot.TickerFunc(func(from, to float64) []plot.Tick {
		var ticks []plot.Tick
		for at := 0.; at <= to; at += length.Seconds() / 8 {
			ticks = append(ticks, plot.Tick{Value: at, Label: minutes(at)})
		}
		return ticks
	})
	if p.unit == "s" {
		all.Y.Label.Text = "seconds"
		all.Y.Label.TextStyle.Font.Size = vg.Points(8)
	}
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = color.Gray{Y: 225}
	all.Add(grid)
	top := 0.
	for i, l := range p.lines {
		points := make(plotter.XYs, len(l.points))
		for j, at := range l.points {
			points[j].X, points[j].Y = at[0], at[1]
			top = max(top, at[1])
		}
		drawn, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		drawn.Color = plotutil.Color(i)
		drawn.Width = vg.Points(1)
		all.Add(drawn)
		all.Legend.Add(l.legend, drawn)
	}
	if top == 0 {
		top = 1
	}
	all.Y.Max = top * 1.6 // room for the legend
	return all, nil
}
