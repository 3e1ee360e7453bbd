package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// quote makes anybody's bytes fit for a line on a terminal, in quotation marks: an escape sequence
// in a key would otherwise be carried out by the terminal that shows it.
func quote(s string) string {
	const most = 200
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(cut(s, most)) + "… (" + strconv.Itoa(len(s)) + " bytes)"
}

// cut is s, or what of it fits into most bytes without a half of a character.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	at := most
	for at > most-utf8.UTFMax && !utf8.RuneStart(s[at]) {
		at--
	}
	return s[:at]
}

// plain is s as it is where that is harmless and cannot be mistaken, and else quoted.
func plain(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || r == '"' || r == utf8.RuneError }) ||
		strings.TrimSpace(s) != s || strings.HasPrefix(s, "-") {
		return strconv.Quote(s)
	}
	return s
}

// short is d as people say it.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		s := d.Round(time.Second).String()
		if strings.HasSuffix(s, "m0s") {
			s = strings.TrimSuffix(s, "0s")
		}
		if strings.HasSuffix(s, "h0m") {
			s = strings.TrimSuffix(s, "0m")
		}
		return s
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}

// clean is text of a server's without what a terminal would carry out.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && r != ' ' {
			return '\uFFFD'
		}
		return r
	}, s)
}
