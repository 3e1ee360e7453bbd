package main

import (
	"io"
	"strings"
	"unicode/utf8"
)

// table writes rows with aligned columns.
type table struct {
	head    []string
	give    []bool // which columns may be cut where the line is too long
	spare   []int  // which are left out if that is not enough, in this order
	columns int    // of the terminal; 0 for a pipe, where nothing is cut
	headed  bool
}

const between = 2 // spaces between columns

// write writes rows, each time with the widths that they need. The names of the columns come once.
func (t *table) write(w io.Writer, rows [][]string) error {
	if !t.headed {
		rows = append([][]string{t.head}, rows...)
		t.headed = true
	}
	widths := t.widths(rows)
	var b strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if widths[i] == 0 {
				continue
			}
			n := utf8.RuneCountInString(cell)
			if n > widths[i] {
				cell, n = shorten(cell, widths[i]), widths[i]
			}
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i]-n+between))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *table) widths(rows [][]string) []int {
	widths := make([]int, len(t.head))
	sum := between * (len(t.head) - 1)
	for i := range widths {
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
		sum += widths[i]
	}
	spare := t.spare
	for t.columns > 0 && sum > t.columns {
		switch widest := t.widest(widths); {
		case widest >= 0:
			widths[widest]--
			sum--
		case len(spare) > 0:
			sum -= widths[spare[0]] + between
			widths[spare[0]] = 0
			spare = spare[1:]
		default:
			return widths
		}
	}
	return widths
}

// widest is the widest column that may still be cut, or -1.
func (t *table) widest(widths []int) int {
	const least = 8
	widest := -1
	for i := range widths {
		if t.give[i] && widths[i] > least && (widest < 0 || widths[i] > widths[widest]) {
			widest = i
		}
	}
	return widest
}

// shorten leaves the end out, and says so.
func shorten(s string, to int) string {
	runes := []rune(s)
	if len(runes) <= to {
		return s
	}
	return string(runes[:to-1]) + "…"
}
