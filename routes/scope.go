package routes

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// place is where a handler stands: what a request has met on its way there.
type place struct {
	server string
	// conds are the matchers of the routes around it, outermost first.
	conds []*cond
	// others are the matchers of routes of a group that stand before the one around it:
	// who meets them does not come here.
	others [][]*cond
	// gates are the paywall blocks passed, caches and intercepts what wraps the
	// rest of the chain.
	gates []*Gate
	wraps []wrap
	// raisers may have raised an error.
	raisers []wrap
	// root is the directory of files, as the config says it, and roots are those
	// that it names on the way, with their matchers.
	root  string
	roots []rootStep
	// steps are the changes of the path on the way. Those of other routes of a
	// group are among them, so that each has one number everywhere; branches are
	// the routes around the place, which say that those were not taken.
	steps    []step
	branches []branch
	// methods are what the method may have been changed to, none if it was not.
	methods []string
	// headers are request headers that were set.
	headers []setHeader
	// values are what placeholders of map and vars can be. One that is set again
	// can still be what it was: what set it may have had a matcher.
	values []setValue
	// query are the parameters of the query that were changed.
	query []setQuery

	// How the path was changed: by a prefix that was stripped, to one of some
	// fixed paths, or in a way that is not known.
	strip   string
	fixed   []string
	unknown bool
	inError bool
	// templates says that pages are filled in, perhaps with what the path says.
	templates bool
}

// rootStep is a directory of files, for requests that meet the matchers.
type rootStep struct {
	conds []*cond
	branch
	root string
	// foreign is the placeholder by which somebody else names the directory.
	foreign string
}

// setHeader is a header that the config sets before the upstream sees it.
type setHeader struct {
	conds       []*cond
	name, value string
	// replaced says that the value stands for a part of what the client sent.
	replaced bool
}

// changed reports whether the path is no longer as it was received.
func (p *place) changed() bool { return p.strip != "" || len(p.fixed) > 0 || p.unknown }

// with returns the place behind a matcher. A place is a value: slices are never
// shared for writing.
func (p place) with(r *Route, b branch) place {
	if b.group.name != "" {
		p.branches = append(slices.Clip(p.branches), b)
	}
	if len(r.Match) > 0 {
		c := &cond{route: r, sets: r.Match, changed: p.changed(), steps: len(p.steps)}
		for _, set := range r.Match {
			var re struct{ Name, Pattern string }
			if raw, ok := set["path_regexp"]; ok && json.Unmarshal(raw, &re) == nil && re.Pattern != "" {
				c.regexps = append(c.regexps, compile(re.Name, re.Pattern))
			} else {
				c.regexps = append(c.regexps, nil)
			}
			c.read = append(c.read, map[string][]string{"path": strs(set["path"]), "host": strs(set["host"])})
		}
		e := p.expander()
		c.known(e)
		p.conds = append(slices.Clip(p.conds), c)
		for _, v := range e.captures(c.sets) {
			v.add(depends{under: p.conds})
			p = p.withValue(v)
		}
	}
	return p
}

// wrap is a handler that stands before others.
type wrap struct {
	handler *handler
	at      place
}

// cond is the matcher of a route.
type cond struct {
	route *Route
	sets  []matcherSet
	read  []map[string][]string // paths and hosts of the sets
	// regexps are the path_regexp matchers of the sets, where they have one.
	regexps []*expression
	// steps is how many changes of the path there were before it.
	steps int
	// changed says that it looks at a path that was changed before.
	changed bool
	// looks is what it depends on who meets it.
	looks depends
}

// relation says how many of the requests in question meet something.
type relation int

const (
	none relation = iota
	some
	all
)

// meets says how many of the requests to a gate's path, at its hosts, meet the
// matcher.
func (c *cond) meets(path string, hosts []string) relation {
	best := none
	for i, set := range c.sets {
		met := all
		for name := range set {
			met = min(met, c.matcher(name, c.read[i][name], path, hosts))
		}
		best = max(best, met)
	}
	return best
}

func (c *cond) matcher(name string, values []string, path string, hosts []string) relation {
	switch name {
	case "path":
		if c.changed {
			return some
		}
		return meetsPath(values, path)
	case "host":
		return meetsHost(values, hosts)
	default:
		return some
	}
}

func meetsPath(patterns []string, path string) relation {
	best := none
	for _, pattern := range patterns {
		overlap, err := pricing.Overlap(pattern, path)
		switch {
		case err != nil: // an escape or a placeholder
			best = max(best, some)
		case pricing.Covers(pattern, path):
			return all
		case overlap:
			best = max(best, some)
		}
	}
	return best
}

// meetsHost compares host names. Another site is none of the gate's, also where
// the gate stands in a site for all the rest.
func meetsHost(patterns, hosts []string) relation {
	if len(hosts) == 0 {
		return none
	}
	covered, met := true, false
	for _, host := range hosts {
		if slices.ContainsFunc(patterns, func(p string) bool { return hostCovers(p, host) }) {
			met = true
		} else {
			covered = false
		}
	}
	switch {
	case covered:
		return all
	case met:
		return some
	default:
		return none
	}
}

func hostCovers(pattern, host string) bool {
	if strings.IndexByte(pattern, '*') < 0 {
		return strings.EqualFold(pattern, host)
	}
	p, h := strings.Split(strings.ToLower(pattern), "."), strings.Split(strings.ToLower(host), ".")
	if len(p) != len(h) {
		return false
	}
	for i := range p {
		if p[i] != h[i] && p[i] != "*" {
			return false
		}
	}
	return true
}

// hosts are the host names of the innermost matcher that names some.
func (p *place) hosts() []string {
	var hosts []string
	for _, c := range p.conds {
		var here []string
		for i, set := range c.sets {
			if _, ok := set["host"]; !ok {
				here = nil
				break
			}
			here = append(here, c.read[i]["host"]...)
		}
		if len(here) > 0 {
			hosts = here
		}
	}
	return hosts
}

// reach narrows a pattern to the paths with which a request gets to the place.
// None are left if the matchers around it exclude all of them; known is false
// where that cannot be told.
func (p *place) reach(pattern string) (paths []string, known bool) {
	paths = []string{pattern}
	for _, c := range p.conds {
		if c.changed {
			continue
		}
		limits, ok := c.paths()
		if !ok {
			continue
		}
		var narrowed []string
		for _, path := range paths {
			for _, limit := range limits {
				overlap, err := pricing.Overlap(limit, path)
				switch {
				case err != nil:
					return []string{pattern}, false
				case pricing.Covers(path, limit):
					narrowed = append(narrowed, limit)
				case overlap:
					narrowed = append(narrowed, path)
				}
			}
		}
		paths = narrowed
	}
	if len(paths) > 0 {
		return paths, true
	}
	switch {
	case p.strip != "" && !p.unknown && len(p.fixed) == 0 && strings.HasPrefix(pattern, "/"):
		// It names the path as it is after the prefix was taken off.
		return []string{p.strip + pattern}, true
	case p.changed():
		return nil, false
	}
	return nil, true
}

// paths are the path patterns, one of which a request must match; false if
// there is none.
func (c *cond) paths() ([]string, bool) {
	var paths []string
	for i, set := range c.sets {
		if _, ok := set["path"]; !ok {
			return nil, false
		}
		paths = append(paths, c.read[i]["path"]...)
	}
	return paths, len(paths) > 0
}

// shared reports whether the other place has the matcher around it too: then
// all requests there have met it.
func (p *place) shared(c *cond) bool {
	return slices.ContainsFunc(p.conds, func(d *cond) bool { return d.route == c.route })
}

// takes says how many of the requests that would come to a gate with a path come
// to this place too.
func (p *place) takes(g *Gate, path string) relation {
	met := all
	for _, c := range p.conds {
		if !g.at.shared(c) {
			met = min(met, c.meets(path, g.Hosts))
		}
	}
	return met
}

// ownPaths are example paths that lead to the place and not to the gate's whole
// list: those of its innermost matcher with paths.
func (p *place) ownPaths(g *Gate) []string {
	var examples []string
	for _, c := range p.conds {
		if g.at.shared(c) || c.changed {
			continue
		}
		if patterns, ok := c.paths(); ok {
			examples = nil
			for _, pattern := range patterns {
				if path, ok := pricing.Example(pattern); ok {
					examples = append(examples, path)
				}
			}
		}
	}
	return examples
}

// strs reads a list of strings; what is none has no members.
func strs(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	return list
}
