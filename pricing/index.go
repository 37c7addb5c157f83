package pricing

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// entry is one pattern of one line.
type entry struct {
	pattern pattern
	rank    rank
	line    int
}

// rank says which of two lines is more specific: the one with the lower rank.
type rank struct {
	class    rankClass
	head     int // characters of the fixed beginning; more is lower
	prefix   bool
	literals int // fixed characters; more is lower
	tier     int // matcher and methods, matcher, methods, neither
}

type rankClass int

const (
	rankExact rankClass = iota
	rankHead            // has a fixed beginning
	rankLoose           // *suffix and other globs without one
	rankAll
)

func newEntry(p pattern, line *Line, number int) entry {
	r := rank{literals: p.literals, prefix: p.shape == shapePrefix}
	switch {
	case p.shape == shapeExact:
		// Exact paths are equal or do not meet: their length says nothing.
		r = rank{class: rankExact}
	case p.shape == shapeAll:
		r.class = rankAll
	case p.head == "":
		r.class = rankLoose
	default:
		r.class, r.head = rankHead, utf8.RuneCountInString(p.head)
	}
	if line.Matcher == nil {
		r.tier += 2
	}
	if len(line.Methods) == 0 {
		r.tier++
	}
	return entry{pattern: p, rank: r, line: number}
}

// compareRank orders the more specific first.
func compareRank(a, b rank) int {
	return cmp.Or(
		cmp.Compare(a.class, b.class),
		cmp.Compare(b.head, a.head),
		compareBool(a.prefix, b.prefix),
		cmp.Compare(b.literals, a.literals),
		cmp.Compare(a.tier, b.tier),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// index finds the entries whose pattern could match a path. In each list the
// more specific come first.
type index struct {
	exact map[string][]entry
	// below holds what begins with a head that ends with a slash, under the
	// head without that slash: it is looked up where a segment ends, and so
	// finds `/x/*` for `/x` too.
	below map[string][]entry
	// begins holds what begins with any other head.
	begins map[string][]entry
	// lengths says which of the two have heads of a length in bytes, so that a
	// lookup hashes no beginning that cannot be there.
	lengths []headKind
	loose   []entry
	all     []entry
}

// headKind is a set of index.below and index.begins.
type headKind uint8

const (
	headBelow headKind = 1 << iota
	headBegins
)

// newIndex indexes entries that are sorted by rank.
func newIndex(entries []entry) index {
	x := index{
		exact:  make(map[string][]entry),
		below:  make(map[string][]entry),
		begins: make(map[string][]entry),
	}
	for _, e := range entries {
		head := e.pattern.head
		switch e.rank.class {
		case rankExact:
			x.exact[head] = append(x.exact[head], e)
		case rankLoose:
			x.loose = append(x.loose, e)
		case rankAll:
			x.all = append(x.all, e)
		case rankHead:
			if missing := len(head) + 1 - len(x.lengths); missing > 0 {
				x.lengths = append(x.lengths, make([]headKind, missing)...)
			}
			if dir := head[:len(head)-1]; head[len(head)-1] == '/' {
				x.below[dir] = append(x.below[dir], e)
				x.lengths[len(head)] |= headBelow
			} else {
				x.begins[head] = append(x.begins[head], e)
				x.lengths[len(head)] |= headBegins
			}
		}
	}
	x.lengths = slices.Clip(x.lengths)
	return x
}

// lists calls f with each list of entries that could match the folded path, the
// more specific first, until f says stop.
func (x *index) lists(path string, f func([]entry) (more bool)) {
	if list := x.exact[trimSlash(path)]; len(list) > 0 && !f(list) {
		return
	}
	for n := min(len(path)+1, len(x.lengths)-1); n > 0; n-- {
		kinds := x.lengths[n]
		if kinds&headBelow != 0 && (n > len(path) || path[n-1] == '/') {
			if list := x.below[path[:n-1]]; len(list) > 0 && !f(list) {
				return
			}
		}
		if kinds&headBegins != 0 && n <= len(path) {
			if list := x.begins[path[:n]]; len(list) > 0 && !f(list) {
				return
			}
		}
	}
	if f(x.loose) {
		f(x.all)
	}
}
