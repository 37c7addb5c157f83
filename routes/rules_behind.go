package routes

import (
	"fmt"
	"iter"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// The gate prices the path and the method that it sees. These rules look for
// other names of the goods behind it: a free request that is changed to a priced
// one, and a priced path whose goods have a second name, which is free.
//
// What a file server does by itself (index files, sidecars) nobody has asked for
// when he wrote a price, so what surely opens the gate is an error. A change of
// the path stands in the config in so many words, and is a warning.

// behind is what stands behind one gate.
type behind struct {
	*walk
	g *Gate
	// answerers serve goods there, beside serve them beside the gate, and stops end the
	// way of requests to them, also before the gate.
	answerers, beside, stops []*answerer
	// seen is the gate as requests to an answerer see it; see behind.view.
	seen map[*answerer]*Gate
}

// maxFollowed bounds how much is followed: a price list can have 100,000 lines, and
// a site as many handlers.
const maxFollowed = 20_000_000

// checkBehind looks at what stands behind the gate and beside it, but for what other rules
// have told of.
func (w *walk) checkBehind(g *Gate, told []*answerer) {
	if g.list == nil {
		return
	}
	b := &behind{walk: w, g: g, seen: map[*answerer]*Gate{}}
	for _, a := range w.answerers {
		if a.servesBehind(g) {
			b.answerers = append(b.answerers, a)
		}
	}
	for _, a := range w.stops {
		if a.at.server == g.Server && !a.at.inError && (len(a.hosts) == 0 || meetsHost(a.hosts, g.Hosts) != none) {
			b.stops = append(b.stops, a)
		}
	}
	for _, a := range slices.Concat(w.answerers, w.responders) {
		if b.besides(a) && !slices.Contains(told, a) && !b.keptOut(a) && !b.checkBeside(a) {
			b.beside = append(b.beside, a)
		}
	}
	for _, a := range b.answerers {
		b.checkBeside(a)
		b.checkAliases(a)
		b.checkMethod(a)
		b.checkHeaders(a)
		b.checkOtherNames(a)
		b.checkQuery(a)
		b.checkFolders(a)
		if a.handler.Name == "file_server" {
			b.checkFiles(a)
			b.checkRoots(a)
			b.checkForeignRoot(a)
			b.checkForeignIndex(a)
		}
	}
	for _, a := range w.responders {
		if a.servesBehind(g) {
			b.checkAliases(a)
		}
	}
	for _, a := range b.beside {
		if a.handler.Name == "file_server" && a.at.server == g.Server {
			b.checkForeignRoot(a)
			b.checkForeignIndex(a)
		}
	}
}

func (a *answerer) servesBehind(g *Gate) bool {
	return !a.at.inError && a.goods() && slices.Contains(a.at.gates, g)
}

// serves are the ways on which a request with a path gets to an answerer, and is
// not answered by somebody else.
func (b *behind) serves(a *answerer, path string) []trail {
	if b.followed > maxFollowed {
		b.incomplete = true
		return nil
	}
	view := b.view(a)
	trails := a.at.follow(view, path)
	b.followed += 1 + len(trails)*len(a.at.steps)
	for _, stop := range b.stops {
		if stop.order >= a.order || len(trails) == 0 {
			break // they are in order
		}
		b.followed += 1 + len(trails)*len(stop.at.steps)
		met := none
		for _, t := range stop.at.follow(view, path) {
			met = max(met, t.relation)
		}
		if met == all && stop.sure {
			return nil
		}
		if met != none {
			for i := range trails {
				trails[i].relation = some
			}
		}
	}
	for i := range trails {
		trails[i].by = a
	}
	return trails
}

// view is the gate to which requests to an answerer are related: whoever comes through it
// has met all that stands around it, and whoever comes past it what stands around both.
func (b *behind) view(a *answerer) *Gate {
	if view := b.seen[a]; view != nil {
		return view
	}
	view := b.g
	if !slices.Contains(a.at.gates, b.g) || len(b.g.avoids(a)) > 0 {
		view = &Gate{Hosts: b.g.Hosts}
		for _, c := range b.g.at.conds {
			if a.at.shared(c) {
				view.at.conds = append(view.at.conds, c)
			}
		}
	}
	b.seen[a] = view
	return view
}

// fileServers are all whose files may be the gate's.
func (b *behind) fileServers() (list []*answerer) {
	for _, a := range slices.Concat(b.answerers, b.beside) {
		if a.handler.Name == "file_server" && a.at.server == b.g.Server {
			list = append(list, a)
		}
	}
	return list
}

// decide asks the gate about a request on a trail, with a method that the line is
// for: it prices the path as it was received and as it comes there. What does not come
// through it is free.
func (b *behind) decide(l Line, t *trail) pricing.Kind {
	if t.by != nil && b.g.lets(t.by, t) == none {
		return pricing.Free
	}
	return b.g.decide(l.Methods, t.path[0], t.at(len(b.g.at.steps)))
}

// priced are the lines, each with paths that cost something and may come to the answerer.
func (b *behind) priced(a *answerer) iter.Seq2[Line, string] {
	return func(yield func(Line, string) bool) {
		for i, l := range b.g.Lines {
			for _, path := range b.g.examples(i, a) {
				if !yield(l, path) {
					return
				}
			}
		}
	}
}

// checkAliases finds free paths that become priced ones.
func (b *behind) checkAliases(a *answerer) {
	if len(a.at.steps) == 0 {
		return
	}
	seeds := a.at.seedPaths()
	for l, priced := range b.priced(a) {
		for _, path := range append(seeds, a.at.origins(priced)...) {
			for _, t := range b.serves(a, path) {
				if path == t.now() || b.decide(l, &t) != pricing.Free || !b.costs(l, &t) || b.elsewhere(a, &t) {
					continue
				}
				b.find(b.g, Warning, RuleAlias,
					"%s is free, and behind the paywall it becomes %s, which costs something: %s serves that for nothing; price %[1]s too, or put the paywall behind what changes the path",
					path, t.now(), a.name())
				return
			}
		}
		if b.checkForeign(a, l, priced, seeds) {
			return
		}
	}
}

// costs reports whether the path that a request has become is what the line
// prices.
func (b *behind) costs(l Line, t *trail) bool {
	now := t.now()
	if k := b.g.decide(l.Methods, now); k == pricing.Free || k == pricing.Undecided || k == pricing.MethodNotAllowed {
		return false
	}
	if !pricing.Covers(l.Path, now) {
		return false
	}
	if t.tried {
		return !pricing.Covers(l.Path, "/x") // what covers everything does not name the file
	}
	return true
}

// checkForeign finds paths that the client or an upstream names behind the gate.
func (b *behind) checkForeign(a *answerer, l Line, priced string, seeds []string) bool {
	for i := range a.at.steps {
		s := &a.at.steps[i]
		if s.foreign == "" || i < len(b.g.at.steps) || b.comesFromElsewhere(a, priced) {
			continue
		}
		before := a.at
		before.steps, before.conds = before.steps[:i], s.conds
		for _, path := range seeds {
			for _, t := range before.follow(b.g, path) {
				if b.decide(l, &t) != pricing.Free {
					continue
				}
				b.find(b.g, Warning, RuleAlias,
					"behind the paywall %s says which path %s serves: a request to %s, which is free, can get %s, which costs something; put the paywall behind what changes the path, price %[3]s too, or keep what %[2]s serves out of the price list's paths",
					s.foreign, a.name(), path, priced)
				return true
			}
		}
	}
	return false
}

// comesFromElsewhere is elsewhere for a path that is named for the answerer: what the
// config makes of that path when it is asked for says nothing then.
func (b *behind) comesFromElsewhere(a *answerer, path string) bool {
	return b.elsewhere(a, &trail{path: []string{path}}) && slices.ContainsFunc(b.answerers, func(o *answerer) bool {
		return o != a && len(b.serves(o, path)) > 0
	})
}

// name is the answerer in messages.
func (a *answerer) name() string {
	if a.instead != "" {
		return a.what + " (in handle_response of " + a.instead + ")"
	}
	return a.what
}

// elsewhere reports whether the goods of the path that a request has become come
// from another place than where the answerer gets what it serves: then its path
// of the same name is something else.
func (b *behind) elsewhere(a *answerer, at *trail) bool {
	elsewhere := false
	source := a.source(b.g, at)
	for _, o := range b.answerers {
		if a.instead == o.handler.Name && o.order == a.order {
			return false // it answers for this one, also where the path is asked for
		}
		for _, t := range b.serves(o, at.now()) {
			if o.source(b.g, &t) == source {
				return false
			}
			// Where a proxy puts something before every path, the price may stand
			// for a name of the upstream.
			elsewhere = elsewhere || o != a || a.handler.Name == "file_server" || len(t.now()) < len(at.now())
		}
	}
	return elsewhere
}

// indexFiles are what servers behind a proxy serve for their folder, unless told otherwise.
var indexFiles = []string{"index.html", "index.htm", "index.php"}

// checkFolders finds files that are served for their folder too, which is free: by a
// price for the file, or for all of its kind (`*.html`).
func (b *behind) checkFolders(a *answerer) {
	index := indexFiles
	if a.handler.Name == "file_server" {
		index = a.files.Index
	}
	for l, priced := range b.priced(a) {
		folder, _ := path.Split(priced)
		if pricing.Covers(l.Path, folder) {
			continue // it has another line, which says that it is free
		}
		for _, file := range index {
			name := folder + file
			if !pricing.Covers(l.Path, name) || b.g.decide(l.Methods, name) == pricing.Free || b.g.decide(l.Methods, folder) != pricing.Free {
				continue
			}
			others, does := []*answerer{a}, "may serve"
			if a.handler.Name == "file_server" {
				others, does = b.fileServers(), "serves"
			}
			for _, o := range others {
				if (o == a || slices.Contains(o.files.Index, file)) && b.same(a, folder, o, name) {
					b.find(b.g, Warning, RuleAlias, "%s is free, and %s %s %s for it, which costs something; price %[1]s too", folder, o.what, does, name)
					return
				}
			}
		}
	}
}

// same reports whether the first path gets to an answerer and the second to another one or
// the same, and they are still folder and file there.
func (b *behind) same(a *answerer, folder string, o *answerer, file string) bool {
	for _, f := range b.serves(o, folder) {
		for _, t := range b.serves(a, file) {
			if o != a && (o.source(b.g, &f)+"/"+path.Base(file) != a.source(b.g, &t) || path.Base(t.now()) != path.Base(file)) {
				continue
			}
			if below, ok := strings.CutPrefix(t.now(), f.now()); o != a || ok && below == path.Base(file) {
				return true
			}
		}
	}
	return false
}

// checkFiles finds second names of priced files: the name of an index file beside
// that of its folder, and those of the compressed files beside a file.
func (b *behind) checkFiles(a *answerer) {
	files, suffixes := a.files, a.files.suffixes()
	named := map[Severity]int{}
	for l, priced := range b.priced(a) {
		for _, t := range b.serves(a, priced) {
			if t.now() != priced && a.ordinary(b.g, t.now()) {
				continue // a program's entry
			}
			file, isFile := strings.TrimSuffix(t.now(), "/"), strings.Contains(path.Base(t.now()), ".")
			if !isFile {
				for _, index := range files.Index {
					name := path.Join("/", file, index)
					if o, open, severity := b.open(a, l, &t, name); open != "" && named[severity] < maxNamed {
						named[severity]++
						b.find(b.g, severity, RuleAlias, "%s costs something, and %s serves its index file at %s too, which is free; %s",
							priced, o.what, open, b.remedy(o, l, path.Join("/", l.Path, "*"), open))
						break
					}
				}
			}
			names := []string{file}
			if !isFile && strings.HasSuffix(t.now(), "/") {
				names = nil
			}
			if !isFile {
				for _, index := range files.Index {
					names = append(names, path.Join("/", file, index))
				}
			}
			b.checkSidecars(a, l, &t, names, suffixes, named)
		}
		if named[Error]+named[Warning] >= maxNamed {
			return
		}
	}
}

func (b *behind) checkSidecars(a *answerer, l Line, t *trail, names, suffixes []string, named map[Severity]int) {
	for _, name := range names {
		for _, suffix := range suffixes {
			o, open, severity := b.open(a, l, t, name+suffix)
			if open == "" || named[severity] >= maxNamed {
				continue
			}
			named[severity]++
			pattern := l.Path + ".*"
			if path.Base(name) != path.Base(t.now()) {
				pattern = path.Join("/", l.Path, "*")
			}
			b.find(b.g, severity, RuleAlias,
				"%s costs something, and %s can have it compressed (precompressed) at %s, which is free; %s, or hide such files with `hide *%s`",
				t.path[0], o.what, open, b.remedy(o, l, pattern, open), suffix)
			return
		}
	}
}

// remedy says what to do where a file server serves for a free path what has a price.
func (b *behind) remedy(o *answerer, l Line, pattern, path string) string {
	add := "add " + remedy(l, pattern, path)
	if slices.Contains(b.beside, o) {
		add = "put the paywall block without a matcher before both, and " + add
	}
	return add
}

// open finds a file server and a free path for which it serves the file that has a name,
// where a priced request gets the same file of the answerer on a trail.
func (b *behind) open(a *answerer, l Line, paid *trail, name string) (by *answerer, found string, severity Severity) {
	if a.files.hides(path.Join(a.root(b.g, paid), name)) || len(b.beside) == 0 && b.g.decide(l.Methods, name) != pricing.Free {
		return nil, "", Warning // what becomes a priced path is found by checkAliases
	}
	file := "file:" + path.Join(a.root(b.g, paid), name)
	for _, o := range b.fileServers() {
		if o != a && (o.files.hides(strings.TrimPrefix(file, "file:")) || !a.kin(o)) {
			continue
		}
		names := []string{name}
		if o != a {
			names = o.names(b.g, a, &trail{path: []string{name}})
		}
		for _, name := range names {
			for _, received := range o.at.origins(name) {
				for _, t := range b.serves(o, received) {
					if t.now() != name || b.decide(l, &t) != pricing.Free || o != a && o.source(b.g, &t) != file {
						continue
					}
					if received != name && slices.Contains(b.beside, o) {
						continue // checkPast looks for what is changed there
					}
					if o.sure && !a.at.templates && !o.at.templates && !l.Matched && t.relation == all && paid.relation == all {
						return o, received, Error
					}
					if found == "" {
						by, found = o, received
					}
				}
			}
		}
	}
	return by, found, Warning
}

// remedy is a line to add, with the path where the pattern is none.
func remedy(l Line, pattern, path string) string {
	if pricing.CheckPattern(pattern) != nil || !pricing.Covers(pattern, path) {
		pattern = path
	}
	l.Path = pattern
	return l.String()
}

// checkRoots finds files that two file servers have, under two names.
func (b *behind) checkRoots(a *answerer) {
	several := slices.ContainsFunc(b.answerers, func(o *answerer) bool { return o != a && o.handler.Name == "file_server" })
	last := "" // of several paths of a line the second says nothing new here
	for l, priced := range b.priced(a) {
		if several && l.Path != last && b.deeper(a, l) {
			return
		}
		last = l.Path
		for _, o := range b.answerers {
			if o.handler.Name != "file_server" || len(a.at.roots)+len(o.at.roots) == 0 && a.dir == "" && o.dir == "" {
				continue
			}
			for _, paid := range b.serves(o, priced) {
				if b.sameFile(a, l, o, priced, &paid) {
					return
				}
			}
		}
	}
}

// deeper finds a free path for which files of a directory are served that lies in
// another one's, where they have a price.
func (b *behind) deeper(a *answerer, l Line) bool {
	for _, path := range a.at.seedPaths() {
		for _, t := range b.serves(a, path) {
			if b.decide(l, &t) != pricing.Free {
				continue
			}
			file := a.source(b.g, &t)
			for _, o := range b.answerers {
				if o == a || o.handler.Name != "file_server" {
					continue
				}
				root := strings.TrimSuffix(o.source(b.g, &trail{path: []string{"/"}}), "/")
				name, below := strings.CutPrefix(file, root+"/")
				if name = "/" + name; !below || name == path || !pricing.Covers(l.Path, name) {
					continue
				}
				for _, paid := range b.serves(o, name) {
					if k := b.decide(l, &paid); k != pricing.Free && k != pricing.MethodNotAllowed && o.source(b.g, &paid) == file {
						b.find(b.g, Warning, RuleAlias, "%s costs something, and %s serves the same file for %s, which is free; price %[3]s too", name, a.what, path)
						return true
					}
				}
			}
		}
	}
	return false
}

func (b *behind) sameFile(a *answerer, l Line, o *answerer, priced string, paid *trail) bool {
	file := o.source(b.g, paid)
	roots := []string{a.dir}
	if a.dir == "" {
		roots = nil
		for _, r := range a.at.roots {
			roots = append(roots, r.root)
		}
	}
	for _, root := range roots {
		name, below := strings.CutPrefix(file, "file:"+path.Clean(root)+"/")
		if !below || a == o && "/"+name == paid.now() {
			continue
		}
		for _, received := range append(a.at.origins("/"+name), a.at.seedPaths()...) {
			for _, t := range b.serves(a, received) {
				if b.decide(l, &t) == pricing.Free && a.source(b.g, &t) == file {
					b.find(b.g, Warning, RuleAlias, "%s costs something, and %s serves the same file for %s, which is free; price %[3]s too", priced, a.what, received)
					return true
				}
			}
		}
	}
	return false
}

// checkForeignRoot finds files of which somebody else names the directory.
func (b *behind) checkForeignRoot(a *answerer) {
	named := a.named
	for _, r := range a.at.roots {
		if a.dir == "" && named == "" {
			named = r.foreign
		}
	}
	if named == "" {
		return
	}
	for l := range b.priced(a) {
		for _, path := range a.at.seedPaths() {
			for _, t := range b.serves(a, path) {
				if b.decide(l, &t) == pricing.Free {
					b.find(b.g, Warning, RuleAlias, "%s says from which directory file_server serves: a request to %s, which is free, can get a file of %s, which costs something; price all of them, or name the directory in the config", named, path, l.Path)
					return
				}
			}
		}
	}
}

// checkForeignIndex finds files of which somebody else names the one that is served for a
// folder.
func (b *behind) checkForeignIndex(a *answerer) {
	if a.index == "" {
		return
	}
	for l, priced := range b.priced(a) {
		for _, folder := range append(a.at.seedPaths(), path.Dir(priced)) {
			for _, t := range b.serves(a, folder) {
				if b.decide(l, &t) != pricing.Free {
					continue
				}
				b.find(b.g, Warning, RuleAlias, "%s says which file file_server serves for a folder (`index`): a request to %s, which is free, can get a file of %s, which costs something; name the file in the config", a.index, folder, l.Path)
				return
			}
		}
	}
}

// checkQuery finds a query that is changed behind the gate, where a line looks at it, or
// upstreams look for the method.
func (b *behind) checkQuery(a *answerer) {
	for _, q := range a.at.query[min(len(b.g.at.query), len(a.at.query)):] {
		for _, line := range b.g.matched {
			if line.looks.reads(normal(queryPrefix + q.name)) {
				b.find(b.g, Warning, RuleAlias, "behind the paywall the query's %s is changed, and %s looks at it before: %s can serve for another query what that is for; change the query before the paywall", q.name, line.words, a.what)
				return
			}
		}
		if a.handler.Name == "file_server" || q.value == "" || q.value == "{http.request.method}" {
			continue
		}
		if q.over && a.at.expander().template(q.value).text&byPath != 0 {
			b.checkPathInQuery(a, q)
		}
		if name := parameter(q.name); name == "_method" {
			b.changedMethod(a, q.value, fmt.Sprintf("the query's %s is set to %s, which many frameworks take for the method", q.name, q.value))
		}
	}
}

// checkPathInQuery finds programs that are told the path by the query, where the client can
// say another one behind it.
func (b *behind) checkPathInQuery(a *answerer, q setQuery) {
	for l, priced := range b.priced(a) {
		for _, path := range a.at.seedPaths() {
			for _, t := range b.serves(a, path) {
				if b.decide(l, &t) != pricing.Free {
					continue
				}
				b.find(b.g, Warning, RuleAlias, "the query's %s says the path, and what the client sends comes behind it, which many programs take: %s?%[1]s=%[3]s, which is free, can get %[3]s of %[4]s, which costs something; put {query} before it, or leave {query} out",
					q.name, path, priced, a.what)
				return
			}
		}
	}
}

// checkOtherNames finds priced paths that become free ones, which serve the same
// when they are asked for.
func (b *behind) checkOtherNames(a *answerer) {
	if len(a.at.steps) == 0 {
		return
	}
	for l, priced := range b.priced(a) {
		for _, paid := range b.serves(a, priced) {
			name := paid.now()
			if name == priced || a.ordinary(b.g, name) || paid.tried && belowAFile(priced, name) {
				continue
			}
			if b.otherName(a, l, priced, &paid) {
				return
			}
		}
	}
}

// belowAFile reports whether one path lies below the other, which has an ending as files
// have: who tries `{path}/index.php` finds it there for a folder only.
func belowAFile(file, name string) bool {
	return strings.HasPrefix(name, file+"/") && strings.Contains(path.Base(file), ".")
}

// otherName finds a free path that becomes the one which a priced path has become, and
// reports whether there is one.
func (b *behind) otherName(a *answerer, l Line, priced string, paid *trail) bool {
	name := paid.now()
	others := b.answerers
	if a.handler.Name == "file_server" {
		others = b.fileServers()
	}
	for _, o := range others {
		if o != a && !a.kin(o) {
			continue
		}
		for _, received := range o.at.origins(name) {
			if received == name && a.handler.Name != "file_server" && strings.HasSuffix(priced, name) {
				continue // what is cut off says which of the upstream's paths are meant
			}
			if received != name && slices.Contains(b.beside, o) {
				continue // checkPast looks for what is changed there
			}
			for _, t := range b.serves(o, received) {
				if b.decide(l, &t) != pricing.Free || !b.sameGoods(a, paid, o, &t) {
					continue
				}
				if received != name {
					b.find(b.g, Warning, RuleAlias, "%s costs something, and behind the paywall it becomes %s, as %s does, which is free: %s serves the same for it; price %[3]s too",
						priced, name, received, o.name())
					return true
				}
				severity := Warning
				if a.handler.Name == "file_server" && a.sure && !a.at.templates && !o.at.templates && !l.Matched && paid.relation == all && t.relation == all {
					severity = Error
				}
				b.find(b.g, severity, RuleAlias,
					"%s costs something, and behind the paywall it becomes %s, which is free: %s serves the same for it; add %s",
					priced, name, o.what, remedy(l, path.Join("/", l.Path, "*"), name))
				return true
			}
		}
	}
	return false
}

// ordinary reports whether any path becomes this one, as with a program that
// answers all of them.
func (a *answerer) ordinary(g *Gate, name string) bool {
	for _, path := range []string{"/x", "/some/where"} {
		for _, t := range a.at.follow(g, path) {
			if t.now() == name {
				return true
			}
		}
	}
	return false
}

// methods are those that a request can have; the gate may know others.
var methods = []string{
	http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "QUERY",
}

// checkMethod finds methods that are changed behind the gate.
func (b *behind) checkMethod(a *answerer) {
	for _, method := range a.at.methods {
		if method != "{http.request.method}" {
			b.changedMethod(a, method, "behind the paywall the method is changed to "+method)
		}
	}
}

// changedMethod finds what is wrong with another method than the gate sees.
func (b *behind) changedMethod(a *answerer, method, how string) {
	known := !strings.Contains(method, "{")
	for l, priced := range b.priced(a) {
		if len(b.serves(a, priced)) == 0 {
			continue
		}
		if !known || l.takes(method) {
			for _, other := range methods {
				if b.g.decide([]string{other}, priced) == pricing.Free {
					b.find(b.g, Warning, RuleAlias, "%s: %s of %s is free, and %s can answer it as what %s is for; price all methods, or leave the method as it is",
						how, other, priced, a.what, l)
					return
				}
			}
		}
		if (!known || hasEffects([]string{method})) && (l.takes(http.MethodGet) || l.takes(http.MethodHead)) {
			b.find(b.g, Warning, RuleRetries,
				"%s: the paywall takes a GET of %s for one that can be delivered again, and %s can act each time; price the method that acts, or leave the method as it is",
				how, priced, a.what)
			return
		}
	}
}

// takes reports whether the line is for a method.
func (l Line) takes(method string) bool {
	return len(l.Methods) == 0 || slices.Contains(l.Methods, strings.ToUpper(method))
}

// urlHeaders, prefixHeaders and methodHeaders are taken by some upstreams for the path,
// for what it begins with and they cut off, and for the method; hostHeaders for the host.
// The gate looks at what the client sends of them, and not at what is set behind it.
var (
	urlHeaders    = map[string]bool{"X-Original-Url": true, "X-Rewrite-Url": true, "X-Original-Uri": true, "X-Forwarded-Uri": true}
	prefixHeaders = map[string]bool{"X-Script-Name": true, "X-Forwarded-Prefix": true, "X-Forwarded-Script-Name": true, "X-Traversal-Path": true, "Daphne-Root-Path": true, scriptName: true}
	methodHeaders = map[string]bool{"X-Http-Method-Override": true, "X-Http-Method": true, "X-Method-Override": true}
	hostHeaders   = map[string]bool{"Host": true, "X-Forwarded-Host": true, forwarded: true}
)

// forwarded is the header of RFC 7239, which may name a host.
const forwarded = "Forwarded"

// scriptName is SCRIPT_NAME, which gunicorn cuts off with all that stands before it.
const scriptName = "Script-Name"

// spelled is a header's name as programs behind CGI and its heirs know it.
func spelled(name string) string {
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

// checkHeaders finds such headers that are set behind the gate, and those at which a line
// looks.
func (b *behind) checkHeaders(a *answerer) {
	if a.handler.Name == "file_server" {
		return
	}
	for i, h := range a.at.headers {
		name := spelled(h.name)
		switch {
		case methodHeaders[name] && h.value != "{http.request.method}":
			value := h.value
			if h.replaced && strings.Contains(value, "$") {
				value = "{" + headerPrefix + h.name + "}"
			}
			b.changedMethod(a, value, fmt.Sprintf("%s is set to %s, which many frameworks take for the method", h.name, h.value))
		case urlHeaders[name]:
			b.checkURLHeader(a, h)
		case prefixHeaders[name]:
			b.checkPrefixHeader(a, h)
		}
		if i >= len(b.g.at.headers) {
			b.checkLookedAt(a, h)
		}
	}
}

// checkLookedAt finds a header, or the host, at which a line looks and which is another
// one then.
func (b *behind) checkLookedAt(a *answerer, h setHeader) {
	same := []string{"{" + headerPrefix + h.name + "}"}
	if hostHeaders[h.name] {
		same = append(same, "{http.request.host}", "{http.request.hostport}", "{"+headerPrefix+"Host}")
	}
	if slices.Contains(same, h.value) || strings.HasPrefix(h.value, "{http.reverse_proxy.upstream.") {
		return // the last has nothing to do with the request
	}
	for _, line := range b.g.matched {
		readsHost := line.looks.at&byHost != 0 || slices.ContainsFunc(line.looks.names, func(n string) bool { return inherent(n) == byHost })
		namesHost := hostHeaders[h.name] && (h.name != forwarded || strings.Contains(strings.ToLower(h.value), "host="))
		if line.looks.reads(headerPrefix+h.name) || namesHost && readsHost {
			b.find(b.g, Warning, RuleAlias, "behind the paywall %s is set to %s, and %s looks at it before: %s can serve for another one what that is for; set it before the paywall, or leave it as it is",
				h.name, h.value, line.words, a.what)
			return
		}
	}
}

// checkPrefixHeader finds priced paths that some upstreams make of free ones: those that
// begin with what the header says.
func (b *behind) checkPrefixHeader(a *answerer, h setHeader) {
	e := a.at.expander()
	byClient := h.replaced || e.foreign(h.value) != ""
	for l, priced := range b.priced(a) {
		for _, paid := range b.serves(a, priced) {
			prefixes := e.expand(h.value, &paid)
			if byClient {
				prefixes = []string{"/x"}
			}
			for _, prefix := range prefixes {
				for _, name := range unprefixed(h, prefix, paid.now()) {
					if received := b.freely(a, l, h, name); received != "" && name != paid.now() {
						b.find(b.g, Warning, RuleAlias,
							"%s is set to %s behind the paywall, and some servers cut that off the path, gunicorn with all before it: %s, which is free, can get %s of %s, which costs something; do not set it, or let no path there that does not begin so and price %[3]s too",
							h.name, h.value, received, priced, a.what)
						return
					}
				}
			}
		}
	}
}

// unprefixed are the paths of which an upstream makes the same as of this one, when it cuts
// a prefix off those that have it.
func unprefixed(h setHeader, prefix, now string) []string {
	before, rest, found := strings.Cut(now, prefix)
	switch {
	case strings.Trim(prefix, "/") == "":
		return nil
	case found && spelled(h.name) == scriptName:
		return []string{prefix + rest, "/x" + prefix + rest}
	case found && before == "":
		return nil
	default:
		return []string{path.Join("/", prefix, now)}
	}
}

// freely is a free path with which a request gets to the answerer as another one, and with
// the header; "" if there is none.
func (b *behind) freely(a *answerer, l Line, h setHeader, name string) string {
	for _, received := range a.at.origins(name) {
		for _, t := range b.serves(a, received) {
			if t.now() == name && t.meets(h.conds, b.g) != none && b.decide(l, &t) == pricing.Free {
				return received
			}
		}
	}
	return ""
}

func (b *behind) checkURLHeader(a *answerer, h setHeader) {
	e := a.at.expander()
	e.conds = h.conds
	byClient := h.replaced || e.foreign(h.value) != ""
	for l, priced := range b.priced(a) {
		for _, path := range append(a.at.seedPaths(), e.unexpand(h.value, priced)...) {
			for _, t := range b.serves(a, path) {
				if t.meets(h.conds, b.g) == none || b.decide(l, &t) != pricing.Free {
					continue
				}
				names := absolute(e.expand(h.value, &t))
				if !byClient && !slices.ContainsFunc(names, func(n string) bool { return pricing.Covers(l.Path, n) && b.g.decide(l.Methods, n) == pricing.Priced }) {
					continue
				}
				b.find(b.g, Warning, RuleAlias,
					"%s is set to %s behind the paywall, and some servers take it for the path: %s, which is free, can get %s of %s, which costs something; do not set it, or price %[3]s too",
					h.name, h.value, path, priced, a.what)
				return
			}
		}
	}
}
