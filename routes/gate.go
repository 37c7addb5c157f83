package routes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// Line is a priced line of a paywall block.
type Line struct {
	Methods []string
	Path    string // a pattern
	Amount  string
	// Matched says that a matcher narrows the line.
	Matched bool
}

// String is the line in messages.
func (l Line) String() string {
	words := append([]string{"price"}, l.Methods...)
	return "`" + strings.Join(append(words, l.Path, l.Amount), " ") + "`"
}

// Gate is a paywall block, and where it stands.
type Gate struct {
	// Server is the name of the server in the config.
	Server string
	// Listen are the server's addresses, and TLS whether it speaks TLS there.
	Listen []string
	TLS    bool
	// Hosts are the site's host names; none means every host.
	Hosts []string
	// PublicURL is the origin that the block names, if it does.
	PublicURL string
	// Upstreams are the origins of the HTTP servers that proxies behind it ask.
	Upstreams []string
	// Lines are its priced lines, one for each path.
	Lines []Line
	// Examples are a path for each line, where one was found: one that the block
	// prices where it stands.
	Examples []string

	at      place
	list    *pricing.List
	groups  [][]string // by line: the paths below which it can be reached
	matched []matchedLine
}

// matchedLine is a line that has a matcher: priced, free, or for who is exempt.
type matchedLine struct {
	words string
	looks looked
}

// parseGate reads the handler of a paywall block.
func parseGate(raw json.RawMessage) (*Gate, error) {
	type line struct {
		Methods []string        `json:"methods"`
		Match   json.RawMessage `json:"match"`
		Name    string          `json:"matcher_name"`
		Paths   []string        `json:"paths"`
		Amount  json.RawMessage `json:"amount"`
		Upto    bool            `json:"upto"`
	}
	var w struct {
		Prices    []line `json:"prices"`
		Free      []line `json:"free"`
		Exempt    []line `json:"exempt"`
		Otherwise string `json:"otherwise"`
		PublicURL string `json:"public_url"`
	}
	if err := json.Unmarshal(raw, &w); err != nil {
		return nil, fmt.Errorf("reading a paywall block: %w", err)
	}
	g := &Gate{PublicURL: w.PublicURL}
	var lines []pricing.Line
	amounts := map[string]int{}
	add := func(kind pricing.Kind, l line) {
		p := pricing.Line{Kind: kind, Methods: l.Methods, Patterns: l.Paths}
		if len(l.Match) > 0 && string(l.Match) != "null" {
			p.Matcher = func(*http.Request) (bool, error) { return kind == pricing.Priced, nil }
			words := []string{map[pricing.Kind]string{pricing.Priced: "price", pricing.Free: "free"}[kind]}
			if words = append(words, l.Methods...); l.Name != "" {
				words = append(words, l.Name)
			}
			var sets []matcherSet
			_ = json.Unmarshal(l.Match, &sets) // the block itself refuses what is none
			g.matched = append(g.matched, matchedLine{"`" + strings.Join(append(words, l.Paths...), " ") + "`", lookAt(sets)})
		}
		amount := strings.Trim(string(l.Amount), `"`)
		if l.Upto {
			amount = "upto " + amount
		}
		if kind == pricing.Priced {
			if _, ok := amounts[amount]; !ok {
				amounts[amount] = len(amounts)
			}
			p.Price = amounts[amount]
			for _, path := range l.Paths {
				g.Lines = append(g.Lines, Line{Methods: l.Methods, Path: path, Amount: amount, Matched: p.Matcher != nil})
			}
		}
		lines = append(lines, p)
	}
	for _, l := range w.Prices {
		add(pricing.Priced, l)
	}
	for _, l := range w.Free {
		add(pricing.Free, l)
	}
	for _, l := range w.Exempt {
		var sets []matcherSet
		_ = json.Unmarshal(l.Match, &sets) // the block itself refuses what is none
		g.matched = append(g.matched, matchedLine{"`exempt " + l.Name + "`", lookAt(sets)})
	}
	otherwise := pricing.Decision{Kind: pricing.Free}
	switch w.Otherwise {
	case "":
	case "refuse":
		otherwise.Kind = pricing.Refused
	default:
		otherwise = pricing.Decision{Kind: pricing.Priced, Price: len(amounts)}
		g.Lines = append(g.Lines, Line{Path: "/*", Amount: w.Otherwise})
	}
	var err error
	if g.list, err = pricing.NewList(lines, otherwise); err != nil {
		// The block itself says so when it loads; here it prices what its lines
		// name.
		g.list = nil
	}
	return g, nil
}

// decide asks the block about a path, with a method that the line is for.
func (g *Gate) decide(methods []string, paths ...string) pricing.Kind {
	method := http.MethodGet
	if len(methods) > 0 && !slices.Contains(methods, method) {
		method = methods[0]
	}
	if g.list == nil {
		return pricing.Priced
	}
	d, err := g.list.Decide(new(http.Request), method, paths...)
	if err != nil {
		return pricing.Undecided
	}
	return d.Kind
}

// prices reports whether the block takes money for the path, or lets nobody in.
func (g *Gate) prices(path string) bool {
	switch g.decide(nil, path) {
	case pricing.Free:
		return false
	default:
		return true
	}
}

// charges reports whether the block prices the path and requests with it come to
// the block, as far as their path tells.
func (g *Gate) charges(path string) bool {
	for _, c := range g.at.conds {
		if paths, ok := c.paths(); ok && !c.changed && meetsPath(paths, path) == none {
			return false
		}
	}
	return g.prices(path)
}

// site names the site in messages.
func (g *Gate) site() string {
	if len(g.Hosts) > 0 {
		return strings.Join(g.Hosts, ", ")
	}
	return strings.Join(g.Listen, ", ")
}
