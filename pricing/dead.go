package pricing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxCompared is how many pairs of patterns are looked at for each of these
// checks at load. A list that has more is longer than anybody reads, and some of
// its lines go unchecked.
const maxCompared = 2_000_000

// comparisons counts pairs of patterns that were looked at, also those of which
// one look was enough: of these too there can be as many as lines times lines.
type comparisons int

// more counts a pair, and reports whether it may be looked at.
func (c *comparisons) more() bool {
	*c++
	return !c.over()
}

func (c *comparisons) over() bool { return *c > maxCompared }

// checkDead refuses a line that can never count, because for each of its paths
// another line always comes first: whoever wrote it believes that it does
// something.
func (l *List) checkDead(compared *comparisons) error {
	beaten := make([]int, len(l.lines)) // patterns of the line
	by := make([]int, len(l.lines))     // a line that beats it, after one
	check := func(before []entry, e *entry) {
		for i := range before {
			if !compared.more() {
				return
			}
			if m := &before[i]; l.alwaysBeats(m, e) {
				beaten[e.line]++
				if by[e.line] == 0 || m.line+1 < by[e.line] {
					by[e.line] = m.line + 1
				}
				return
			}
		}
	}
	// A more specific pattern covers all of another one only where both begin
	// alike or neither has a fixed beginning.
	for _, lists := range []map[string][]entry{l.index.below, l.index.begins} {
		for _, list := range lists {
			for i := range list {
				check(list[:i], &list[i])
			}
		}
	}
	for i := range l.index.loose {
		check(l.index.loose[:i], &l.index.loose[i])
	}
	for i := range l.index.all {
		check(l.index.loose, &l.index.all[i])
		check(l.index.all[:i], &l.index.all[i])
	}
	for i := range l.lines {
		if line := &l.lines[i]; beaten[i] == len(line.Patterns) {
			return fmt.Errorf("%s can never count, because %s always comes first; leave one of the two out, or make the path of the first longer or exact",
				where(line), where(&l.lines[by[i]-1]))
		}
	}
	return nil
}

// alwaysBeats reports whether m comes first for every request that e is for.
func (l *List) alwaysBeats(m, e *entry) bool {
	first, second := &l.lines[m.line], &l.lines[e.line]
	return m.line != e.line &&
		compareRank(m.rank, e.rank) < 0 &&
		(first.Matcher == nil || second.Matcher != nil && sameMatcher(first, second)) &&
		first.allowsAll(second) &&
		m.pattern.contains(&e.pattern)
}

// allowsAll reports whether the line is for every method of the other.
func (line *Line) allowsAll(other *Line) bool {
	if len(line.Methods) == 0 {
		return true
	}
	return len(other.Methods) > 0 && !slices.ContainsFunc(other.Methods, func(m string) bool { return !line.allows(m) })
}

// warn finds free lines with a matcher that open less than it seems: a longer
// price comes before them, whoever the matcher lets in.
func (l *List) warn(entries []entry, compared *comparisons) {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.line, b.line) })
	warned := make([]bool, len(l.lines))
	for i := range entries {
		e := &entries[i]
		free := &l.lines[e.line]
		if free.Kind != Free || free.Matcher == nil || warned[e.line] {
			continue
		}
		for j := range entries {
			if !compared.more() {
				return
			}
			m := &entries[j]
			price := &l.lines[m.line]
			if price.Kind != Priced || price.Matcher != nil || compareRank(m.rank, e.rank) >= 0 || !price.sharesMethod(free) {
				continue
			}
			if !m.pattern.touches(&e.pattern) || l.opens(entries, free, m, compared) {
				continue
			}
			if compared.over() {
				return // nobody knows whether another line opens it
			}
			warned[e.line] = true
			l.warnings = append(l.warnings, fmt.Sprintf("%s does not open what %s prices, because the path of the price is more specific; write that path into the free line too if %s is to open it",
				where(free), where(price), cmp.Or(free.MatcherName, "its matcher")))
			break
		}
	}
}

// opens reports whether a free line with the same matcher comes before a price
// for all of its paths.
func (l *List) opens(entries []entry, free *Line, m *entry, compared *comparisons) bool {
	for i := range entries {
		if !compared.more() {
			return false
		}
		o := &entries[i]
		other := &l.lines[o.line]
		if other.Kind == Free && other.Matcher != nil && (other == free || sameMatcher(other, free)) &&
			compareRank(o.rank, m.rank) < 0 && other.allowsAll(&l.lines[m.line]) && o.pattern.contains(&m.pattern) {
			return true
		}
	}
	return false
}

// Warnings are sentences about lines that do less than they seem to, each naming
// them and a remedy.
func (l *List) Warnings() []string { return slices.Clone(l.warnings) }

// touches reports whether some path is matched by both patterns.
func (p *pattern) touches(q *pattern) bool {
	if p.shape == shapeGlob && q.shape == shapeExact { // which is one path, with and without a slash
		return p.matches(q.head) || p.matches(q.head+"/")
	}
	if p.shape == shapeGlob || q.shape == shapeGlob {
		return globsOverlap(p.symbols(), q.symbols())
	}
	return p.meets(q) || q.meets(p)
}

// contains reports whether every path that q matches is matched by p too. It may
// say no where it would take long to tell.
func (p *pattern) contains(q *pattern) bool {
	switch {
	case p.shape == shapeAll:
		return true
	case q.shape == shapeExact:
		return p.matches(q.head)
	case p.shape == shapeExact:
		return false
	case p.shape == shapePrefix && q.shape == shapePrefix:
		return strings.HasPrefix(q.head, p.head)
	case !strings.HasPrefix(q.head, p.head):
		return false
	}
	return globContains(p.symbols(), q.symbols())
}

// globContains walks through both globs at once: through b on one way, and
// through a on all ways that the same characters lead. Every path begins with a
// slash.
func globContains(a, b []symbol) bool {
	const most = 2000 // pairs of places
	a, b = withSlash(a), withSlash(b)
	chars := charsOf(a, b)
	type place struct {
		at   int    // in b
		sets string // of steps in a, a byte each
		in   bool   // behind the first slash
	}
	seen := map[place]bool{}
	var todo []place
	reach := func(at int, set []byte, in bool) {
		for i := range a { // what is reached without a character
			if set[i] != 0 && a[i].mayBeEmpty() {
				set[after(a, i)] = 1
			}
		}
		for p := (place{at, string(set), in}); ; p.at = after(b, p.at) {
			if !seen[p] {
				seen[p] = true
				todo = append(todo, p)
			}
			if p.at == len(b) || !b[p.at].mayBeEmpty() {
				return
			}
		}
	}
	start := make([]byte, len(a)+1)
	start[0] = 1
	reach(0, start, false)
	for done := 0; done < len(todo); done++ {
		p := todo[done]
		if len(todo) > most {
			return false
		}
		if p.in && p.at == len(b) && p.sets[len(a)] == 0 {
			return false
		}
		if p.at == len(b) {
			continue
		}
		for _, c := range chars {
			if !b[p.at].takes(c) || !p.in && c != '/' {
				continue
			}
			next := make([]byte, len(a)+1)
			for i := range a {
				if p.sets[i] == 0 || !a[i].takes(c) {
					continue
				}
				if a[i].repeats() {
					next[i] = 1
				} else {
					next[i+1] = 1
				}
			}
			if b[p.at].repeats() {
				reach(p.at, next, true)
			} else {
				reach(p.at+1, next, true)
			}
		}
	}
	return true
}

// charsOf are characters of which each kind that two globs tell apart has one.
func charsOf(globs ...[]symbol) []rune {
	chars := []rune{'/', '\U0010fffd'}
	for _, g := range globs {
		for _, s := range g {
			switch s.kind {
			case symLiteral:
				chars = append(chars, s.char)
			case symClass:
				for _, r := range s.class {
					chars = append(chars, r.lo-1, r.lo, r.hi, r.hi+1)
				}
			default:
			}
		}
	}
	slices.Sort(chars)
	return slices.Compact(chars)
}
