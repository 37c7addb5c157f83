package pricing

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Databases compare texts without accents and letter case: MySQL and MariaDB as they are
// installed find the article `quote` for `/articles/quôte` too. File systems and most other
// servers do not; so a path is looked up with its accents, and without.

// bareLetters are the letters that collations take for others, though Unicode takes none
// of them apart.
var bareLetters = map[rune]string{
	'ß': "ss", 'æ': "ae", 'œ': "oe", 'ø': "o", 'ł': "l", 'đ': "d", 'ð': "d", 'ħ': "h", 'ŧ': "t", 'ı': "i", 'þ': "th",
}

// bareTable holds what is left of the letters of Europe, where that is one character of
// ASCII; 0 stands for what takes longer.
var bareTable = func() (t [0x600]byte) {
	for r := range t {
		if s := bareSlowly(rune(r)); len(s) == 1 && s[0] < utf8.RuneSelf {
			t[r] = s[0]
		}
	}
	return t
}()

// barePlain are the other characters there that have no accents.
var barePlain = func() (t [0x600]bool) {
	for r := range t {
		t[r] = bareSlowly(rune(r)) == string(rune(r))
	}
	return t
}()

// bare is a folded text without accents and without what nobody sees, and says where the
// last of them ends; 0 if there are none.
func bare(s string) (text string, end int) {
	text, end, _ = bareLook(s)
	return text, end
}

// bareLook is bare, and says what it costs.
func bareLook(s string) (text string, end, work int) {
	var b strings.Builder
	done := 0 // up to here it is in b
	for i := 0; i < len(s); {
		if s[i] < utf8.RuneSelf {
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		work += highCost * n
		if keepsBare(r) || r == utf8.RuneError {
			i += n
			continue
		}
		if r < rune(len(bareTable)) && bareTable[r] != 0 {
			b.WriteString(s[done:i])
			b.WriteByte(bareTable[r])
		} else {
			left := s[i : i+n]
			if r >= rune(len(bareTable)) || !barePlain[r] {
				left = bareSlowly(r)
				work += nfcCost * n
			}
			if left == s[i:i+n] {
				i += n
				continue
			}
			b.WriteString(s[done:i])
			b.WriteString(left)
		}
		i += n
		done, end = i, i
	}
	if end == 0 {
		return s, 0, work
	}
	b.WriteString(s[done:])
	return b.String(), end, work
}

// keepsBare says of many characters that they have no accents.
func keepsBare(r rune) bool { return 0x3400 <= r && r < 0xa000 || 0xac00 <= r && r < 0xd7a4 }

// bareSlowly is what is left of one character.
func bareSlowly(r rune) string {
	if letters, ok := bareLetters[r]; ok {
		return letters
	}
	var b strings.Builder
	for _, part := range norm.NFD.String(string(r)) {
		if isMark(part) {
			continue
		}
		if letters, ok := bareLetters[part]; ok {
			b.WriteString(letters)
			continue
		}
		b.WriteRune(part)
	}
	return norm.NFC.String(b.String())
}

// isMark says whether collations leave a character out: an accent, a point, or what nobody
// sees. The signs for vowels in the scripts of India and its neighbours are letters to them.
func isMark(r rune) bool {
	if isIgnored(r) {
		return true
	}
	if !unicode.Is(unicode.Mn, r) {
		return false
	}
	switch norm.NFD.PropertiesString(string(r)).CCC() {
	case 0, 9, 84, 91, 103, 118, 129, 130, 132:
		return false
	}
	return true
}

// sameBare says whether two texts are the same to a collation that knows no accents.
func sameBare(a, b string) bool {
	if highBytes(a)+highBytes(b) == 0 {
		return false // they were compared
	}
	return bareText(a, "ss") == bareText(b, "ss") || bareText(a, "s") == bareText(b, "s")
}

// bareText is a text as collations compare it, by what they take `ß` for.
func bareText(s, sharpS string) string {
	text, _ := bare(strings.ReplaceAll(fold(norm.NFKC.String(s)), "ß", sharpS))
	return text
}
