package pricing

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"
)

// entry is one pattern of one line.
type entry struct {
	pattern pattern
	rank    rank
	line    int
	// ends says that the paths have names with an ending, as with `/a.css` and
	// `*.pdf`: those of no page to which a server adds another one.
	ends bool
}

// rank says which of two lines is more specific: the one with the lower rank.
type rank struct {
	class    rankClass
	head     int // characters of the fixed beginning; more is lower
	prefix   bool
	literals int // fixed characters; more is lower
	tier     int // matcher and methods, matcher, methods, neither
}

type rankClass int

const (
	rankExact rankClass = iota
	rankHead            // has a fixed beginning
	rankLoose           // *suffix and other globs without one
	rankAll
)

func newEntry(p pattern, line *Line, number int) entry {
	r := rank{literals: p.literals, prefix: p.shape == shapePrefix}
	switch {
	case p.shape == shapeExact:
		// Exact paths are equal or do not meet: their length says nothing.
		r = rank{class: rankExact}
	case p.shape == shapeAll:
		r.class = rankAll
	case p.head == "":
		r.class = rankLoose
	default:
		r.class, r.head = rankHead, utf8.RuneCountInString(p.head)
	}
	if line.Matcher == nil {
		r.tier += 2
	}
	if len(line.Methods) == 0 {
		r.tier++
	}
	return entry{pattern: p, rank: r, line: number, ends: p.ends()}
}

// compareRank orders the more specific first.
func compareRank(a, b rank) int {
	return cmp.Or(
		cmp.Compare(a.class, b.class),
		cmp.Compare(b.head, a.head),
		compareBool(a.prefix, b.prefix),
		cmp.Compare(b.literals, a.literals),
		cmp.Compare(a.tier, b.tier),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// index finds the entries whose pattern could match a path. In each list the
// more specific come first.
type index struct {
	exact map[string][]entry
	// below holds what begins with a head that ends with a slash, under the
	// head without that slash: it is looked up where a segment ends, and so
	// finds `/x/*` for `/x` too.
	below map[string][]entry
	// begins holds what begins with any other head.
	begins map[string][]entry
	// programs holds the exact paths with a price that may be programs, which
	// servers run for what follows the path too.
	programs map[string]struct{}
	// folders holds the exact paths with a price, which may be folders: servers have an
	// index file for them, with a name of its own.
	folders map[string]struct{}
	// lengths says which of the three have heads of a length in bytes, so that a
	// lookup hashes no beginning that cannot be there. A slash follows programs.
	lengths []headKind
	kinds   headKind // of all lengths
	loose   []entry
	all     []entry
	// bare holds the fixed paths without the ending that they have, with which a server
	// completes them: `/report` for a line for `/report.html`.
	bare map[string]endings
	// ended are the endings that make a name one of some glob, and endedBelow those of
	// globs with a fixed beginning, which say what folder it is in.
	ended, endedBelow endings
	// globs says that there are globs for names to which servers may add an ending:
	// `/users/*/export`, and endGlobs that there are others, for names that have one.
	globs, endGlobs bool
	// folderGlobs says that there are globs for folders, as `/posts/*/`, and fileGlobs
	// that there are prices for files, as `*.pdf`.
	folderGlobs, fileGlobs bool
	names                  names
}

// headKind is a set of index.below, index.begins and index.programs.
type headKind uint8

const (
	headBelow headKind = 1 << iota
	headBegins
	headScript
)

// newIndex indexes entries that are sorted by rank.
func newIndex(entries []entry, lines []Line) index {
	x := index{
		exact:    make(map[string][]entry),
		below:    make(map[string][]entry),
		begins:   make(map[string][]entry),
		programs: make(map[string]struct{}),
		folders:  make(map[string]struct{}),
		bare:     make(map[string]endings),
	}
	for _, e := range entries {
		x.noteEndings(&e)
		x.names.note(e.pattern.text)
		if e.pattern.shape == shapeGlob {
			x.globs = x.globs || !e.ends
			x.endGlobs = x.endGlobs || e.ends
			x.folderGlobs = x.folderGlobs || e.pattern.folders
			x.fileGlobs = x.fileGlobs || e.ends && lines[e.line].Kind == Priced
		}
		head := e.pattern.head
		switch e.rank.class {
		case rankExact:
			x.exact[head] = append(x.exact[head], e)
			if lines[e.line].Kind != Priced {
				continue
			}
			x.folders[head] = struct{}{}
			if mayBeProgram(head) {
				x.programs[head] = struct{}{}
				x.note(len(head)+1, headScript)
			}
		case rankLoose:
			x.loose = append(x.loose, e)
		case rankAll:
			x.all = append(x.all, e)
		case rankHead:
			if dir := head[:len(head)-1]; head[len(head)-1] == '/' {
				x.below[dir] = append(x.below[dir], e)
				x.note(len(head), headBelow)
			} else {
				x.begins[head] = append(x.begins[head], e)
				x.note(len(head), headBegins)
			}
		}
	}
	x.lengths = slices.Clip(x.lengths)
	return x
}

// newBareIndex indexes the entries by their paths without accents; nil if none has any.
func newBareIndex(entries []entry, lines []Line) *index {
	if !slices.ContainsFunc(entries, func(e entry) bool { _, end := bare(e.pattern.text); return end > 0 }) {
		return nil
	}
	bared := make([]entry, 0, len(entries))
	for _, e := range entries {
		text, _ := bare(e.pattern.text)
		if p, err := parsePattern(text); err == nil {
			bared = append(bared, newEntry(p, &lines[e.line], e.line))
		}
	}
	slices.SortStableFunc(bared, func(a, b entry) int { return compareRank(a.rank, b.rank) })
	x := newIndex(bared, lines)
	return &x
}

// note notes that there is a head of a length.
func (x *index) note(length int, kind headKind) {
	if missing := length + 1 - len(x.lengths); missing > 0 {
		x.lengths = append(x.lengths, make([]headKind, missing)...)
	}
	x.lengths[length] |= kind
	x.kinds |= kind
}

// mayBeProgram reports whether the folded path of a price may be that of a
// program: its name has a dot that is not its first character, whatever follows
// the dot, or it lies in a directory for programs.
func mayBeProgram(path string) bool {
	dir, name := path[:strings.LastIndexByte(path, '/')+1], path[strings.LastIndexByte(path, '/')+1:]
	return strings.LastIndexByte(name, '.') > 0 || strings.Contains(dir, "cgi-bin/")
}

// folder finds the folder whose index file a folded path may be, which a slash may follow,
// and says whether the folder has a price of its own. It is empty if there is none, and
// else has its slash, with which every line for it is found. Where globs have prices, any
// folder may be one of theirs.
func (x *index) folder(path string) (dir string, own bool) {
	path = trimSlash(path)
	slash := strings.LastIndexByte(path, '/')
	if !x.hasFolders() || slash < 0 || !isIndexName(path[slash+1:]) {
		return "", false
	}
	dir = path[:slash+1]
	if _, own = x.folders[trimSlash(dir)]; !own && !x.globs && !x.endGlobs {
		return "", false
	}
	return dir, own
}

// hasFolders says whether a line may be for the path of a folder.
func (x *index) hasFolders() bool { return len(x.folders) > 0 || x.globs || x.endGlobs }

// formats finds where the ending of the name of a folded path may begin that a server
// takes for a format, 0 for nowhere: at its first dot (Spring reads `/quote.tar.gz` so),
// and, where a name that varies may have one, at its last dot (Rails). It looks for no
// more than whether some line could be for what is before it.
func (x *index) formats(path string) (dots [2]int) {
	end := len(trimSlash(path))
	last := strings.LastIndexByte(path[:end], '.')
	if last < 1 {
		return dots
	}
	name := strings.LastIndexByte(path[:end], '/') + 1
	if last <= name { // none, or what makes a file hidden
		return dots
	}
	first := name + 1 + strings.IndexByte(path[name+1:], '.')
	if !x.globs {
		if len(x.exact[path[:first]])+len(x.below[path[:first]]) > 0 {
			dots[0] = first
		}
		return dots
	}
	if dots[0] = first; last != first {
		dots[1] = last
	}
	return dots
}

// isIndexName says whether servers take files of that name for their folder:
// `index.php`, `index.html.gz`, `default.aspx`, and `index`, which some servers complete.
func isIndexName(name string) bool {
	rest, ok := strings.CutPrefix(name, "index")
	if !ok {
		rest, ok = strings.CutPrefix(name, "default")
		return ok && len(rest) > 1 && rest[0] == '.'
	}
	return rest == "" || rest[0] == '.'
}

// lists calls f with each list of entries that could match the folded path, the
// more specific first, until f says stop. It says how many lists it looked for.
func (x *index) lists(path string, f func([]entry) (more bool)) (probes int) {
	if list := x.exact[trimSlash(path)]; len(list) > 0 && !f(list) {
		return 0
	}
	if x.kinds&(headBelow|headBegins) != 0 {
		for n := min(len(path)+1, len(x.lengths)-1); n > 0; n-- {
			kinds := x.lengths[n]
			if kinds&headBelow != 0 && (n > len(path) || path[n-1] == '/') {
				probes++
				if list := x.below[path[:n-1]]; len(list) > 0 && !f(list) {
					return probes
				}
			}
			if kinds&headBegins != 0 && n <= len(path) {
				probes++
				if list := x.begins[path[:n]]; len(list) > 0 && !f(list) {
					return probes
				}
			}
		}
	}
	if f(x.loose) {
		f(x.all)
	}
	return probes
}

// behind is what a server may serve with the rest of a path behind it.
type behind uint8

const (
	behindNothing behind = iota
	behindScript         // a program, by its name or because it has a price of its own
	behindIndex          // the index file of a folder
	behindFile           // a file for which some glob may be
)

// program finds the last of what servers serve for what follows it in a folded path too, as
// the length of its path: a program, an index file and, as PHP's own server does and Apache
// where PHP reads it, any file.
func (x *index) program(path string) (at int, kind behind) {
	known := strings.IndexByte(path, '.') >= 0
	index := x.hasFolders() && (known || strings.Contains(path, "/index"))
	if !known && !index && x.kinds&headScript == 0 {
		return 0, behindNothing
	}
	for n := strings.LastIndexByte(path, '/'); n > 0; {
		slash := strings.LastIndexByte(path[:n], '/')
		name := path[slash+1 : n]
		if n+1 < len(x.lengths) && x.lengths[n+1]&headScript != 0 {
			if _, ok := x.programs[path[:n]]; ok {
				return n, behindScript
			}
		}
		switch {
		case known && endsWithScript(path[:n]):
			return n, behindScript
		case known && x.fileGlobs && hasEnding(name):
			return n, behindFile
		case index && isIndexName(name):
			return n, behindIndex
		}
		n = slash
	}
	return 0, behindNothing
}
