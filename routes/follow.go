package routes

import (
	"path"
	"slices"
	"strings"
)

// trail is one way that a request can take through the config.
type trail struct {
	// path is its path: as it was received, and after each step.
	path []string
	// took are the branches that it went through.
	took []branch
	// relation says whether all requests with the path go this way, as far as
	// path and host tell.
	relation relation
	// tried says that its path is one of several that try_files chose from.
	tried bool
	// by is who is to serve it, where its way there may lead past the gate.
	by *answerer
}

// now is the path as it is.
func (t *trail) now() string { return t.path[len(t.path)-1] }

// at is the path after some steps.
func (t *trail) at(steps int) string { return t.path[min(steps, len(t.path)-1)] }

// meets says how far a request on the trail meets all of the matchers.
func (t *trail) meets(conds []*cond, g *Gate) relation {
	met := all
	for _, c := range conds {
		met = min(met, c.meetsOne(t.at(c.steps), g.Hosts, g.at.shared(c)))
	}
	return met
}

// meetsOne says how far requests with one path meet the matcher; those at the
// gate have met what the gate has around it too, but for other paths.
func (c *cond) meetsOne(path string, hosts []string, shared bool) relation {
	best := none
	for i, set := range c.sets {
		met := all
		for name := range set {
			switch {
			case name == "path":
				met = min(met, meetsPath(c.read[i]["path"], path))
			case name == "path_regexp" && c.regexps[i] != nil:
				if !c.regexps[i].MatchString(path) {
					met = none
				}
			case shared:
			case name == "host":
				met = min(met, meetsHost(c.read[i]["host"], hosts))
			default:
				met = min(met, some)
			}
		}
		best = max(best, met)
	}
	return best
}

// excluded reports whether a route of the same group was taken.
func (t *trail) excluded(b branch) bool {
	return b.group.name != "" && slices.ContainsFunc(t.took, func(o branch) bool { return o.group == b.group && o.route != b.route })
}

// follow takes a request with a path through what stands before a place. It
// returns the ways on which it comes there; what cannot be told is left out.
func (p *place) follow(g *Gate, path string) []trail {
	trails := []trail{{path: []string{path}, took: p.branches, relation: all}}
	for i := range p.steps {
		s := &p.steps[i]
		var next []trail
		for _, t := range trails {
			met := none
			if !t.excluded(s.branch) {
				met = t.meets(s.conds, g)
			}
			if met != all {
				stays := t
				stays.path = append(slices.Clip(t.path), t.now())
				if met == some {
					stays.relation = some
				}
				next = append(next, stays)
			}
			if met == none {
				continue
			}
			became := s.forward(&t)
			for _, path := range became {
				goes := t
				goes.path = append(slices.Clip(t.path), path)
				goes.took = append(slices.Clip(t.took), s.branch)
				goes.relation = min(goes.relation, met)
				if len(became) > 1 {
					goes.relation = some
				}
				goes.tried = t.tried || s.tries && path != t.now()
				next = append(next, goes)
			}
		}
		trails = next[:min(len(next), maxWays)]
	}
	var come []trail
	for _, t := range trails {
		if t.relation = min(t.relation, t.meets(p.conds, g)); t.relation != none {
			come = append(come, t)
		}
	}
	return come
}

// source names what an answerer gives for a request that comes on a trail: the
// same for the same goods.
func (a *answerer) source(g *Gate, t *trail) string {
	if a.handler.Name != "file_server" {
		return a.backend + " " + t.now()
	}
	return "file:" + path.Join(a.root(g, t), t.now())
}

// root is the directory of files for a request.
func (a *answerer) root(g *Gate, t *trail) string {
	if a.dir != "" {
		return a.dir
	}
	root, took := "", branch{}
	there := &Gate{Hosts: g.Hosts, at: place{conds: a.at.conds}} // whoever comes has met these
	for _, r := range a.at.roots {
		switch {
		case r.group.name != "" && r.group == took.group && r.route != took.route:
		case t.meets(r.conds, g) == all || t.meets(r.conds, there) == all:
			root, took = r.root, r.branch
		}
	}
	if root == "" {
		root = "."
	}
	return root
}

// origins guesses the paths of requests which come to a place with this path.
func (p *place) origins(path string) []string {
	paths := []string{path}
	for _, v := range slices.Backward(p.steps) {
		var back []string
		for _, path := range paths {
			for _, guess := range v.backward(path) {
				if guess = absolute([]string{guess})[0]; len(back)+len(paths) < maxWays && !slices.Contains(paths, guess) && !slices.Contains(back, guess) {
					back = append(back, guess)
				}
			}
		}
		paths = append(paths, back...)
	}
	return paths
}

// seedPaths are paths that the config itself says something about on the way to
// a place, and two that it may say nothing about.
func (p *place) seedPaths() []string {
	var paths []string
	conds := p.conds
	for i := range p.steps {
		paths = append(paths, p.steps[i].seeds...)
		conds = append(slices.Clip(conds), p.steps[i].conds...)
	}
	for _, c := range conds {
		for i := range c.sets {
			for _, pattern := range c.read[i]["path"] {
				if example, ok := exampleOf(pattern); ok {
					paths = append(paths, example)
				}
			}
			if r := c.regexps[i]; r != nil {
				paths = append(paths, absolute([]string{r.example(nil)})...)
			}
		}
	}
	paths = append(paths, "/", "/x")
	slices.Sort(paths)
	return slices.Compact(slices.DeleteFunc(paths, func(p string) bool { return !strings.HasPrefix(p, "/") }))
}
