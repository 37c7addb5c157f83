package pricing

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A number has many spellings, and code that looks for one takes all that its language
// reads so: Django and Flask have the article 7 at `/articles/07` and `/articles/٧`, Spring
// at `/articles/0x7`, `/articles/#7` and `/articles/+7`. How it is written says nothing
// then, in a path or in a query.

// numbers are the numbers that a text may be, written plainly: in decimals, without zeros
// that change nothing. There are three at most.
type numbers struct {
	list [3]string
	n    int
}

func (n *numbers) add(number string) {
	if slices.Contains(n.list[:n.n], number) {
		return
	}
	if n.n < len(n.list) {
		n.list[n.n] = number
		n.n++
	}
}

func (n *numbers) all() []string { return n.list[:n.n] }

// has says whether both texts may be one number.
func (n *numbers) has(number string) bool {
	return slices.Contains(n.all(), number)
}

// isPlainNumber says whether a text is a whole number without a zero before it: there is one
// way to read that.
func isPlainNumber(s string) bool {
	if s == "" || s[0] == '0' && len(s) > 1 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// plainDecimal reads most numbers that have a point, or a few digits, and copies nothing.
func plainDecimal(s string) (number string, ok bool) {
	if s == "" || len(s) > 15 {
		return "", false
	}
	point := -1
	for i := range len(s) {
		switch {
		case '0' <= s[i] && s[i] <= '9':
		case s[i] == '.' && point < 0 && i > 0:
			point = i
		default:
			return "", false
		}
	}
	if point < 0 {
		return s, s[0] != '0' || len(s) == 1
	}
	s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	for len(s) > 1 && s[0] == '0' && s[1] != '.' {
		s = s[1:]
	}
	return s, true
}

// isNumber says whether somebody who writes a text means a number: `7`, `-7`, `07`, `1.5`.
func isNumber(s string) bool {
	whole, fraction, point := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	return whole != "" && strings.Trim(whole+fraction, "0123456789") == "" && point == (fraction != "")
}

// mayBeNumber says of most texts that they are none, by their first character.
func mayBeNumber(s string) bool {
	if s == "" {
		return false
	}
	c := s[0]
	return '0' <= c && c <= '9' || c >= utf8.RuneSelf || c <= ' ' || c == '+' || c == '-' || c == '.' || c == '#'
}

// numbersIn reads a text as a number in every way that the languages of servers have: with
// signs, zeros and space around (all), digits of any script (Java, Python), spaces and
// underscores between them (Spring, Python), an exponent, a base (`0x7`; `#7` in Spring;
// `010` in C and Go), and the letter at the end of a fraction in Java. A text that only begins
// with a number is none, although PHP and parseInt take it for one: see couldBeNumber.
func numbersIn(s string) (n numbers) {
	if number, ok := plainDecimal(s); ok {
		n.add(number)
		return n
	}
	if !mayBeNumber(s) {
		return n
	}
	s = plainDigits(s)
	if s == "" {
		return n
	}
	sign := ""
	if s[0] == '+' || s[0] == '-' {
		if s[0] == '-' {
			sign = "-"
		}
		s = s[1:]
	}
	if len(s) > 1 && (s[0] == '#' || s[0] == '0' && s[1]|0x20 >= 'a') {
		if number, ok := withBase(s); ok {
			n.add(signed(sign, number))
		}
		return n
	}
	number, digits, ok := decimal(s)
	if !ok {
		return n
	}
	n.add(signed(sign, number))
	if len(s) > 1 && s[0] == '0' {
		if octal, err := strconv.ParseUint(s, 8, 64); err == nil {
			n.add(signed(sign, strconv.FormatUint(octal, 10)))
		}
	}
	if digits > 15 { // more than a floating-point number holds
		if f, err := strconv.ParseFloat(number, 64); err == nil && f < 1<<63 {
			n.add(signed(sign, strconv.FormatFloat(f, 'f', -1, 64)))
		}
	}
	return n
}

func signed(sign, number string) string {
	if number == "0" {
		return number
	}
	return sign + number
}

// plainDigits leaves out space, underscores and what cannot be seen, and writes the digits of
// other scripts as those of ASCII. It is empty where something else is left that is not ASCII.
func plainDigits(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for _, r := range s {
		switch {
		case r < utf8.RuneSelf:
			if r > ' ' && r != 0x7f && r != '_' {
				b.WriteByte(byte(r))
			}
		case unicode.IsSpace(r), isIgnored(r):
		case unicode.Is(unicode.Nd, r):
			b.WriteByte('0' + digitOf(r))
		default:
			return ""
		}
	}
	return b.String()
}

// digitOf is the value of a digit: those of a script come in one row, from nought on, and
// some rows follow others.
func digitOf(r rune) byte {
	n := 0
	for unicode.Is(unicode.Nd, r-1) {
		r--
		n++
	}
	return byte(n % 10) //nolint:gosec // it is less than ten
}

// isIgnored says of a character that nobody sees it.
func isIgnored(r rune) bool {
	return unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// withBase reads a number that says its base.
func withBase(s string) (string, bool) {
	base, digits := 16, s[1:]
	if s[0] == '0' {
		digits = s[2:]
		switch s[1] | 0x20 {
		case 'x':
		case 'o':
			base = 8
		case 'b':
			base = 2
		default:
			return exponentOfZero(s)
		}
	}
	value, err := strconv.ParseUint(strings.TrimLeft(digits, "0"), base, 64)
	if digits != "" && strings.Trim(digits, "0") == "" {
		return "0", true
	}
	return strconv.FormatUint(value, 10), err == nil
}

// exponentOfZero is for `0e7`, which begins like a number with a base.
func exponentOfZero(s string) (string, bool) {
	number, _, ok := decimal(s)
	return number, ok
}

// maxExponent is how far the point of a number is moved: as far as a float64 reaches.
const maxExponent = 330

// decimal reads digits with a point, an exponent and, in Java, a letter behind them. It says
// how many digits count.
func decimal(s string) (number string, digits int, ok bool) {
	if s == "" {
		return "", 0, false
	}
	if last := s[len(s)-1] | 0x20; last == 'd' || last == 'f' {
		s = s[:len(s)-1]
	}
	mantissa, exponent := s, 0
	if at := strings.IndexAny(s, "eE"); at >= 0 {
		e, err := strconv.Atoi(s[at+1:])
		if err != nil || e < -maxExponent || e > maxExponent {
			return "", 0, false
		}
		mantissa, exponent = s[:at], e
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if whole+fraction == "" || strings.Trim(whole, "0123456789") != "" || strings.Trim(fraction, "0123456789") != "" {
		return "", 0, false
	}
	all := whole + fraction
	point := len(whole) + exponent
	if point < 0 {
		all, point = strings.Repeat("0", -point)+all, 0
	}
	if missing := point - len(all); missing > 0 {
		all += strings.Repeat("0", missing)
	}
	whole, fraction = all[:point], all[point:]
	whole, fraction = strings.TrimLeft(whole, "0"), strings.TrimRight(fraction, "0")
	if digits = len(whole) + len(fraction); whole == "" {
		whole = "0"
	}
	if fraction == "" {
		return whole, digits, true
	}
	return whole + "." + fraction, digits, true
}

// sameNumber says whether two texts may be one number, the second as somebody wrote it who
// means one.
func sameNumber(got, want string) bool {
	if !mayBeNumber(got) || !isNumber(want) {
		return false
	}
	wanted, found := numbersIn(want), numbersIn(got)
	return wanted.n > 0 && found.has(wanted.list[0])
}
