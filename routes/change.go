package routes

import (
	"encoding/json"
	"maps"
	"path"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// maxWays bounds how many paths one path can become, or can have come from: a
// config that makes more of it is not followed further.
const maxWays = 32

// step is a handler that changes the path of a request, or may do so.
type step struct {
	// conds are the matchers around it: who does not meet them keeps the path.
	conds []*cond
	branch
	// forward says what the path becomes: one of several, where that depends on
	// something else; none if it cannot be told.
	forward func(*trail) []string
	// backward guesses paths that become this one. Each guess is followed
	// forward again before it counts.
	backward func(string) []string
	// seeds are paths that the config names as those which are changed.
	seeds []string
	// tries says that it looks for a file, as try_files does.
	tries bool
	// foreign is the placeholder by which somebody else names the path.
	foreign string
}

// branch says which routes exclude each other: of a group one runs.
type branch struct {
	group groupKey
	route *Route
}

type groupKey struct {
	list *Route
	name string
}

// placeholder finds placeholders in a value of a config.
var placeholder = regexp.MustCompile(`\{[a-zA-Z][^{}]*\}`)

// expander fills in templates at one place.
type expander struct {
	conds   []*cond
	values  []setValue // placeholders that the config gives a value
	anyHost bool       // the client can name more than one host
}

// setValue is what one line of the config says that a placeholder can be, and paths
// for which it says so.
type setValue struct {
	placeholder string
	of          func(*trail) []string // nil if that is not followed
	seeds       []string
	depends
}

// expander is the one for a place.
func (p *place) expander() *expander {
	hosts := p.hosts()
	anyHost := len(hosts) == 0 || slices.ContainsFunc(hosts, func(h string) bool { return strings.ContainsAny(h, "*{") })
	return &expander{conds: p.conds, values: p.values, anyHost: anyHost}
}

// expand is what a template can be for a request; nothing if that is not known.
func (e *expander) expand(template string, t *trail) []string {
	done, open := []string{}, []string{template}
	for range maxWays {
		if len(open) == 0 {
			return done
		}
		text := open[0]
		open = open[1:]
		at := placeholder.FindStringIndex(text)
		if at == nil {
			done = append(done, text)
			continue
		}
		values := e.value(text[at[0]+1:at[1]-1], t)
		for _, value := range values {
			open = append(open, text[:at[0]]+value+text[at[1]:])
		}
	}
	return done
}

// value is what a placeholder can be for a request.
func (e *expander) value(name string, t *trail) []string {
	now := t.now()
	if of, ok := strings.CutPrefix(name, "http.request.orig_uri.path."); ok {
		now, name = t.path[0], "http.request.uri.path."+of
	}
	switch name {
	case "http.request.uri.path", "http.request.uri", "http.request.uri_escaped", "http.request.uri.path_escaped":
		return []string{now}
	case "http.request.orig_uri.path", "http.request.orig_uri":
		return []string{t.path[0]}
	case "http.request.uri.path.file":
		return []string{path.Base(now)}
	case "http.request.uri.path.dir":
		return []string{path.Dir(now)}
	case "http.request.uri.query", "http.request.orig_uri.query", "http.request.uri.prefixed_query":
		return []string{""}
	case "http.matchers.file.relative", "http.matchers.file.absolute":
		var files []string
		for _, try := range tries(e.conds) {
			files = append(files, e.expand(try, t)...)
		}
		return files
	}
	if n, ok := strings.CutPrefix(name, "http.request.uri.path."); ok {
		segments := strings.Split(strings.Trim(now, "/"), "/")
		if i, err := strconv.Atoi(n); err == nil && i >= 0 && i < len(segments) {
			return []string{segments[i]}
		}
		return nil
	}
	if capture, ok := strings.CutPrefix(name, "http.regexp."); ok {
		return e.captured(capture, t)
	}
	var values []string
	name = normal(name)
	for _, v := range slices.Backward(e.values) { // the last one is the most likely
		if v.placeholder == name && v.of != nil {
			values = append(values, v.of(t)...)
		}
	}
	return values
}

// captured is what a path_regexp matcher around the place captures.
func (e *expander) captured(name string, t *trail) []string {
	matcher, group, named := strings.Cut(name, ".")
	if !named {
		matcher, group = "", name
	}
	for _, c := range slices.Backward(e.conds) {
		for _, r := range c.regexps {
			if r == nil || matcher != "" && r.name != matcher {
				continue
			}
			m := r.FindStringSubmatch(t.at(c.steps))
			n := r.SubexpIndex(group)
			if n < 0 {
				n, _ = strconv.Atoi(group)
			}
			if n >= 0 && n < len(m) {
				return []string{m[n]}
			}
		}
	}
	return nil
}

// unexpand guesses requests for which a template becomes the value.
func (e *expander) unexpand(template, value string) []string {
	names := placeholder.FindAllString(template, -1)
	re, err := regexp.Compile("^" + placeholder.ReplaceAllLiteralString(escape(template), "(.*)") + "$")
	if err != nil || len(names) == 0 {
		return nil
	}
	m := re.FindStringSubmatch(value)
	if m == nil {
		return nil
	}
	var guesses []string
	captures, segments := map[string]string{}, map[int]string{}
	for i, name := range names {
		name, part := name[1:len(name)-1], m[i+1]
		switch capture, ok := strings.CutPrefix(name, "http.regexp."); {
		case ok:
			captures[capture[strings.LastIndexByte(capture, '.')+1:]] = part
		case strings.HasPrefix(name, "http.matchers.file."):
			for _, try := range tries(e.conds) {
				guesses = append(guesses, e.unexpand(try, value)...)
			}
		case strings.HasPrefix(name, "http.request.uri.path.") && name[len(name)-1] <= '9':
			n, _ := strconv.Atoi(name[len("http.request.uri.path."):])
			segments[min(n, 9)] = part
		case name == "http.request.uri.path.file":
			guesses = append(guesses, "/"+part, "/x/"+part)
		default:
			guesses = append(guesses, part)
		}
	}
	if len(segments) > 0 {
		guesses = append(guesses, e.withSegments(segments)...)
	}
	if len(captures) > 0 {
		for _, c := range e.conds {
			for _, r := range c.regexps {
				if r != nil {
					guesses = append(guesses, r.example(captures))
				}
			}
		}
	}
	return guesses
}

// withSegments are paths with some segments given, as the matchers around the place want
// the others.
func (e *expander) withSegments(given map[int]string) (paths []string) {
	examples := []string{"/x"}
	for _, c := range e.conds {
		for _, read := range c.read {
			for _, pattern := range read["path"] {
				if example, ok := exampleOf(pattern); ok && len(examples) < maxWays {
					examples = append(examples, example)
				}
			}
		}
	}
	for _, example := range examples {
		segments := strings.Split(strings.Trim(example, "/"), "/")
		for n := range given {
			for len(segments) <= n {
				segments = append(segments, "x")
			}
		}
		for n, text := range given {
			segments[n] = text
		}
		paths = append(paths, "/"+strings.Join(segments, "/"))
	}
	return paths
}

// escape quotes a template for a regular expression, and leaves its placeholders.
func escape(template string) string {
	var b strings.Builder
	last := 0
	for _, at := range placeholder.FindAllStringIndex(template, -1) {
		b.WriteString(regexp.QuoteMeta(template[last:at[0]]) + template[at[0]:at[1]])
		last = at[1]
	}
	return b.String() + regexp.QuoteMeta(template[last:])
}

// rewritten is the place behind a rewrite.
func (p place) rewritten(h *handler) place {
	var rewrite struct {
		Method      string `json:"method"`
		URI         string `json:"uri"`
		StripPrefix string `json:"strip_path_prefix"`
		StripSuffix string `json:"strip_path_suffix"`
		Substring   []struct {
			Find    string
			Replace string
			Limit   int
		} `json:"uri_substring"`
		Regexp []struct{ Find, Replace string } `json:"path_regexp"`
		Query  *queryChange                     `json:"query"`
	}
	if !h.read(&rewrite) {
		p.unknown = true
		return p
	}
	if rewrite.Method != "" {
		p.methods = []string{rewrite.Method}
	}
	p = p.withQuery(rewrite.URI, rewrite.Query).withURI(rewrite.URI)
	if prefix := rewrite.StripPrefix; prefix != "" {
		if p.changed() || strings.Contains(prefix, "{") {
			p.unknown = true
		}
		p.strip = "/" + strings.Trim(prefix, "/")
		p = p.step(stripPrefix(prefix))
	}
	if rewrite.StripSuffix != "" {
		p.unknown = true
		p = p.step(stripSuffix(rewrite.StripSuffix))
	}
	for _, r := range rewrite.Substring {
		p.unknown = true
		s := replaceText(p.expander(), r.Find, r.Replace, r.Limit)
		p = p.step(s)
	}
	for _, r := range rewrite.Regexp {
		p.unknown = true
		p = p.step(replaceRegexp(p.expander(), r.Find, r.Replace))
	}
	return p
}

// queryChange is what a rewrite does to single parameters of the query.
type queryChange struct {
	Rename, Set, Add []struct{ Key, Val string }
	Replace          []struct{ Key, Replace string }
	Delete           []string
}

// setQuery is a parameter of the query that the config gives another value; "" where it
// is taken away.
type setQuery struct {
	name, value string
	// over says that what the client sends of the query comes behind it: many programs
	// take the last one.
	over bool
}

// withQuery is the place behind a rewrite that gives parameters of the query another
// value.
func (p place) withQuery(uri string, change *queryChange) place {
	var set []setQuery
	for _, uri := range append(tries(p.conds), uri) {
		_, query, _ := strings.Cut(uri, "?")
		for pair := range strings.SplitSeq(query, "&") {
			name, text, value := strings.Cut(pair, "=")
			switch {
			case value:
				set = append(set, setQuery{name: name, value: text})
			case name != "" && !strings.HasPrefix(name, "{http.request.uri.") && !strings.HasPrefix(name, "{http.request.orig_uri."):
				set = append(set, setQuery{name: name, value: name})
			case strings.Contains(name, "uri.query}"):
				for i := range set {
					set[i].over = true
				}
			}
		}
	}
	if change != nil {
		for _, pair := range change.Rename {
			set = append(set, setQuery{name: pair.Val, value: "{" + queryPrefix + pair.Key + "}"}, setQuery{name: pair.Key})
		}
		for _, pair := range slices.Concat(change.Set, change.Add) {
			set = append(set, setQuery{name: pair.Key, value: pair.Val})
		}
		for _, replaced := range change.Replace {
			set = append(set, setQuery{name: replaced.Key, value: "{" + queryPrefix + replaced.Key + "}" + replaced.Replace})
		}
		for _, name := range change.Delete {
			set = append(set, setQuery{name: name})
		}
	}
	p.query = append(slices.Clip(p.query), set...)
	for _, q := range set {
		p = p.withText(queryPrefix+q.name, q.value)
	}
	return p
}

// withText is the place where a placeholder has what a text becomes.
func (p place) withText(name, text string) place {
	e := p.expander()
	d := e.template(text)
	d.add(depends{under: p.conds})
	return p.withValue(setValue{placeholder: normal(name), depends: d, of: func(t *trail) []string { return e.expand(text, t) }})
}

// withURI is the place behind a rewrite to a URI.
func (p place) withURI(uri string) place {
	template, _, _ := strings.Cut(uri, "?")
	switch {
	case template == "", template == "{http.request.uri.path}", template == "{http.request.uri}":
		return p
	case strings.Contains(template, "{http.matchers.file."):
		p.fixed = append(slices.Clip(p.fixed), p.tries()...)
		if len(p.fixed) == 0 {
			p.unknown = true
		}
	case strings.Contains(template, "{"):
		p.unknown = true
	default:
		p.fixed = append(slices.Clip(p.fixed), template)
	}
	e := p.expander()
	s := step{
		forward:  func(t *trail) []string { return absolute(e.expand(template, t)) },
		backward: func(path string) []string { return e.unexpand(template, path) },
		tries:    strings.Contains(template, "{http.matchers.file."),
		foreign:  e.foreign(template),
	}
	for _, name := range placeholder.FindAllString(template, -1) {
		for _, v := range p.values {
			if v.placeholder == name[1:len(name)-1] {
				s.seeds = append(s.seeds, v.seeds...)
			}
		}
	}
	return p.step(s)
}

// step is the place behind a step.
func (p place) step(s step) place {
	s.conds = p.conds
	p.steps = append(slices.Clip(p.steps), s)
	return p
}

// absolute makes paths of URLs of them.
func absolute(paths []string) []string {
	for i, p := range paths {
		p, _, _ = strings.Cut(p, "?")
		clean := path.Clean("/" + p)
		if strings.HasSuffix(p, "/") && clean != "/" {
			clean += "/"
		}
		paths[i] = clean
	}
	return paths
}

func stripPrefix(prefix string) step {
	prefix = "/" + strings.TrimPrefix(prefix, "/")
	return step{
		forward: func(t *trail) []string {
			now := t.now()
			if len(now) >= len(prefix) && strings.EqualFold(now[:len(prefix)], prefix) {
				now = now[len(prefix):]
			}
			return absolute([]string{now})
		},
		backward: func(path string) []string { return []string{prefix + path} },
	}
}

func stripSuffix(suffix string) step {
	return step{
		forward: func(t *trail) []string {
			now := t.now()
			if at := len(now) - len(suffix); at >= 0 && strings.EqualFold(now[at:], suffix) {
				now = now[:at]
			}
			return absolute([]string{now})
		},
		backward: func(path string) []string { return []string{path + suffix} },
	}
}

// replaceText replaces a text in the path.
func replaceText(e *expander, find, replace string, limit int) step {
	if limit <= 0 {
		limit = -1
	}
	return step{
		foreign: e.foreign(find + replace),
		forward: func(t *trail) []string {
			var paths []string
			for _, f := range e.expand(find, t) {
				for _, r := range e.expand(replace, t) {
					if f != "" {
						paths = append(paths, strings.Replace(t.now(), f, r, limit))
					}
				}
			}
			return absolute(paths)
		},
		backward: func(path string) []string { return undo(path, find, replace) },
	}
}

// undo puts the text back that was replaced: at one place or at all.
func undo(path, find, replace string) []string {
	if replace == "" {
		guesses := []string{find + path, path + find}
		for i := range len(path) {
			if path[i] == '/' && len(guesses) < maxWays {
				guesses = append(guesses, path[:i+1]+find+path[i+1:])
			}
		}
		return guesses
	}
	guesses := []string{strings.ReplaceAll(path, replace, find)}
	for i := 0; i+len(replace) <= len(path) && len(guesses) < maxWays; i++ {
		if strings.HasPrefix(path[i:], replace) {
			guesses = append(guesses, path[:i]+find+path[i+len(replace):])
		}
	}
	return guesses
}

// replaceRegexp replaces what an expression finds in the path.
func replaceRegexp(e *expander, find, replace string) step {
	r := compile("", find)
	if r == nil {
		return step{forward: func(*trail) []string { return nil }, backward: func(string) []string { return nil }}
	}
	return step{
		foreign: e.foreign(replace),
		forward: func(t *trail) []string {
			var paths []string
			for _, to := range e.expand(replace, t) {
				paths = append(paths, r.ReplaceAllString(t.now(), to))
			}
			return absolute(paths)
		},
		backward: func(path string) []string { return r.undo(path, replace) },
	}
}

// expression is a regular expression of a config.
type expression struct {
	*regexp.Regexp
	name string
	tree *syntax.Regexp
}

// compile returns nil for what is none.
func compile(name, text string) *expression {
	re, err := regexp.Compile(text)
	if err != nil {
		return nil
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil
	}
	return &expression{re, name, tree}
}

// reference finds what was captured in a replacement.
var reference = regexp.MustCompile(`\$(?:\{(\w+)\}|(\w+))`)

// undo guesses paths of which a replacement makes this one.
func (r *expression) undo(path, replace string) []string {
	refs := reference.FindAllStringSubmatch(replace, -1)
	text, last := "", 0
	for _, at := range reference.FindAllStringIndex(replace, -1) {
		text += regexp.QuoteMeta(replace[last:at[0]]) + "(.*)"
		last = at[1]
	}
	text += regexp.QuoteMeta(replace[last:])
	if text == "" {
		return undo(path, r.example(nil), "")
	}
	var guesses []string
	for _, form := range []string{"^" + text + "$", text} {
		out, err := regexp.Compile(form)
		if err != nil {
			continue
		}
		m := out.FindStringSubmatchIndex(path)
		if m == nil {
			continue
		}
		captures := map[string]string{}
		for i, ref := range refs {
			captures[ref[1]+ref[2]] = path[m[2*i+2]:m[2*i+3]]
		}
		guesses = append(guesses, path[:m[0]]+r.example(captures)+path[m[1]:])
	}
	return guesses
}

// example is a text that the expression matches, where that is easy; what is
// captured can be given by number or name.
func (r *expression) example(captures map[string]string) string {
	var b strings.Builder
	example(&b, r.tree, captures)
	return b.String()
}

func example(b *strings.Builder, re *syntax.Regexp, captures map[string]string) {
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		for i := 0; i+1 < len(re.Rune); i += 2 {
			for _, c := range "x1-_/." {
				if re.Rune[i] <= c && c <= re.Rune[i+1] {
					b.WriteRune(c)
					return
				}
			}
		}
		if len(re.Rune) > 0 {
			b.WriteRune(re.Rune[0])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('x')
	case syntax.OpCapture:
		value, ok := captures[strconv.Itoa(re.Cap)]
		if !ok && re.Name != "" {
			value, ok = captures[re.Name]
		}
		if ok {
			b.WriteString(value)
			return
		}
		example(b, re.Sub[0], captures)
	case syntax.OpPlus, syntax.OpAlternate:
		example(b, re.Sub[0], captures)
	case syntax.OpRepeat:
		for range min(re.Min, maxWays) {
			example(b, re.Sub[0], captures)
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			example(b, sub, captures)
		}
	case syntax.OpQuest, syntax.OpStar: // may be empty; but a capture in it may be asked for
		if len(re.Sub) > 0 && re.Sub[0].Op == syntax.OpCapture {
			if _, ok := captures[strconv.Itoa(re.Sub[0].Cap)]; ok {
				example(b, re.Sub[0], captures)
			}
		}
	}
}

// mapping is a line of a map.
type mapping struct {
	Input   string
	Regexp  string `json:"input_regexp"`
	Outputs []any
	re      *expression
}

// text is what the line has for a destination, if it has something.
func (m *mapping) text(i int) (text string, ok bool) {
	if i < len(m.Outputs) {
		text, _ = m.Outputs[i].(string)
	}
	return text, text != ""
}

// output is what the line gives a destination for a path.
func (m *mapping) output(i int, path string) (text string, ok bool) {
	text, ok = m.text(i)
	switch {
	case !ok:
		return "", false // it leaves that to the default
	case m.re != nil:
		at := m.re.FindStringSubmatchIndex(path)
		return string(m.re.ExpandString(nil, text, path, at)), at != nil
	default:
		return text, m.Regexp == "" && m.Input == path
	}
}

// seed is a path for which the line is.
func (m *mapping) seed() string {
	if m.re != nil {
		return m.re.example(nil)
	}
	return m.Input
}

// mapped is the place behind a map: its placeholders have values that the config
// names.
func (p place) mapped(h *handler) place {
	var m struct {
		Source       string
		Destinations []string
		Mappings     []mapping
		Defaults     []string
	}
	if !h.read(&m) {
		return p
	}
	byPath := m.Source == "{http.request.uri.path}" || m.Source == "{http.request.uri}"
	var seeds []string
	for i := range m.Mappings {
		if line := &m.Mappings[i]; byPath {
			if line.Regexp != "" {
				line.re = compile("", line.Regexp)
			}
			seeds = append(seeds, line.seed())
		}
	}
	e := p.expander()
	for i, destination := range m.Destinations {
		d := e.template(m.Source).chosenBy()
		if i < len(m.Defaults) {
			d.add(e.template(m.Defaults[i]))
		}
		for j := range m.Mappings {
			text, _ := m.Mappings[j].text(i)
			d.add(e.template(text))
			if m.Mappings[j].Regexp != "" && strings.Contains(text, "$") {
				d.add(e.template(m.Source))
			}
		}
		d.add(depends{under: p.conds})
		p = p.withValue(setValue{placeholder: strings.Trim(destination, "{}"), seeds: seeds, depends: d, of: func(t *trail) []string {
			var values []string
			for j := range m.Mappings {
				line := &m.Mappings[j]
				text, ok := line.output(i, t.now())
				switch {
				case byPath && ok:
					return []string{text}
				case !byPath && text != "":
					values = append(values, text) // what it looks at is not known
				}
			}
			if i < len(m.Defaults) {
				values = append(values, m.Defaults[i])
			}
			return values
		}})
	}
	return p
}

// withVars is the place behind variables.
func (p place) withVars(h *handler) place {
	var vars map[string]any
	if !h.read(&vars) {
		return p
	}
	at := p
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		if text, ok := vars[name].(string); ok && name != "handler" && name != "root" {
			at.values = p.values // those of one handler do not see each other
			p.values = at.withText(varsPrefix+name, text).values
		}
	}
	return p
}

// withValue is the place where a placeholder has a value.
func (p place) withValue(v setValue) place {
	p.values = append(slices.Clip(p.values), v)
	return p
}

// tries are the files that the innermost file matcher looks for.
func tries(conds []*cond) []string {
	for _, cond := range slices.Backward(conds) {
		var files []string
		for _, set := range cond.sets {
			var file struct {
				Try []string `json:"try_files"`
			}
			raw, ok := set["file"]
			if !ok || json.Unmarshal(raw, &file) != nil {
				continue
			}
			if len(file.Try) == 0 {
				file.Try = []string{"{http.request.uri.path}"} // Caddy's default
			}
			for _, try := range file.Try {
				// Codes (`=404`) and globs name no file; and what the matcher
				// found is not known while it looks.
				if !strings.HasPrefix(try, "=") && !strings.Contains(try, "*") && !strings.Contains(try, "{http.matchers.file.") {
					files = append(files, try)
				}
			}
		}
		if len(files) > 0 {
			return files
		}
	}
	return nil
}
