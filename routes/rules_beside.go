package routes

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// What stands behind the gate can be had beside it too: another route of the site serves
// from the same place, and a matcher decides who goes where. The gate reads a request in
// every way in which an upstream may; matchers of Caddy read it in one. So whatever they
// send beside the gate, somebody can word so that it is served as what has a price.

// avoids are the matchers by which a request gets to the answerer, and not through the
// gate.
func (g *Gate) avoids(a *answerer) []*cond {
	var conds []*cond
	add := func(list []*cond, other *place) {
		for _, c := range list {
			if !other.shared(c) && !slices.ContainsFunc(conds, func(d *cond) bool { return d.route == c.route }) {
				conds = append(conds, c)
			}
		}
	}
	if a.at.server == g.Server {
		add(g.at.conds, &a.at)
		for _, others := range g.at.others {
			if !slices.ContainsFunc(a.at.others, func(o []*cond) bool { return len(o) > 0 && len(others) > 0 && o[0].route == others[0].route }) {
				add(others, &place{})
			}
		}
	}
	if !slices.Contains(a.at.gates, g) {
		add(a.at.conds, &g.at)
	}
	return conds
}

// lets says how many of the requests on a trail to an answerer went through the gate.
func (g *Gate) lets(a *answerer, t *trail) relation {
	if !slices.Contains(a.at.gates, g) {
		return none
	}
	met := all
	for _, c := range g.at.conds {
		if !a.at.shared(c) {
			met = min(met, c.meetsOne(t.at(c.steps), g.Hosts, false))
		}
	}
	for _, others := range g.at.others {
		for _, c := range others {
			if a.at.shared(c) || slices.ContainsFunc(a.at.others, func(o []*cond) bool { return len(o) > 0 && o[0].route == others[0].route }) {
				continue
			}
			switch c.meetsOne(t.at(c.steps), g.Hosts, false) {
			case all:
				return none
			case some:
				met = min(met, some)
			}
		}
	}
	return met
}

// besides reports whether the answerer stands in the gate's site, and serves what may be
// the same goods without standing behind the gate.
func (b *behind) besides(a *answerer) bool {
	g := b.g
	if a.at.inError || !a.goods() || slices.Contains(a.at.gates, g) {
		return false
	}
	if a.at.server == g.Server {
		return (len(a.hosts) == 0 || slices.Equal(a.hosts, g.Hosts)) && b.kin(a)
	}
	return meetsHost(a.hosts, g.Hosts) != none && b.kin(a)
}

// kin reports whether something behind the gate serves from where the answerer does.
func (b *behind) kin(a *answerer) bool {
	return slices.ContainsFunc(b.answerers, func(o *answerer) bool { return o != a && a.kin(o) })
}

// kin reports whether both serve from the same server, or from directories of which one
// may lie in the other.
func (a *answerer) kin(o *answerer) bool {
	if a.handler.Name != "file_server" || o.handler.Name != "file_server" {
		return a.handler.Name == o.handler.Name && a.asks(o)
	}
	if a.foreignDirectory() != "" {
		return true
	}
	for _, dir := range a.dirs() {
		for _, other := range o.dirs() {
			if within(dir, other) || within(other, dir) {
				return true
			}
		}
	}
	return false
}

func within(dir, other string) bool {
	return dir == other || other == "/" || strings.HasPrefix(dir, other+"/")
}

// dirs are the directories from which a file server may serve.
func (a *answerer) dirs() []string {
	if a.dir != "" {
		return []string{path.Clean(a.dir)}
	}
	dirs := make([]string, 0, 1+len(a.at.roots))
	for _, r := range a.at.roots {
		dirs = append(dirs, path.Clean(r.root))
	}
	if len(dirs) == 0 {
		dirs = append(dirs, ".")
	}
	return dirs
}

// foreignDirectory is the placeholder by which somebody else names the directory.
func (a *answerer) foreignDirectory() string {
	if a.dir != "" || a.named != "" {
		return a.named
	}
	for _, r := range a.at.roots {
		if r.foreign != "" {
			return r.foreign
		}
	}
	return ""
}

// checkBeside finds a way to the goods that does not lead through the gate, to an answerer
// that stands beside it or that not all reach through it, and reports whether there is one.
func (b *behind) checkBeside(a *answerer) bool {
	if b.keptOut(a) {
		return false
	}
	aside := !slices.Contains(a.at.gates, b.g) && a.at.server == b.g.Server
	return aside && (b.checkPast(a) || b.checkNamedPast(a)) || b.checkReadings(a)
}

const beforeBoth = "put one paywall block without a matcher before both, with `free` lines for what costs nothing"

// checkPast finds a path for which the answerer serves what costs something by another name.
func (b *behind) checkPast(a *answerer) bool {
	if len(a.at.steps) == 0 {
		return false // under its own name it is answered before the paywall, or matchers keep it away
	}
	seeds := a.at.seedPaths()
	for l, priced := range b.priced(a) {
		for _, path := range append(seeds, a.at.origins(priced)...) {
			for _, t := range b.serves(a, path) {
				if path == t.now() || b.decide(l, &t) != pricing.Free {
					continue
				}
				if sold := b.sold(a, l, &t); sold != "" {
					b.find(b.g, Warning, RuleAround, "%s does not stand behind the paywall, and serves for %s what %s is behind it, which costs something; "+beforeBoth+", and price %[2]s too",
						a.name(), path, sold)
					return true
				}
			}
		}
	}
	return false
}

// sold is a path for which a line charges behind the gate, with the goods that a request
// gets of an answerer beside it; "" if there is none.
func (b *behind) sold(a *answerer, l Line, at *trail) string {
	if at.tried && pricing.Covers(l.Path, "/x") {
		return "" // what covers everything does not name the file
	}
	for _, o := range b.answerers {
		if o == a || !a.kin(o) {
			continue
		}
		for _, name := range o.names(b.g, a, at) {
			for _, received := range o.at.origins(name) {
				for _, t := range b.serves(o, received) {
					if b.sameGoods(a, at, o, &t) && b.charged(l, &t) {
						return received
					}
				}
			}
		}
	}
	return ""
}

// names are the paths of what an answerer may serve that another one serves for a request.
func (o *answerer) names(g *Gate, a *answerer, at *trail) []string {
	if a.handler.Name != "file_server" {
		return []string{at.now()}
	}
	var names []string
	file := a.source(g, at)
	for _, dir := range o.dirs() {
		if name, ok := strings.CutPrefix(file, "file:"+strings.TrimSuffix(dir, "/")+"/"); ok {
			names = append(names, "/"+name)
		} else if dir == "." {
			names = append(names, "/"+strings.TrimPrefix(file, "file:"))
		}
	}
	return names
}

func (b *behind) sameGoods(a *answerer, at *trail, o *answerer, t *trail) bool {
	if a.handler.Name == "file_server" {
		return a.source(b.g, at) == o.source(b.g, t)
	}
	return at.now() == t.now()
}

// charged reports whether the line prices a request behind the gate.
func (b *behind) charged(l Line, t *trail) bool {
	switch b.decide(l, t) {
	case pricing.Free, pricing.Undecided, pricing.MethodNotAllowed:
		return false
	}
	return pricing.Covers(l.Path, t.path[0]) || pricing.Covers(l.Path, t.at(len(b.g.at.steps)))
}

// checkNamedPast finds answerers beside the gate for which somebody else names the path.
func (b *behind) checkNamedPast(a *answerer) bool {
	for i := range a.at.steps {
		if s := &a.at.steps[i]; s.foreign != "" {
			b.find(b.g, Warning, RuleAround, "%s says which path %s serves beside the paywall: it can serve what costs something behind it; "+beforeBoth+", or name the path in the config",
				s.foreign, a.name())
			return true
		}
	}
	return false
}

// checkReadings finds matchers that send beside the gate what an upstream can take for
// something that has a price.
func (b *behind) checkReadings(a *answerer) bool {
	priced := ""
	for i := range b.g.Lines {
		if priced = b.g.Examples[i]; priced != "" {
			break
		}
	}
	if priced == "" || !b.reached(a) {
		return false
	}
	var words []string
	reads := false
	for _, c := range b.g.avoids(a) {
		names := map[string]bool{}
		for _, set := range c.sets {
			matcherNames("", set, names)
		}
		delete(names, "host")
		delete(names, "not host")
		if a.handler.Name == "file_server" { // which reads paths as Caddy's matcher does
			delete(names, "path")
			delete(names, "not path")
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			words = append(words, "`"+name+"`")
			switch strings.TrimPrefix(name, "not ") {
			case "path", "path_regexp", "method", "query", "expression", "file", "url_pattern":
				reads = true
			}
		}
	}
	if len(words) == 0 {
		return false
	}
	slices.Sort(words)
	matchers := strings.Join(slices.Compact(words), ", ")
	does := "serves from where what is behind the paywall comes from, and"
	if slices.Contains(a.at.gates, b.g) {
		does = "serves what has a price, and"
	}
	if reads && a.handler.Name != "file_server" {
		b.find(b.g, Warning, RuleAround,
			"%s %s gets requests that did not pass the paywall: the matchers between (%s) read a request in one way, and what serves it may read %s in others (`/index.php/x`, `/x;a`, `X-Original-URL`, `p[]=1`, `_method` …); "+beforeBoth,
			a.name(), does, matchers, priced)
		return true
	}
	b.find(b.g, Warning, RuleAround,
		"%s %s gets requests that did not pass the paywall: the matchers between (%s) can send those for %s there too; if that is not meant, "+beforeBoth,
		a.name(), does, matchers, priced)
	return true
}

// matcherNames adds the names of matchers, those in a `not` with that word.
func matcherNames(prefix string, set matcherSet, names map[string]bool) {
	for name, raw := range set {
		var nested []matcherSet
		if name != "not" || prefix != "" || json.Unmarshal(raw, &nested) != nil {
			names[prefix+name] = true
			continue
		}
		for _, inner := range nested {
			matcherNames("not ", inner, names)
		}
	}
}

// reached reports whether something is left for the answerer by those that stand before it.
func (b *behind) reached(a *answerer) bool {
	if a.at.server != b.g.Server || !slices.Equal(a.hosts, b.g.Hosts) {
		return true
	}
	stopped := false
	for _, path := range a.at.seedPaths() {
		if len(a.at.follow(b.view(a), path)) == 0 {
			continue
		}
		if len(b.serves(a, path)) > 0 {
			return true
		}
		stopped = true
	}
	return !stopped
}

// keptOut reports whether those who come to the answerer without passing the gate pass
// another one that charges them, or log in by a password that the config names.
func (b *behind) keptOut(a *answerer) bool {
	for _, other := range a.at.gates {
		if other == b.g || len(other.avoids(a)) > 0 {
			continue
		}
		charges := func(path string) bool { return other.prices(path) }
		if paths := a.at.ownPaths(b.g); len(paths) > 0 {
			if !slices.ContainsFunc(paths, func(p string) bool { return !charges(p) }) {
				return true
			}
			continue
		}
		if !slices.ContainsFunc(b.g.Examples, func(p string) bool { return p != "" && !charges(p) }) {
			return true
		}
	}
	return slices.ContainsFunc(a.at.raisers, func(r wrap) bool {
		return r.handler.Name == "authentication" && r.basic() && !slices.ContainsFunc(r.at.conds, func(c *cond) bool { return !a.at.shared(c) })
	})
}

// basic reports whether the users of a login are those in the config.
func (r *wrap) basic() bool {
	var login struct{ Providers map[string]json.RawMessage }
	if !r.handler.read(&login) {
		return false
	}
	_, ok := login.Providers["http_basic"]
	return ok && len(login.Providers) == 1
}
