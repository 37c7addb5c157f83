package pricing

import (
	"math"
	"net/url"
	"slices"
	"strings"
)

// What costs more to read than it is worth is taken for anything: a query of so
// many pairs, a name that comes so often, and so long a value of a name that
// somebody asks about. Servers stop somewhere too (PHP and Express at 1,000
// pairs).
const (
	maxPairs = 256
	maxTwins = 8
	maxValue = 200
)

// blank is what servers skip before a name, brackets and a question mark apart.
const blank = " \t\r\n\v\f"

// Query is the query of a request in all the ways in which servers read it:
// how they cut it, decode it, spell names, and what they make of a name that
// comes twice. What they agree on is sure; what one of them could see is not.
type Query struct {
	pairs []queryPair
	over  bool // more pairs than are read
}

type queryPair struct {
	name, value string // as they came
	folded      string // the name as couldBe compares it, if it has nothing but letters and digits
	escaped     bool   // has something to decode
	doubtful    bool   // not everybody cuts the query here
}

// ReadQuery reads a query as it stands in a URL, without its question mark.
func ReadQuery(raw string) Query {
	var q Query
	if cut, _, found := strings.Cut(raw, "#"); found {
		// Node cuts it there, though a target on the wire has no fragment.
		q.read(cut, true)
		q.read(raw, true)
	} else {
		q.read(raw, strings.HasPrefix(raw, "?"))
	}
	if strings.HasPrefix(raw, "?") {
		q.read(strings.TrimLeft(raw, "?"), true) // some take a second `?` for the first
	}
	if q.over {
		q.pairs = nil
	}
	return q
}

// read adds the pairs of a query that everybody reads, or some do.
func (q *Query) read(raw string, doubtful bool) {
	for chunk := range strings.SplitSeq(raw, "&") {
		if chunk == "" {
			continue
		}
		parts := strings.IndexByte(chunk, ';') >= 0
		q.add(chunk, doubtful || parts)
		if parts {
			for part := range strings.SplitSeq(chunk, ";") {
				q.add(part, true)
			}
		}
		if q.over {
			return
		}
	}
}

func (q *Query) add(pair string, doubtful bool) {
	if q.over = q.over || len(q.pairs) == maxPairs; q.over {
		return
	}
	name, value, _ := strings.Cut(pair, "=")
	p := queryPair{name: name, value: value, escaped: strings.ContainsAny(pair, "%+"), doubtful: doubtful}
	if isPlainText(name) {
		p.folded = strings.ToLower(name)
	}
	q.pairs = append(q.pairs, p)
}

// isPlainText says whether a name is read in one way, letter case apart.
func isPlainText(name string) bool {
	for i := range len(name) {
		if !isPlainName(name[i]) {
			return false
		}
	}
	return name != ""
}

// UnknownQuery is a query of which nobody knows how it is read.
func UnknownQuery() Query { return Query{over: true} }

// Has says whether a query has a name with one of the values: some server could
// read it so, and every server does. The value `*` is for any.
func (q Query) Has(name string, values []string) (some, every bool) {
	some, every, _ = q.Look(name, values, math.MaxInt)
	return some, every
}

// What Look charges, in bytes that are looked at.
const (
	nameCost  = 32 // a name that has to be decoded
	valueCost = 48 // a comparison of two values
)

// Look is Has for somebody who has so much work left: it says how much it took,
// in bytes that are looked at. What would take more is taken for anything.
func (q *Query) Look(name string, values []string, left int) (some, every bool, looked int) {
	if q.over {
		return true, false, 0
	}
	want := foldName(name)
	present, sure := 0, 0
	looked = 4 + len(q.pairs)/2
	for i := range q.pairs {
		p := &q.pairs[i]
		switch {
		case p.folded != "":
			if p.folded != want {
				continue
			}
		case p.beginsOtherwise(want):
			looked++
			continue
		default:
			if looked += nameCost + len(p.name); looked > left {
				return true, false, looked
			}
			if !p.couldBe(want) {
				continue
			}
		}
		looked += len(values) * (valueCost + min(len(p.value), maxValue))
		if present++; present > maxTwins || looked > left {
			return true, false, looked
		}
		some = some || slices.ContainsFunc(values, p.couldSay)
		if p.is(name) && slices.ContainsFunc(values, p.says) {
			sure++
		}
	}
	if slices.Contains(values, "*") {
		return some, sure > 0, looked
	}
	// Of two values some take the first, some the last, and some both.
	return some, sure == 1 && present == 1, looked
}

// Empty says whether a query says nothing: to some server, and to every one.
func (q Query) Empty() (some, every bool) {
	if q.over {
		return false, false
	}
	some = !slices.ContainsFunc(q.pairs, func(p queryPair) bool { return p.name != "" && !p.doubtful })
	return some, len(q.pairs) == 0
}

// is says whether every server reads the name so.
func (p *queryPair) is(name string) bool {
	if p.doubtful || p.value == "" { // Python's parse_qs leaves empty values out
		return false
	}
	if !p.escaped {
		return p.name == name
	}
	got, err := url.QueryUnescape(p.name)
	return err == nil && got == name
}

// says says whether every server reads the value so.
func (p *queryPair) says(value string) bool {
	got := p.value
	if p.escaped {
		var err error
		if got, err = url.QueryUnescape(got); err != nil {
			return false // some servers drop the pair
		}
	}
	return value == "*" || got == value
}

// couldBe says whether some server reads the name as the wanted one, which is
// folded.
func (p *queryPair) couldBe(want string) bool {
	if !p.escaped {
		return couldBe(unescaper{rest: p.name}, want)
	}
	if p.name == "" {
		return want == ""
	}
	return inSomeWay(p.name, want, couldBe)
}

// beginsOtherwise says whether the first character of the name shows that it is
// not the wanted one, which is folded: nothing that decodes comes before it.
func (p *queryPair) beginsOtherwise(want string) bool {
	return p.name != "" && want != "" && isPlainName(p.name[0]) && foldNameByte(p.name[0]) != want[0]
}

// couldSay says whether some server takes the value for the wanted one.
func (p *queryPair) couldSay(want string) bool {
	if want == "*" || len(p.value) > maxValue {
		return true
	}
	if !p.escaped {
		return equalLoosely(p.value, want)
	}
	return inSomeWay(p.value, want, func(u unescaper, want string) bool { return equalLoosely(u.all(), want) })
}

// inSomeWay says whether a text is what is wanted when it is decoded as some
// server does it: as forms are, once more after a proxy that did so too, as IIS
// does. As paths are, or not at all, makes a difference only where the wanted one
// has something that decoding takes away.
func inSomeWay(text, want string, is func(u unescaper, want string) bool) bool {
	return is(unescaper{rest: text, times: 1, plus: true}, want) ||
		strings.Contains(text, "%2") && is(unescaper{rest: text, times: 2, plus: true}, want) ||
		hasBadEscape(text) && is(unescaper{rest: text, times: 1, plus: true, lenient: true}, want) ||
		strings.ContainsAny(want, "%+") && (is(unescaper{rest: text, times: 1}, want) || is(unescaper{rest: text}, want))
}

// hasBadEscape says whether a text has a % that begins no escape.
func hasBadEscape(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			continue
		}
		if i+2 >= len(text) || !isHex(text[i+1]) || !isHex(text[i+2]) {
			return true
		}
		i += 2
	}
	return false
}

// couldBe compares a name, as it is decoded, with a folded one. Space, brackets, a point and
// an exclamation mark before it do not count (PHP, Rack, qs, Spring); a bracket and a point behind it
// begin what the name has inside (`p[]`, `p[0]`, `p.x`), a NUL and an equals sign
// that was escaped end it. Behind a bracket that closes it nothing counts: `[p]x` is p
// to qs, and `p]x` is what p has inside to Rack.
func couldBe(u unescaper, want string) bool {
	c, ok := u.next()
	for ok && (strings.IndexByte(blank+"[]?!", c) >= 0 || c == '.' && !strings.HasPrefix(want, "_")) {
		c, ok = u.next()
	}
	for i := 0; i < len(want); {
		switch {
		case !ok || c == 0:
			return false
		case c == ']':
		case foldNameByte(c) != want[i]:
			return false
		default:
			i++
		}
		c, ok = u.next()
	}
	closed := false
	for ok && strings.IndexByte(blank+"]", c) >= 0 {
		closed = closed || c == ']'
		c, ok = u.next()
	}
	return !ok || closed || c == '[' || c == '.' || c == '=' || c == 0
}

// foldName is a wanted name as couldBe compares it.
func foldName(name string) string {
	name = strings.TrimLeft(name, blank+"[]?!")
	var b strings.Builder
	for i := range len(name) {
		if name[i] != ']' {
			b.WriteByte(foldNameByte(name[i]))
		}
	}
	return b.String()
}

// foldNameByte makes one of the bytes that a server takes for each other: letters
// (ASP.NET), and what PHP makes an underscore.
func foldNameByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	case c == '.', c == ' ', c == '[':
		return '_'
	}
	return c
}

func isPlainName(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

// equalLoosely says whether software could take one value for the other: in
// another letter case, with other accents, up to a NUL, without space around it, as one of several
// between commas, or as the same number.
func equalLoosely(got, want string) bool {
	if got == want {
		return true
	}
	got, _, _ = strings.Cut(got, "\x00")
	if got = strings.TrimSpace(got); strings.EqualFold(got, strings.TrimSpace(want)) || sameBare(got, want) {
		return true
	}
	for part := range strings.SplitSeq(got, ",") {
		if part = strings.TrimSpace(part); strings.EqualFold(part, want) || sameBare(part, want) {
			return true
		}
	}
	return isNumber(want) && couldBeNumber(got, want)
}

// couldBeNumber says whether a text could be read as the number, as numbersIn does, or as
// who reads no further than a number goes: PHP and parseInt take `1x` and `1.5` for 1.
func couldBeNumber(got, want string) bool {
	if sameNumber(got, want) {
		return true
	}
	got = strings.TrimPrefix(got, "+")
	if got == "" {
		return false
	}
	if got[0] >= 0x80 {
		return true
	}
	if got[0] == '.' {
		got = "0" + got // .1e1
	}
	if got[0] < '0' || got[0] > '9' {
		return false
	}
	end := 0
	for end < len(got) && '0' <= got[end] && got[end] <= '9' {
		end++
	}
	number, rest := strings.TrimLeft(got[:end], "0"), got[end:]
	return number == strings.TrimLeft(want, "0") || rest != "" && (rest[0] >= 0x80 || strings.ContainsAny(rest, "eExXbBoO_"))
}

// unescaper decodes a text byte by byte, so that comparing a name costs no
// memory and ends where it differs.
type unescaper struct {
	rest    string
	times   int  // 0, 1 or 2
	plus    bool // stands for a space
	lenient bool // %uXXXX is a character, and a % that begins nothing is left out
}

func (u *unescaper) all() string {
	var b strings.Builder
	b.Grow(len(u.rest))
	for c, ok := u.next(); ok; c, ok = u.next() {
		b.WriteByte(c)
	}
	return b.String()
}

func (u *unescaper) next() (byte, bool) {
	c, ok := u.once()
	if u.times < 2 || !ok {
		return c, ok
	}
	switch c {
	case '+':
		return ' ', true
	case '%':
		ahead := *u
		hi, _ := ahead.once()
		lo, ok := ahead.once()
		if ok && isHex(hi) && isHex(lo) {
			*u = ahead
			return unhex(hi)<<4 | unhex(lo), true
		}
	}
	return c, true
}

// once decodes one byte once.
func (u *unescaper) once() (byte, bool) {
	for u.rest != "" {
		c := u.rest[0]
		switch {
		case u.times == 0:
		case c == '+' && u.plus:
			c = ' '
		case c != '%':
		case len(u.rest) >= 3 && isHex(u.rest[1]) && isHex(u.rest[2]):
			c = unhex(u.rest[1])<<4 | unhex(u.rest[2])
			u.rest = u.rest[2:]
		case !u.lenient:
		case len(u.rest) >= 6 && u.rest[1]|0x20 == 'u' && isHex(u.rest[2]) && isHex(u.rest[3]) && isHex(u.rest[4]) && isHex(u.rest[5]):
			r := rune(unhex(u.rest[2]))<<12 | rune(unhex(u.rest[3]))<<8 | rune(unhex(u.rest[4]))<<4 | rune(unhex(u.rest[5]))
			if 0xff01 <= r && r <= 0xff5e {
				r -= 0xfee0 // full width; Windows takes it for ASCII
			}
			c = byte(min(r, 0xff))
			u.rest = u.rest[5:]
		default:
			u.rest = u.rest[1:]
			continue
		}
		u.rest = u.rest[1:]
		return c, true
	}
	return 0, false
}

func isHex(c byte) bool { return unhex(c) < 16 }
