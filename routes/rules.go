package routes

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// maxNamed is how many lines are named in one finding's place; a price list can
// have 100,000.
const maxNamed = 5

// twins finds blocks that should be one: adjacent, with the same matcher.
func (w *walk) twins(routes []Route, p place) {
	first := map[string]bool{}
	for i := range routes {
		r := &routes[i]
		n := 0
		for _, h := range r.Handle {
			if h.Name == "paywall" {
				n++
			}
		}
		if n == 0 {
			continue
		}
		key := matchKey(r)
		if n > 1 || first[key] {
			inner := p.with(r, branch{})
			g := &Gate{Listen: w.config.Servers[p.server].Listen, Hosts: inner.hosts()}
			w.find(g, Error, RuleTwoBlocks, "two paywall blocks with the same matcher stand side by side; put all prices into one block")
		}
		first[key] = true
	}
}

// matchKey is the same for matchers that are the same.
func matchKey(r *Route) string {
	raw, err := json.Marshal(r.Match) // maps are sorted
	if err != nil {
		return ""
	}
	var compact bytes.Buffer
	if json.Compact(&compact, raw) != nil {
		return string(raw)
	}
	return compact.String()
}

// checkReach finds prices that no request comes to, and those that a rewrite
// makes ambiguous.
func (w *walk) checkReach(g *Gate) {
	named := 0
	for i, l := range g.Lines {
		if named == maxNamed {
			return
		}
		paths, known := g.at.reach(l.Path)
		if known && len(paths) == 0 {
			w.find(g, Warning, RuleNeverReached, "no request comes to the line %s: a path matcher around the paywall excludes its path", l)
			named++
			continue
		}
		if w.ambiguous(g, l, g.Examples[i]) {
			w.find(g, Warning, RuleRewritten,
				"%s is answered 400 (ambiguous_path), never sold: the path is changed before the paywall, which prices it as it was received and as it is now, and finds two prices; put the paywall before what changes the path",
				l)
			named++
		}
	}
}

// ambiguous reports whether the path has two prices: one as it was received, one
// as it was rewritten.
func (w *walk) ambiguous(g *Gate, l Line, received string) bool {
	if received == "" || g.list == nil || g.at.unknown || !g.at.changed() || g.decide(l.Methods, received) == pricing.Ambiguous {
		return false
	}
	now := received
	if stripped, ok := strings.CutPrefix(received, g.at.strip); g.at.strip != "" && ok {
		now = "/" + strings.TrimPrefix(stripped, "/")
	}
	if g.decide(l.Methods, received, now) == pricing.Ambiguous {
		return true
	}
	return len(g.at.fixed) == 1 && g.decide(l.Methods, received, g.at.fixed[0]) == pricing.Ambiguous
}

// checkBefore finds what answers a priced path before the gate, and returns what it told of.
func (w *walk) checkBefore(g *Gate) (told []*answerer) {
	for _, a := range w.before[g] {
		if a.instead != "" && slices.ContainsFunc(told, func(o *answerer) bool { return o.order == a.order }) {
			continue // whom it answers for is told of
		}
		for i, l := range g.Lines {
			met := none
			for _, path := range g.groups[i] {
				met = max(met, a.at.takes(g, path))
			}
			if met == none {
				continue
			}
			paths, known := g.meeting(i, a.at.conds)
			if w.guarded(a, g, paths) {
				continue
			}
			if met == all && a.sure && a.instead == "" && !l.Matched {
				w.find(g, Error, RuleAnsweredBefore,
					"%s answers before the paywall and takes all requests to %s: they are served without payment; move it behind the paywall", a.what, l)
				told = append(told, a)
				break
			}
			at, costs := 0, func(p string) bool { return g.decide(l.Methods, p) != pricing.Free }
			if own := a.at.ownPaths(g); met == some && len(own) > 0 {
				if !known {
					paths = append(paths, own...)
				}
				if at = slices.IndexFunc(paths, costs); at < 0 {
					continue // what it takes is free
				}
			}
			example := ""
			if at < len(paths) && costs(paths[at]) {
				example = " (" + paths[at] + ", for example)"
			}
			w.find(g, Warning, RuleAnsweredBefore,
				"%s may answer requests to %s%s before the paywall, without payment; if that is not meant, move it behind the paywall", a.name(), l, example)
			told = append(told, a)
			break
		}
	}
	return told
}

// guarded reports whether the answerer stands behind another gate that prices
// the paths, or what else it takes.
func (w *walk) guarded(a *answerer, g *Gate, paths []string) bool {
	if len(paths) == 0 {
		paths = a.at.ownPaths(g)
	}
	for _, other := range a.at.gates {
		if len(paths) > 0 && !slices.ContainsFunc(paths, func(p string) bool { return !other.charges(p) }) {
			return true
		}
	}
	return false
}

// checkOuterGates finds prices that an outer block charges for first.
func (w *walk) checkOuterGates(g *Gate) {
	for _, outer := range g.at.gates {
		for i, l := range g.Lines {
			path := g.Examples[i]
			if path == "" {
				continue
			}
			met := all
			for _, c := range outer.at.conds {
				if !g.at.shared(c) {
					met = min(met, c.meets(g.groups[i][0], g.Hosts))
				}
			}
			if met != none && outer.decide(l.Methods, path) == pricing.Priced {
				w.find(g, Warning, RuleTwoBlocks,
					"%s stands behind another paywall block that prices the path too: whoever pays there gets 500 here; put all prices into one block", l)
				return
			}
		}
	}
}

// checkWraps finds caches and intercepts around the gate.
func (w *walk) checkWraps(g *Gate) {
	for _, around := range g.at.wraps {
		switch {
		case w.meetsGate(&around.at, g) == none:
		case around.handler.Name != "intercept":
			w.find(g, Error, RuleCache,
				"the cache (%s) stands before the paywall: what it keeps of paid answers it hands to all who ask; put it behind, with the global option `order %s after paywall`",
				around.handler.Name, around.handler.Name)
		default:
			w.checkIntercept(g, around)
		}
	}
}

// refusals are what else than 402 the gate answers, or an upstream whose answer is not sold.
var refusals = []int{4, 5, 400, 403, 405, 408, 409, 413, 425, 429, 500, 502, 503, 504}

func (w *walk) checkIntercept(g *Gate, around wrap) {
	for _, r := range around.handler.Responses {
		unpaid, refused := true, true
		if r.Match != nil && len(r.Match.StatusCode) > 0 {
			unpaid = slices.Contains(r.Match.StatusCode, 4) || slices.Contains(r.Match.StatusCode, 402)
			refused = slices.ContainsFunc(r.Match.StatusCode, func(s int) bool { return slices.Contains(refusals, s) })
		}
		if !unpaid && !refused {
			continue
		}
		inner := newWalk(w.config)
		inner.visits, inner.maxVisits = w.visits, w.maxVisits
		inner.list(r.Routes, around.at)
		w.visits, w.incomplete = inner.visits, w.incomplete || inner.incomplete
		for _, a := range inner.answerers {
			if !a.goods() || a.at.changed() || len(a.at.gates) != len(around.at.gates) {
				continue
			}
			if unpaid {
				w.find(g, Error, RuleIntercept, "intercept stands before the paywall and answers its 402 by %s: priced paths are served without payment; put it behind the paywall", a.what)
				return
			}
			w.find(g, Warning, RuleIntercept, "intercept stands before the paywall and answers its refusals (%v) by %s: whoever causes one can get priced paths without payment; put it behind the paywall, or rewrite to an error page",
				r.Match.StatusCode, a.what)
			return
		}
		if !unpaid {
			continue
		}
		w.find(g, Warning, RuleIntercept, "intercept stands before the paywall and can replace its 402; put it behind, or let it leave 402 alone")
		return
	}
}

// goods reports whether what it serves depends on the path.
func (a *answerer) goods() bool {
	switch a.handler.Name {
	case "reverse_proxy", "file_server", "php":
		return true
	}
	return false
}
