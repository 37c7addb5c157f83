package routes

import (
	"path"
	"slices"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// checkBehind finds other names for the goods: behind the gate a path that is
// free is changed to one that costs something. The gate prices what it sees.
func (w *walk) checkBehind(g *Gate) {
	if g.at.changed() || g.list == nil {
		return
	}
	w.checkIndexFiles(g)
	for _, a := range w.answerers {
		if a.at.inError || a.at.unknown || !a.at.changed() || !a.goods() || !slices.Contains(a.at.gates, g) {
			continue
		}
		for i, l := range g.Lines {
			path, alias := g.Examples[i], ""
			if path != "" && a.at.strip != "" && g.free(l, a.at.strip+path) && a.at.takes(g, a.at.strip+path) != none {
				alias = a.at.strip + path
			}
			for _, fixed := range a.at.fixed {
				own := slices.IndexFunc(a.at.ownPaths(g), func(p string) bool { return g.free(l, p) })
				if pricing.Covers(l.Path, fixed) && g.decide(l.Methods, fixed) == pricing.Priced && own >= 0 {
					path, alias = fixed, a.at.ownPaths(g)[own]
				}
			}
			if alias != "" && !w.servedElsewhere(g, a, path) {
				w.find(g, Warning, RuleAlias,
					"%s is free, and behind the paywall it becomes %s, which costs something: %s serves that for nothing; price %[1]s too, or put the paywall behind what changes the path",
					alias, path, a.what)
				break
			}
		}
	}
}

// checkIndexFiles finds files that are served for their folder too, which is free.
func (w *walk) checkIndexFiles(g *Gate) {
	for _, a := range w.answerers {
		if a.at.inError || a.at.changed() || a.handler.Name != "file_server" || !slices.Contains(a.at.gates, g) {
			continue
		}
		files := struct {
			Index []string `json:"index_names"`
		}{[]string{"index.html", "index.txt"}} // Caddy's default
		a.handler.read(&files)
		for _, l := range g.Lines {
			folder, file := path.Split(l.Path)
			if slices.Contains(files.Index, file) && g.free(l, folder) && a.at.takes(g, folder) != none {
				w.find(g, Warning, RuleAlias, "%s is free, and %s serves %s for it, which costs something; price %[1]s too", folder, a.what, l.Path)
				return
			}
		}
	}
}

// free reports whether the block asks nothing for a path.
func (g *Gate) free(l Line, path string) bool { return g.decide(l.Methods, path) == pricing.Free }

// servedElsewhere reports whether the goods of a path come from another place
// than where the answerer gets what it serves: then its path of the same name is
// something else.
func (w *walk) servedElsewhere(g *Gate, a *answerer, path string) bool {
	elsewhere := false
	for _, b := range w.answerers {
		if b == a || b.at.inError || b.at.changed() || !b.goods() || !slices.Contains(b.at.gates, g) || b.at.takes(g, path) == none {
			continue
		}
		if b.backend == a.backend {
			return false
		}
		elsewhere = true
	}
	return elsewhere
}
