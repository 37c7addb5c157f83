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
	folded, _ := foldLook(s)
	return folded
}

// foldLook is fold, and says what it costs beside the bytes.
func foldLook(s string) (folded string, work int) {
	high := highBytes(s)
	if high == 0 {
		return fold(s), 0
	}
	folded, settled := composeSimply(s, foldRune)
	if settled {
		return folded, foldCost * high
	}
	if norm.NFC.IsNormalString(folded) {
		return folded, (foldCost + normCost) * high
	}
	return norm.NFC.String(folded), (foldCost + nfcCost) * high
}

// composeSimply changes characters by a function and joins what macOS takes apart:
// the letters of Korean syllables, and letters and their accents. It says whether
// nothing is left to compose.
func composeSimply(s string, by func(rune) rune) (composed string, settled bool) {
	const (
		firstL, lastL = 0x1100, 0x1112 // the leading consonants
		firstV, lastV = 0x1161, 0x1175 // the vowels
		firstT, lastT = 0x11a8, 0x11c2 // the consonants at the end
		syllables     = 0xac00
		vs, ts        = lastV - firstV + 1, lastT - firstT + 2
	)
	var b strings.Builder
	b.Grow(len(s))
	settled = true
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		i += max(n, 1)
		if r == utf8.RuneError && n <= 1 {
			b.WriteByte(s[i-1])
			settled = false
			continue
		}
		r = by(r)
		if firstL <= r && r <= lastL {
			if v, n := utf8.DecodeRuneInString(s[i:]); firstV <= v && v <= lastV {
				i += n
				r = syllables + ((r-firstL)*vs+v-firstV)*ts
				if t, n := utf8.DecodeRuneInString(s[i:]); firstT <= t && t <= lastT {
					i += n
					r += t - firstT + 1
				}
			}
		}
		if i < len(s) && s[i] >= utf8.RuneSelf {
			mark, n := utf8.DecodeRuneInString(s[i:])
			if joined, ok := accents[[2]rune{r, mark}]; ok {
				r = joined
				i += n
			}
		}
		settled = settled && isSettled(r)
		b.WriteRune(r)
	}
	return b.String(), settled
}

// isSettled says of many characters that they are composed, in their compatible
// form, and join nothing before them: a text of such characters is normal. To look
// that up elsewhere takes ten times as long.
func isSettled(r rune) bool {
	switch {
	case 0 <= r && r < rune(len(settledTable)):
		return settledTable[r]
	case 0x4e00 <= r && r < 0xa000, 0xac00 <= r && r < 0xd7a4, 0x3041 <= r && r < 0x3097, 0x30a1 <= r && r < 0x30fb:
		return true // Han, Korean syllables and kana
	}
	return false
}

// isSettledText says of many texts that they are normal.
func isSettledText(s string) bool {
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError || !isSettled(r) {
			return false
		}
		i += n
	}
	return true
}

var settledTable = func() (t [0x600]bool) {
	for r := range t {
		s := string(rune(r))
		t[r] = norm.NFKC.IsNormalString(s) && norm.NFKC.PropertiesString(s).BoundaryBefore()
	}
	return t
}()

// accents are the characters that a letter and an accent make together.
var accents = func() map[[2]rune]rune {
	joined := make(map[[2]rune]rune)
	add := func(from, to rune) {
		for r := from; r < to; r++ {
			parts := []rune(norm.NFD.String(string(r)))
			if len(parts) == 2 && norm.NFC.String(string(parts)) == string(r) {
				joined[[2]rune(parts)] = r
			}
		}
	}
	add(0, 0x600)
	add(0x3041, 0x30fb) // kana
	return joined
}()

// foldRune goes through upper case first, because that joins letters with
// several lower-case forms, such as s and the long s.
func foldRune(r rune) rune {
	switch {
	case 0 <= r && r < rune(len(foldTable)):
		return foldTable[r]
	case 0x2e80 <= r && r < 0xa640, 0xac00 <= r && r < 0xd800:
		return r // the scripts of East Asia have no letter case
	}
	return foldSlowly(r)
}

func foldSlowly(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }

// foldTable holds the letters of Europe.
var foldTable = func() (t [0x600]rune) {
	for r := range t {
		t[r] = foldSlowly(rune(r))
	}
	return t
}()
