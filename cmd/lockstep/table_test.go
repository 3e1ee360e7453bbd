package main

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTableFits(t *testing.T) {
	for _, columns := range []int{0, 36, 40, 80, 200} {
		tab := table{head: []string{"KEY", "HOLDER", "KIND", "TOKEN"}, give: []bool{true, true, false, false}, spare: []int{2}, columns: columns}
		var b strings.Builder
		rows := [][]string{
			{strings.Repeat("k", 60), "web-1:4711 billing", "lease", "1795642543298000"},
			{"short", strings.Repeat("ü", 90), "session", "1"},
		}
		if err := tab.write(&b, rows); err != nil {
			t.Fatal(err)
		}
		if err := tab.write(&b, rows); err != nil { // a second part has no second head
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != 5 {
			t.Errorf("%d columns: %d lines", columns, len(lines))
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); columns > 0 && n > columns {
				t.Errorf("%d columns: a line of %d: %q", columns, n, line)
			}
			if columns == 0 && strings.Contains(line, "…") {
				t.Errorf("a pipe gets a line that is cut: %q", line)
			}
		}
		if strings.Count(b.String(), "1795642543298000") != 2 {
			t.Errorf("%d columns: a token was cut:\n%s", columns, b.String())
		}
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"orders:42":        "orders:42",
		"a b":              "a b",
		"":                 `""`,
		" a":               `" a"`,
		"\x1b[2J":          `"\x1b[2J"`,
		"a\nb":             `"a\nb"`,
		"\xff":             `"\xff"`,
		"right\u202eleft":  `"right\u202eleft"`,
		`a"b`:              `"a\"b"`,
		"--token":          `"--token"`,
		"zero\u200bwidth":  `"zero\u200bwidth"`,
		"ключ":             "ключ",
		"\u0000":           `"\x00"`,
		"\ufffd":           `"�"`,
		"soft\u00adhyphen": `"soft\u00adhyphen"`,
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) is %s, want %s", in, got, want)
		}
	}
}
