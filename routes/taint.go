package routes

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// What the client chooses can reach, by detours, what a price depends on: a matcher
// looks at the path, and sets a variable; the variable fills in a header; a line looks
// at the header. So every value of which the config says what it is (variables, the
// placeholders of map, captures, request headers, parameters of the query) is kept with
// what it depends on. Before the gate it matters which lines look at it, behind the
// gate what is filled in by it.

// source is what of a request a value depends on.
type source uint8

const (
	// byClient is what the client writes as it likes: a header, the query, a cookie, the
	// body. What an upstream answers counts as that.
	byClient source = 1 << iota
	byPath
	byMethod
	byHost
	byAddress // as client_ip has it
)

// depends is what a value depends on.
type depends struct {
	// text is what it is made of, from is that and what it was chosen by.
	text, from source
	// under are the matchers that said whether it is set.
	under []*cond
}

func (d *depends) add(o depends) {
	d.text, d.from = d.text|o.text, d.from|o.from
	for _, c := range o.under {
		if !slices.Contains(d.under, c) {
			d.under = append(slices.Clip(d.under), c)
		}
	}
}

// chosenBy is what depends on a value, and is not made of it.
func (d depends) chosenBy() depends { d.text = 0; return d }

// anyName stands for a capture, a header or a parameter of which the config does not
// spell the name out.
const anyName = "*"

const (
	headerPrefix  = "http.request.header."
	queryPrefix   = "http.request.uri.query."
	capturePrefix = "http.regexp."
	varsPrefix    = "http.vars."
)

// normal is the name of a placeholder in one spelling.
func normal(name string) string {
	switch {
	case strings.HasPrefix(name, headerPrefix):
		return headerPrefix + http.CanonicalHeaderKey(name[len(headerPrefix):])
	case strings.HasPrefix(name, queryPrefix):
		return queryPrefix + parameter(name[len(queryPrefix):])
	}
	return name
}

// parameter is the name of one of the query as servers may read it: `P` and `p[]` are p.
func parameter(name string) string {
	if strings.Contains(name, "{") {
		return anyName
	}
	name, _, _ = strings.Cut(name, "[")
	return strings.ToLower(name)
}

// is reports whether the value is that of a placeholder.
func (v *setValue) is(name string) bool {
	if v.placeholder == name {
		return true
	}
	if capture, ok := strings.CutPrefix(name, capturePrefix); ok {
		of, found := strings.CutPrefix(v.placeholder, capturePrefix)
		matcher, _, named := strings.Cut(capture, ".")
		return found && (of == anyName || !named || of == matcher)
	}
	return strings.HasPrefix(v.placeholder, queryPrefix) &&
		(name == strings.TrimSuffix(queryPrefix, ".") || strings.HasPrefix(name, queryPrefix) && (v.placeholder == queryPrefix+anyName || name == queryPrefix+anyName))
}

// inherent is what a placeholder depends on by itself.
func inherent(name string) source {
	has := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	switch {
	case name == varsPrefix+"client_ip":
		return byAddress
	case has(headerPrefix+"Host", "http.request.host", "http.request.labels", "http.request.tls.server_name"):
		return byHost
	case has("http.request.uri.query", "http.request.orig_uri.query", "http.request.uri.prefixed_query", "http.request.orig_uri.prefixed_query",
		headerPrefix, "http.request.cookie.", "http.request.body", "http.reverse_proxy.header.", "http.intercept.header."):
		return byClient
	case has("http.request.method", "http.request.orig_method"):
		return byMethod
	case has("http.request.uri", "http.request.orig_uri", "http.url_pattern"):
		return byPath
	}
	return 0
}

// named is what a placeholder depends on.
func (e *expander) named(name string) depends {
	name = normal(name)
	d := e.set(name)
	d.text |= inherent(name)
	d.from |= inherent(name)
	if strings.HasPrefix(name, "http.matchers.file.") {
		for _, try := range tries(e.conds) { // which has no such placeholder in it
			d.add(e.template(try))
		}
	}
	return d
}

// set is what a placeholder depends on since the config gives it a value.
func (e *expander) set(name string) (d depends) {
	for i := range e.values {
		if e.values[i].is(name) {
			d.add(e.values[i].depends)
		}
	}
	return d
}

// template is what a text depends on.
func (e *expander) template(text string) (d depends) {
	for _, found := range placeholder.FindAllString(text, -1) {
		d.add(e.named(found[1 : len(found)-1]))
	}
	return d
}

// foreign is a placeholder in a template by which the client or an upstream says
// what it becomes: itself, or by what the config sets another one to.
func (e *expander) foreign(template string) string { return e.chosen(template, byClient|byMethod) }

// foreignDirectory is foreign for a directory of files, which the path names too.
func (e *expander) foreignDirectory(template string) string {
	return e.chosen(template, byClient|byMethod|byPath)
}

func (e *expander) chosen(template string, by source) string {
	if e.anyHost {
		by |= byHost
	}
	for _, found := range placeholder.FindAllString(template, -1) {
		if e.named(found[1:len(found)-1]).text&by != 0 {
			return found
		}
	}
	return ""
}

// looked is what matchers look at: some of it by themselves, and placeholders.
type looked struct {
	at    source
	names []string
}

// reads reports whether they look at a placeholder.
func (l *looked) reads(name string) bool {
	return slices.ContainsFunc(l.names, func(n string) bool { return (&setValue{placeholder: name}).is(n) })
}

var (
	pathFunction    = regexp.MustCompile(`\b(path|path_regexp|file|url_pattern)\s*\(`)
	methodFunction  = regexp.MustCompile(`\bmethod\s*\(`)
	hostFunction    = regexp.MustCompile(`\bhost\s*\(`)
	addressFunction = regexp.MustCompile(`\bclient_ip\s*\(`)
	clientFunction  = regexp.MustCompile(`\b(header|header_regexp|query)\s*\(`)
	captureFunction = regexp.MustCompile(`\b(path|header|vars)_regexp\s*\(`)
	quoted          = regexp.MustCompile("'([^']+)'|\"([^\"]+)\"|`([^`]+)`")
)

// lookAt reads matcher sets, however deep.
func lookAt(sets []matcherSet) looked {
	var l looked
	for _, set := range sets {
		for _, name := range slices.Sorted(maps.Keys(set)) {
			l.matcher(name, set[name])
		}
	}
	return l
}

func (l *looked) matcher(name string, raw json.RawMessage) {
	for _, found := range placeholder.FindAllString(string(raw), -1) {
		l.names = append(l.names, normal(found[1:len(found)-1]))
	}
	var keys map[string]json.RawMessage
	_ = json.Unmarshal(raw, &keys) // what is none has no members
	switch name {
	case "path", "path_regexp", "file", "url_pattern":
		l.at |= byPath
	case "method":
		l.at |= byMethod
	case "host":
		l.at |= byHost
	case "client_ip":
		l.at |= byAddress
	case "header", "header_regexp":
		l.keys(headerPrefix, keys)
	case "query":
		l.keys(queryPrefix, keys)
	case "vars", "vars_regexp":
		l.keys(varsPrefix, keys)
	case "not":
		var nested []matcherSet
		_ = json.Unmarshal(raw, &nested)
		inner := lookAt(nested)
		l.at, l.names = l.at|inner.at, append(l.names, inner.names...)
	case "expression":
		l.expression(expressionIn(raw))
	}
}

func (l *looked) keys(prefix string, keys map[string]json.RawMessage) {
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if prefix != queryPrefix && strings.Contains(key, "{") {
			continue // it is among the placeholders
		}
		l.names = append(l.names, normal(prefix+key))
	}
}

// expression takes all texts in one for names of what its functions look at.
func (l *looked) expression(text string) {
	for function, at := range map[*regexp.Regexp]source{
		pathFunction: byPath, methodFunction: byMethod, hostFunction: byHost, addressFunction: byAddress, clientFunction: byClient,
	} {
		if function.MatchString(text) {
			l.at |= at
		}
	}
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		name := m[1] + m[2] + m[3]
		l.names = append(l.names, normal(name), varsPrefix+name)
		if l.at&byClient != 0 {
			l.names = append(l.names, normal(headerPrefix+name), normal(queryPrefix+name))
		}
	}
}

// expressionIn is the text of an expression matcher.
func expressionIn(raw json.RawMessage) (text string) {
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var long struct{ Expr string }
	_ = json.Unmarshal(raw, &long) // what is none has no text
	return long.Expr
}

// captures are the placeholders that matchers set. Those of an expression have names
// that it does not always say, and what they capture of the path is not followed.
func (e *expander) captures(sets []matcherSet) (values []setValue) {
	add := func(name string, d depends) {
		if name == "" {
			name = "0"
		}
		values = append(values, setValue{placeholder: capturePrefix + name, depends: d})
	}
	type pattern struct{ Name string }
	for _, set := range sets {
		var path pattern
		if json.Unmarshal(set["path_regexp"], &path) == nil && len(set["path_regexp"]) > 0 {
			add(path.Name, depends{text: byPath, from: byPath})
		}
		for module, prefix := range map[string]string{"header_regexp": headerPrefix, "vars_regexp": varsPrefix} {
			var fields map[string]*pattern
			_ = json.Unmarshal(set[module], &fields)
			for _, field := range slices.Sorted(maps.Keys(fields)) {
				if re := fields[field]; re != nil {
					d := e.template(field)
					d.add(e.named(prefix + field))
					add(re.Name, d)
				}
			}
		}
		text := expressionIn(set["expression"])
		for _, function := range captureFunction.FindAllStringSubmatch(text, -1) {
			l := looked{}
			l.matcher("expression", set["expression"])
			d := depends{}
			for _, name := range l.names {
				d.add(e.set(name))
			}
			switch function[1] {
			case "path":
				d.add(depends{text: byClient, from: byPath})
			case "header":
				d.add(depends{text: byClient, from: byClient})
			}
			add(anyName, d)
		}
	}
	slices.SortStableFunc(values, func(a, b setValue) int { return strings.Compare(a.placeholder, b.placeholder) })
	return values
}

// known is the cond with what it looks at, and what that depends on.
func (c *cond) known(e *expander) {
	l := lookAt(c.sets)
	c.looks = depends{from: l.at}
	for _, name := range l.names {
		c.looks.add(e.named(name).chosenBy())
	}
}

// at is what a value depends on at a gate: also by the matchers that said whether
// it is set, apart from those around the gate, which all have met who come there.
func (d depends) at(g *Gate) source {
	from, open := d.from, d.under
	seen := map[*cond]bool{}
	for len(open) > 0 {
		c := open[len(open)-1]
		open = open[:len(open)-1]
		if seen[c] || g.at.shared(c) {
			continue
		}
		seen[c] = true
		looks := c.looks.from
		if !g.at.expander().anyHost {
			looks &^= byHost // all of its names are in the config, and come in one spelling
		}
		from |= looks
		open = append(slices.Clip(open), c.looks.under...)
	}
	return from
}

// checkSources finds lines whose matcher looks by a detour at what it cannot see in all
// ways in which an upstream may read it.
func (w *walk) checkSources(g *Gate) {
	e := g.at.expander()
	chooses := w.config.Servers[g.Server].clientChoosesAddress()
	const address = "%s looks at client_ip, and with trusted_proxies alone that is what the client writes first into X-Forwarded-For; add trusted_proxies_strict to the `servers` block"
	flows := map[string]source{}
	set := func(name string) source {
		from, ok := flows[name]
		if !ok {
			from = e.set(name).at(g)
			flows[name] = from
		}
		return from
	}
	for _, line := range g.matched {
		found := source(0)
		for _, name := range line.looks.names {
			from := set(name)
			for _, detour := range detours {
				if from&detour.by != 0 && found&detour.by == 0 {
					w.find(g, Warning, detour.rule, detour.message, line.words, name)
				}
			}
			found |= from | inherent(name)&byAddress
		}
		if chooses && (found|line.looks.at)&byAddress != 0 {
			w.find(g, Warning, RuleClientIP, address, line.words)
		}
	}
	for _, c := range g.at.conds {
		looks := c.looks.from
		for _, under := range c.looks.under {
			looks |= under.looks.from
		}
		if chooses && looks&byAddress != 0 {
			w.find(g, Warning, RuleClientIP, address, "a matcher around the paywall")
		}
	}
}

var detours = []struct {
	by            source
	rule, message string
}{
	{byPath, RuleDetour, "%s looks at {%s}, which the path sets, in one spelling of it only (`//x`, `/a/../x` and `/X` are others); put the paths into the line itself"},
	{byMethod, RuleMethodDetour, "%s looks at {%s}, which the method sets, and an upstream may take the method from a header or the query (X-HTTP-Method-Override, _method); put the methods into the line itself, before the paths"},
	{byHost, RuleHostDetour, "%s looks at {%s}, which the host sets, in one spelling of it only (`shop.example.` is another); put a `host` matcher into the line itself"},
}
