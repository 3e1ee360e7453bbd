package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
)

// writeJSON writes v on lines of its own, for one object, or else on one line.
func writeJSON(w io.Writer, v any) error { return writeAs(w, v, "  ") }

func writeJSONLine(w io.Writer, v any) error { return writeAs(w, v, "") }

func writeAs(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escaped(b.Bytes()))
	return err
}

// escaped is text in JSON in which what a terminal may carry out beyond ASCII is escaped, too:
// control characters of the second kind, and marks that turn the direction of writing.
func escaped(text []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(text) {
		switch {
		case r == 0x7f || r > 0x7f && !unicode.IsPrint(r):
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.Bytes()
}
