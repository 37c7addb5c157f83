package commands

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds a foreign text on one line of ours.
const maxText = 1000

// clean makes a text that came from elsewhere fit for a terminal: one line,
// without the control characters that could move the cursor, recolour what we
// have written, or turn the direction of reading.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
