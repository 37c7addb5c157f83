package pricing

import "slices"

// overlap reports whether some path could match both patterns. It is asked of
// patterns of one rank only, so exact and prefix patterns overlap when their
// heads are equal. For globs it decides exactly.
func (p *pattern) overlap(q *pattern) bool {
	if p.shape != q.shape {
		return false
	}
	if p.shape != shapeGlob {
		return p.head == q.head
	}
	return globsOverlap(p.glob.symbols, q.glob.symbols)
}

// globsOverlap walks through both globs at once: a pair (i, j) is reached when one
// text brings the first glob to step i and the second to step j.
func globsOverlap(a, b []symbol) bool {
	a, b = withSlash(a), withSlash(b)
	width := len(b) + 1
	seen := make([]bool, (len(a)+1)*width)
	todo := []int{0}
	reach := func(i, j int) {
		if at := i*width + j; !seen[at] {
			seen[at] = true
			todo = append(todo, at)
		}
	}
	seen[0] = true
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		i, j := at/width, at%width
		if i == len(a) && j == len(b) {
			return true
		}
		if i < len(a) && a[i].mayBeEmpty() {
			reach(after(a, i), j)
		}
		if j < len(b) && b[j].mayBeEmpty() {
			reach(i, after(b, j))
		}
		if i == len(a) || j == len(b) || !a[i].meets(b[j]) {
			continue
		}
		nextI, nextJ := i+1, j+1
		if a[i].repeats() {
			nextI = i
		}
		if b[j].repeats() {
			nextJ = j
		}
		reach(nextI, nextJ)
	}
	return false
}

// withSlash lets the glob end with an optional slash. A `/*` at its end is a
// slash and a run here, which can only be left out together.
func withSlash(g []symbol) []symbol {
	end := symbol{kind: symSlash}
	if g[len(g)-1].kind == symBelow {
		end.kind = symDeep
	}
	return append(slices.Clip(g), end)
}

// after is the step that follows when step i takes nothing.
func after(g []symbol, i int) int {
	if g[i].kind == symBelow {
		return len(g)
	}
	return i + 1
}

func (s symbol) repeats() bool { return s.kind == symStar || s.kind == symDeep }

// meets reports whether one character can be taken by both symbols.
func (s symbol) meets(t symbol) bool {
	if s.single() {
		return t.takes(s.only())
	}
	if t.single() {
		return s.takes(t.only())
	}
	if s.kind != symClass || t.kind != symClass {
		// A class that holds no character at all does not exist, and whatever
		// is not a class takes all but the slash.
		return true
	}
	switch {
	case s.not && t.not:
		return true // both leave out a few of more than a million characters
	case s.not:
		return t.meets(s)
	}
	// The first character that both take begins a range of one of them, or
	// follows something that t leaves out.
	starts := []rune{'/' + 1}
	for _, r := range t.class {
		starts = append(starts, r.lo, r.hi+1)
	}
	for _, r := range s.class {
		for _, c := range append(starts, r.lo) {
			if s.takes(c) && t.takes(c) {
				return true
			}
		}
	}
	return false
}

// single reports whether the symbol takes one character only, which only says.
func (s symbol) single() bool {
	return s.kind == symLiteral || s.kind == symSlash || s.kind == symBelow
}

func (s symbol) only() rune {
	if s.kind == symLiteral {
		return s.char
	}
	return '/'
}
