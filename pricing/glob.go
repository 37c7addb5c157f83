package pricing

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"
)

// glob is a pattern with wildcards that is neither a prefix nor everything.
//
//   - `*` is any run of characters within one segment; at the beginning of the
//     pattern, and at the end of one that begins with it, across segments too:
//     `*.pdf`, `*mid*`.
//   - `[a-z]` is one character of a class, `[^a-z]` one of the others, but never
//     a slash.
//   - `/*` at the end covers everything below and the path without it.
//   - `*/` at the end is for folders, as `/posts/*/`; any other slash at the end means
//     nothing.
type glob struct {
	// head and tail are what stands before the first wildcard and after the
	// last one: cheap to compare, and most paths fail there.
	head, tail string
	// middle is the rest. It begins and ends with a wildcard.
	middle []symbol
	// inside is what `*inside*` looks for; steps is the middle of all others but
	// `*suffix`.
	inside string
	steps  *steps
	// symbols is the whole pattern, for the comparison of patterns.
	symbols []symbol
}

// symbol is one step of a glob.
type symbol struct {
	kind symbolKind
	// char is the character of a literal.
	char rune
	// class is what a class holds; not inverts it.
	class []runeRange
	not   bool
}

type symbolKind uint8

const (
	symLiteral symbolKind = iota
	symClass              // one character of a class, no slash
	symStar               // any run without a slash
	symDeep               // any run
	symBelow              // nothing, or a slash and any run: `/*` at the end
	symSlash              // nothing, or a slash; only in comparisons
)

type runeRange struct{ lo, hi rune }

// maxMiddle is how many steps may lie between the first and the last wildcard:
// the states of a match then fit into one machine word.
const maxMiddle = 63

// parseGlob reads a folded pattern that has a wildcard.
func parseGlob(s string) (glob, error) {
	var g glob
	deep := s[0] == '*'
	first, last := -1, 0
	for i := 0; i < len(s); {
		n, sym := 1, symbol{}
		switch s[i] {
		case '*':
			atEnd := i == len(s)-1
			switch {
			case atEnd && i > 0 && s[i-1] == '/':
				g.symbols = g.symbols[:len(g.symbols)-1] // the slash, which symBelow holds
				sym.kind = symBelow
			case i == 0 || atEnd && deep:
				sym.kind = symDeep
			default:
				sym.kind = symStar
			}
		case ']':
			return glob{}, errors.New("has a ] without its [; write * in its place")
		case '[':
			var err error
			if sym, n, err = parseClass(s[i:]); err != nil {
				return glob{}, err
			}
		default:
			sym.char, n = utf8.DecodeRuneInString(s[i:])
		}
		i += n
		g.symbols = append(g.symbols, sym)
		if sym.kind != symLiteral {
			if first < 0 {
				first = len(g.symbols) - 1
				g.head = s[:i-n]
			}
			last = len(g.symbols)
			g.tail = s[i:]
		}
	}
	g.middle = g.symbols[first:last]
	if g.middle[0].kind == symBelow {
		g.head = g.head[:len(g.head)-1]
	}
	if len(g.middle) > maxMiddle {
		return glob{}, fmt.Errorf("has more than %d characters between its first and its last wildcard; write a shorter one", maxMiddle)
	}
	switch last := len(g.middle) - 1; {
	case last == 0 && g.middle[0].kind == symDeep:
	case g.middle[0].kind == symDeep && g.middle[last].kind == symDeep && !slices.ContainsFunc(g.middle[1:last], notLiteral):
		g.inside = s[1 : len(s)-1]
	default:
		g.steps = newSteps(g.middle)
	}
	return g, nil
}

// parseClass reads a class at the beginning of s, and says how long it is.
func parseClass(s string) (symbol, int, error) {
	fail := func(why string) (symbol, int, error) { return symbol{}, 0, errors.New(why) }
	end := strings.IndexByte(s, ']')
	if end < 0 {
		return fail("has a [ without its ]; close the class, or write * in place of [")
	}
	body := s[1:end]
	sym := symbol{kind: symClass}
	body, sym.not = strings.CutPrefix(body, "^")
	switch {
	case strings.HasPrefix(body, "!"):
		return fail("has a class that begins with !; write [^…] for every character but these")
	case body == "":
		return fail("has an empty class; write the characters between [ and ]")
	case strings.ContainsAny(body, "/[*"):
		return fail("has a class with /, [ or * in it; write * in place of the class")
	}
	runes := []rune(body)
	for i := 0; i < len(runes); i++ {
		if runes[i] == '-' {
			return fail("has a class with a - that joins nothing; write a range such as [a-z], or * in place of the class")
		}
		r := runeRange{runes[i], runes[i]}
		if i+2 < len(runes) && runes[i+1] == '-' {
			r.hi = runes[i+2]
			i += 2
		}
		// Letter case is gone by now, so a range with only one end in the
		// letters no longer says what it said.
		if r.lo > r.hi || isLetter(r.lo) != isLetter(r.hi) {
			return fail("has a class with a range that is no range of letters or digits; write one such as [a-z] or [0-9]")
		}
		sym.class = append(sym.class, r)
	}
	return sym, end + 1, nil
}

func isLetter(r rune) bool { return 'a' <= r && r <= 'z' }

// literals is how many characters the glob fixes: its rank among globs.
func (g *glob) literals() int {
	n := 0
	for _, s := range g.symbols {
		if s.kind == symLiteral || s.kind == symBelow {
			n++
		}
	}
	return n
}

// takes reports whether the symbol can take this character.
func (s symbol) takes(r rune) bool {
	switch s.kind {
	case symLiteral:
		return r == s.char
	case symSlash, symBelow:
		return r == '/'
	case symDeep:
		return true
	case symClass:
		return r != '/' && s.inClass(r) != s.not
	default:
		return r != '/'
	}
}

func (s symbol) inClass(r rune) bool {
	for _, c := range s.class {
		if c.lo <= r && r <= c.hi {
			return true
		}
	}
	return false
}

func notLiteral(s symbol) bool { return s.kind != symLiteral }

// missCost is what it takes to see that a path does not begin or end so.
const missCost = 4

// look reports whether the glob covers the whole folded path, and how much of that
// was looked at, in bytes.
func (g *glob) look(path string) (ok bool, looked int) {
	if len(path) < len(g.head)+len(g.tail) || !strings.HasPrefix(path, g.head) || !strings.HasSuffix(path, g.tail) {
		return false, missCost
	}
	return g.lookInside(path[len(g.head) : len(path)-len(g.tail)])
}

// lookInside is look for what lies between the head and the tail.
func (g *glob) lookInside(path string) (ok bool, looked int) {
	switch {
	case g.inside != "":
		return strings.Contains(path, g.inside), 4 + len(path)/4
	case g.steps == nil: // *suffix
		return true, 1
	default:
		ok, looked = g.steps.match(path)
		return ok, 8 + looked
	}
}

// steps is the middle of a glob, ready for matching. Bit i of a set stands for
// step i, and the bit after the last one for the end.
type steps struct {
	// class is the kind of each ASCII character, and takes the steps that take a
	// character of that kind.
	class [utf8.RuneSelf]uint8
	takes []uint64
	// other are the steps that take any other character; rest those of which it
	// depends on the character.
	other, rest uint64
	rests       []symbol // the middle again, for rest
	loops       uint64   // steps that take any number of characters
	empty       uint64   // steps that may take none
	below       uint64   // the step after whose slash everything matches
	end         uint64
}

func newSteps(middle []symbol) *steps {
	s := &steps{rests: middle, end: 1 << len(middle)}
	for i, sym := range middle {
		bit := uint64(1) << i
		if sym.repeats() {
			s.loops |= bit
		}
		if sym.mayBeEmpty() {
			s.empty |= bit
		}
		switch {
		case sym.kind == symBelow:
			s.below = bit
		case sym.kind == symLiteral && sym.char >= utf8.RuneSelf, sym.kind == symClass:
			s.rest |= bit
		case sym.kind == symStar, sym.kind == symDeep:
			s.other |= bit
		}
	}
	for c := range len(s.class) {
		var takes uint64
		for i := range middle {
			if middle[i].takes(rune(c)) {
				takes |= 1 << i
			}
		}
		at := slices.Index(s.takes, takes)
		if at < 0 {
			at = len(s.takes)
			s.takes = append(s.takes, takes)
		}
		s.class[c] = uint8(at) //nolint:gosec // there are 128 at most
	}
	return s
}

// match follows all ways through the middle at once, so that no path can make it
// slow. It says how many bytes it has looked at.
func (s *steps) match(path string) (ok bool, looked int) {
	states := s.skip(1)
	for i := 0; i < len(path); {
		var takes uint64
		if c := path[i]; c < utf8.RuneSelf {
			takes = s.takes[s.class[c]]
			i++
		} else {
			r, n := utf8.DecodeRuneInString(path[i:])
			takes = s.other
			for left := states & s.rest; left != 0; left &= left - 1 {
				if at := bits.TrailingZeros64(left); s.rests[at].takes(r) {
					takes |= 1 << at
				}
			}
			i += n
		}
		live := states & takes
		if live&s.below != 0 {
			return true, i
		}
		next := live&s.loops | (live&^s.loops)<<1
		if next == 0 {
			return false, i
		}
		states = s.skip(next)
	}
	return states&s.end != 0, len(path)
}

// skip adds the states that are reached without a character. Two steps in a row
// may be empty: a `*` and the `/*` after it.
func (s *steps) skip(states uint64) uint64 {
	states |= states & s.empty << 1
	return states | states&s.empty<<1
}

func (s symbol) mayBeEmpty() bool {
	return s.kind == symStar || s.kind == symDeep || s.kind == symBelow || s.kind == symSlash
}
