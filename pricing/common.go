package pricing

import (
	"slices"
	"strings"
)

// Common is a path that all of the patterns match, unescaped, and one that reads like a
// path of somebody's where there is such; false if one of them is no pattern, or if none
// was found.
func Common(patterns ...string) (string, bool) {
	parsed := make([]pattern, len(patterns))
	filled, plain := make([][]symbol, len(patterns)), make([][]symbol, len(patterns))
	slashed := make([][]symbol, len(patterns))
	for i, s := range patterns {
		p, err := parsePattern(s)
		if err != nil {
			return "", false
		}
		parsed[i], slashed[i] = p, withSlash(p.symbols())
		filled[i], plain[i] = fill(p.symbols()), slashed[i]
		if last := len(slashed[i]) - 1; slashed[i][last].kind == symSlash {
			plain[i] = slashed[i][:last]
		}
	}
	path, ok := "", false
	for _, globs := range [][][]symbol{filled, plain, slashed} {
		if path, ok = commonText(globs); ok {
			break
		}
	}
	if !ok {
		return "", false
	}
	for _, s := range patterns {
		path = spelledAs(path, s)
	}
	folded := fold(path)
	return path, !slices.ContainsFunc(parsed, func(p pattern) bool { return !p.matches(folded) })
}

// fill lets each run of a glob have a character, which is no dot: `/x.pdf` is a file, and
// `/.pdf` is hidden.
func fill(g []symbol) []symbol {
	some := symbol{kind: symClass, not: true, class: []runeRange{{'.', '.'}}}
	slash := symbol{kind: symLiteral, char: '/'}
	var filled []symbol
	for i, s := range g {
		switch {
		case s.kind == symBelow:
			filled = append(filled, slash, some, symbol{kind: symDeep})
		case s.kind == symDeep && i == 0: // every path begins with a slash
			filled = append(filled, slash, some, s)
		case s.repeats() && (i == 0 || g[i-1].kind != symBelow):
			filled = append(filled, some, s)
		default:
			filled = append(filled, s)
		}
	}
	return filled
}

// commonText is one of the shortest texts that all of the globs match; it gives up where
// that takes long.
func commonText(globs [][]symbol) (string, bool) {
	const most = 4_000 // places
	type place struct {
		at   string // a step in each of the globs, two bytes each
		from int
		char rune // by which it was reached; 0 where that is nothing
	}
	var todo []place
	seen := map[string]bool{}
	reach := func(at []int, from int, char rune) {
		key := make([]byte, 0, 2*len(at))
		for _, i := range at {
			key = append(key, byte(i>>8), byte(i))
		}
		if !seen[string(key)] {
			seen[string(key)] = true
			todo = append(todo, place{string(key), from, char})
		}
	}
	at := make([]int, len(globs))
	reach(at, -1, 0)
	for done := 0; done < len(todo) && len(todo) < most; done++ {
		steps := func(i int) int { return int(todo[done].at[2*i])<<8 | int(todo[done].at[2*i+1]) }
		ends, takes := true, make([]symbol, 0, len(globs))
		for i, g := range globs {
			step := steps(i)
			at[i] = step
			if step == len(g) {
				continue
			}
			ends = false
			takes = append(takes, g[step])
		}
		if ends {
			var text []rune
			for p := todo[done]; p.from >= 0; p = todo[p.from] {
				if p.char != 0 {
					text = append(text, p.char)
				}
			}
			slices.Reverse(text)
			return string(text), len(text) > 0 && text[0] == '/'
		}
		if len(takes) == len(globs) {
			if char, ok := commonChar(takes); ok && (char == '/' || slices.ContainsFunc(at, func(i int) bool { return i > 0 })) {
				next := slices.Clone(at)
				for i, s := range takes {
					if !s.repeats() {
						next[i]++
					}
				}
				reach(next, done, char)
			}
		}
		for i, g := range globs {
			if step := at[i]; step < len(g) && g[step].mayBeEmpty() {
				next := slices.Clone(at)
				next[i] = after(g, step)
				reach(next, done, 0)
			}
		}
	}
	return "", false
}

// commonChar is a character that all symbols take.
func commonChar(symbols []symbol) (rune, bool) {
	all := func(r rune) bool { return !slices.ContainsFunc(symbols, func(s symbol) bool { return !s.takes(r) }) }
	for _, s := range symbols {
		if s.single() {
			return s.only(), all(s.only())
		}
	}
	if all('x') {
		return 'x', true
	}
	for r := '!'; r <= '\u00ff'; r++ {
		if !strings.ContainsRune(`/%?#;\`, r) && all(r) {
			return r, true
		}
	}
	return 0, false
}

// spelledAs gives a path the letter case in which a pattern has its beginning and its end:
// that means nothing to us, but perhaps to the upstream.
func spelledAs(path, pattern string) string {
	wild := strings.IndexAny(pattern, "*[")
	if wild < 0 {
		return pattern
	}
	head, tail := pattern[:wild], pattern[strings.LastIndexAny(pattern, "*]")+1:]
	if n := len(head); n <= len(path) && strings.EqualFold(path[:n], head) {
		path = head + path[n:]
	}
	if n := len(path) - len(tail); n >= 0 && strings.EqualFold(path[n:], tail) {
		path = path[:n] + tail
	}
	return path
}
