package pricing

import (
	"strings"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/text/unicode/norm"
)

// fold removes what an upstream may ignore in letters: their case, and whether
// an accent is part of a letter or follows it (file systems of macOS ignore
// both). Patterns and paths are compared folded. Bytes that are no UTF-8 stay.
func fold(s string) string {
	upper := -1 // the first one
	for i := range len(s) {
		c := s[i]
		if c >= utf8.RuneSelf {
			return foldUnicode(s)
		}
		if 'A' <= c && c <= 'Z' && upper < 0 {
			upper = i
		}
	}
	if upper < 0 {
		return s
	}
	low := []byte(s)
	for i := upper; i < len(low); i++ {
		if c := low[i]; 'A' <= c && c <= 'Z' {
			low[i] = c + 'a' - 'A'
		}
	}
	return unsafe.String(&low[0], len(low)) //nolint:gosec // nobody else has low
}

// foldShort is fold without an allocation, for paths that fit into buf: most
// requests cost nothing, and should cost no more for being asked about. The
// result is gone with buf.
func foldShort(buf *[256]byte, s string) string {
	if len(s) > len(buf) {
		return fold(s)
	}
	upper := false
	for i := range len(s) {
		c := s[i]
		if c >= utf8.RuneSelf {
			return foldUnicode(s)
		}
		if 'A' <= c && c <= 'Z' {
			upper = true
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	if !upper {
		return s
	}
	return unsafe.String(&buf[0], len(s)) //nolint:gosec // nobody writes to buf while the string is used
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
