package pricing

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// fold removes what an upstream may ignore in letters: their case, and whether
// an accent is part of a letter or follows it (file systems of macOS ignore
// both). Patterns and paths are compared folded. Bytes that are no UTF-8 stay.
func fold(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return foldUnicode(s)
		}
	}
	return strings.ToLower(s)
}

func foldUnicode(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n <= 1 {
			b.WriteByte(s[i])
			i++
			continue
		}
		b.WriteRune(foldRune(r))
		i += n
	}
	return norm.NFC.String(b.String())
}

// foldRune goes through upper case first, because that joins letters with
// several lower-case forms, such as s and the long s.
func foldRune(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }
