package routes

import (
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// A line is for more paths than one, and what stands around the gate, before it or behind
// it looks at some of them only: at those with an ending, or of digits. So no single path
// stands for a line: whoever asks what becomes of its requests asks for those that the
// matchers in question tell from others.

// maxExamples is how many paths of a line are looked at. Of each line of a long list there is
// one for each matcher, where that has several patterns: all of them are followed everywhere.
const (
	maxExamples = 8
	longList    = 500
)

func exampleOf(pattern string) (string, bool) { return pricing.Example(pattern) }

// meeting are paths of a line that come to the gate and meet all of the matchers, as far as
// their path patterns tell; known is false where one of these is not understood.
func (g *Gate) meeting(line int, conds []*cond) (paths []string, known bool) {
	all, known := g.together(line, conds)
	for _, patterns := range all {
		if path, ok := common(patterns); ok && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths, known
}

// common is a path that all patterns match.
func common(patterns []string) (string, bool) {
	if len(patterns) == 1 {
		return exampleOf(patterns[0])
	}
	return pricing.Common(patterns...)
}

// together are the line's patterns, each with those of the matchers that it may meet.
func (g *Gate) together(line int, conds []*cond) (all [][]string, known bool) {
	for _, pattern := range g.groups[line] {
		all = append(all, []string{pattern})
	}
	known = true
	for _, c := range slices.Concat(g.at.conds, conds) {
		limits, ok := c.paths()
		if !ok || c.changed {
			continue
		}
		var narrowed [][]string
		for _, patterns := range all {
			for _, limit := range limits {
				switch {
				case len(narrowed) == maxWays:
				case pricing.CheckPattern(limit) != nil:
					known = false
					narrowed = append(narrowed, patterns)
				case slices.ContainsFunc(patterns, func(p string) bool { return pricing.Covers(limit, p) }):
					narrowed = append(narrowed, patterns)
				case !slices.ContainsFunc(patterns, func(p string) bool { overlap, _ := pricing.Overlap(limit, p); return !overlap }):
					narrowed = append(narrowed, append(slices.Clip(patterns), limit))
				}
			}
		}
		all = narrowed
	}
	return all, known
}

// examples are paths of a line that cost something at the gate, one of them at least for
// each kind of path that matchers on the way to the answerer tell apart.
func (g *Gate) examples(line int, a *answerer) []string {
	l := g.Lines[line]
	var paths []string
	add := func(path string) {
		if len(paths) == maxExamples || slices.Contains(paths, path) || !strings.HasPrefix(path, "/") {
			return
		}
		if k := g.decide(l.Methods, path); k != pricing.Free && k != pricing.Undecided {
			paths = append(paths, path)
		}
	}
	add(g.Examples[line])
	for _, way := range a.ways() {
		if way.patterns {
			all, _ := g.together(line, way.conds)
			for _, patterns := range all {
				before := len(paths)
				if path, ok := common(patterns); ok {
					add(path)
				}
				if len(paths) == maxExamples || len(paths) > before && len(g.Lines) > longList {
					break
				}
			}
		}
		for _, path := range way.seeds {
			for _, path := range mixed(path, l.Path) {
				if pricing.Covers(l.Path, path) && !slices.ContainsFunc(way.regexps, func(r *expression) bool { return !r.MatchString(path) }) {
					add(path)
				}
			}
		}
	}
	return paths
}

// way are matchers that requests meet together, on the way to an answerer.
type way struct {
	conds    []*cond
	patterns bool // some of them have path patterns
	// regexps are those of them that look at the path as it was received, and seeds are
	// paths for which they or matchers of a changed path are.
	regexps []*expression
	seeds   []string
}

// ways are the matchers around an answerer, and around each change of the path before it,
// where they look at the path.
func (a *answerer) ways() []way {
	if a.known != nil {
		return *a.known
	}
	p := &a.at
	var ways []way
	add := func(conds []*cond) {
		w := way{conds: conds}
		for _, c := range conds {
			var seeds []string
			for i, set := range c.sets {
				_, ok := set["path"]
				w.patterns = w.patterns || ok && !c.changed
				if r := c.regexps[i]; r != nil {
					seeds = append(seeds, absolute([]string{r.example(nil)})...)
					if c.steps == 0 && len(c.sets) == 1 {
						w.regexps = append(w.regexps, r)
					}
				}
				for _, pattern := range c.read[i]["path"] {
					if example, ok := exampleOf(pattern); ok && c.steps > 0 {
						seeds = append(seeds, example)
					}
				}
			}
			before := place{steps: p.steps[:min(c.steps, len(p.steps))]}
			for _, seed := range seeds {
				w.seeds = append(w.seeds, before.origins(seed)...)
			}
		}
		if w.patterns || len(w.seeds) > 0 {
			ways = append(ways, w)
		}
	}
	add(p.conds)
	for i := range p.steps {
		add(p.steps[i].conds)
	}
	a.known = &ways
	return ways
}

// mixed are a path for which a matcher is, and what that can be in a line: with its
// beginning and its end.
func mixed(path, pattern string) []string {
	paths := []string{path}
	wild := strings.IndexAny(pattern, "*[")
	if wild < 0 {
		return append(paths, pattern)
	}
	head, tail := pattern[:wild], pattern[strings.LastIndexAny(pattern, "*]")+1:]
	if head == "" || head[0] != '/' {
		head = "/"
	}
	rest := strings.SplitN(path, "/", strings.Count(head, "/")+1)
	paths = append(paths, head+rest[len(rest)-1]+tail, head+"x"+strings.TrimPrefix(path, "/")+tail)
	return paths
}
