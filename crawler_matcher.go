package paywall

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/crawlers"
)

func init() {
	caddy.RegisterModule(MatchCrawler{})
}

// MatchCrawler matches crawlers and agents by what they call themselves in the User-Agent,
// or in Signature-Agent. `caddy paywall crawlers` lists whom it knows.
//
// It also gives the request these placeholders:
//
// Placeholder | Description
// ------------|-------------
// `{http.paywall.client}` | What the client calls itself, such as `GPTBot`; empty if that is nothing from the table
// `{http.paywall.client_kind}` | Its kind, such as `train`
// `{http.paywall.client_verified}` | `true` if it is proved that it is one of the table
type MatchCrawler struct {
	// The kinds that match: `train`, `search`, `assistant`, `agent`, `data`, `seo`,
	// `preview`, `archive`, `monitor`, `tool`. Default, where no names are given either:
	// all but `monitor` and `tool`.
	Kinds []crawlers.Kind `json:"kinds,omitempty"`

	// The names that match, as the table has them; letter case is ignored.
	Names []string `json:"names,omitempty"`

	// Whether it has to be proved: by published addresses, by the name of the host, or by a
	// signature. Without that anybody matches who calls himself so. Default: false.
	Verified bool `json:"verified,omitempty"`

	app   *Crawlers
	kinds []crawlers.Kind
	names []string
}

// CaddyModule returns the Caddy module information.
func (MatchCrawler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.matchers.crawler", New: func() caddy.Module { return new(MatchCrawler) }}
}

// verifiedWord ends a line of the matcher.
const verifiedWord = "verified"

// UnmarshalCaddyfile sets up the matcher from Caddyfile tokens. Syntax:
//
//	crawler [<kind>...|<name>...] [verified]
func (m *MatchCrawler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for lines := 0; d.Next(); lines++ {
		if lines > 0 {
			return d.Err("crawler given twice; put all kinds and names into one line")
		}
		for d.NextArg() {
			word := d.Val()
			switch {
			case m.Verified:
				return d.Errf("crawler: %q comes too late; verified is the last word", word)
			case word == verifiedWord:
				m.Verified = true
			case word == "":
				return d.Err("crawler: an empty word; an unset {$VARIABLE} counts as nothing")
			case slices.Contains(crawlers.Kinds(), crawlers.Kind(word)):
				m.Kinds = append(m.Kinds, crawlers.Kind(word))
			default:
				m.Names = append(m.Names, word)
			}
		}
		if d.NextBlock(d.Nesting()) {
			return d.Err("crawler: it has no block")
		}
	}
	return nil
}

// Provision looks whether the table has all that is named.
func (m *MatchCrawler) Provision(ctx caddy.Context) error {
	var err error
	if m.app, err = crawlersOf(ctx); err != nil {
		return err
	}
	table := m.app.checker.Table()
	for _, kind := range m.Kinds {
		if !slices.Contains(crawlers.Kinds(), kind) {
			return fmt.Errorf("crawler: there is no kind %q; there are: %s", kind, crawlers.KindList())
		}
	}
	for _, name := range m.Names {
		row, ok := table.Named(name)
		if !ok {
			return fmt.Errorf("crawler: %q is neither a kind (%s) nor a name of the table; `caddy paywall crawlers` lists the names, and `agent %s <kind>` in `crawlers` of the global paywall block adds one", name, crawlers.KindList(), name)
		}
		if m.Verified && !row.CanBeVerified() {
			return fmt.Errorf("crawler: nobody can verify that a client is %s; add `ranges`, `rdns` or `directories` for it to `crawlers` of the global paywall block, or leave `verified` out", row.Token)
		}
		m.names = append(m.names, row.Token)
	}
	m.kinds = m.Kinds
	if len(m.Kinds) == 0 && len(m.Names) == 0 {
		m.kinds = slices.DeleteFunc(crawlers.Kinds(), func(k crawlers.Kind) bool { return !k.IsCrawler() })
	}
	if m.Verified {
		for _, row := range table.Agents() {
			if m.isFor(row.Token, row.Kind) {
				m.app.expected = append(m.app.expected, row)
			}
		}
	}
	return nil
}

func (m *MatchCrawler) isFor(name string, kind crawlers.Kind) bool {
	return name != "" && (slices.Contains(m.kinds, kind) || slices.Contains(m.names, name))
}

// MatchWithError implements caddyhttp.RequestMatcherWithError.
func (m *MatchCrawler) MatchWithError(r *http.Request) (bool, error) {
	if !m.Verified {
		claim := m.app.Claim(r)
		return m.isFor(claim.Name, claim.Kind), nil
	}
	who := m.app.Who(r)
	return who.Proof == crawlers.Verified && m.isFor(who.Name, who.Kind), nil
}

// parseCrawlers parses what the operator says of crawlers. Syntax:
//
//	crawlers {
//		agent       <name> <kind> [<operator>]
//		ranges      <name> <https-url|file>...
//		rdns        <name> <domain>...
//		directories <name> <domain>...
//		resolver    <address>
//	}
func parseCrawlers(d *caddyfile.Dispenser, app *App) error {
	if app.Crawlers != nil {
		return d.Err("crawlers given twice; put all of it into one block")
	}
	if d.NextArg() {
		return d.Errf("crawlers: %q belongs into a block", d.Val())
	}
	app.Crawlers = new(crawlers.Config)
	row := func(name string) *crawlers.Crawler {
		agents := &app.Crawlers.Agents
		for i := range *agents {
			if strings.EqualFold((*agents)[i].Token, name) {
				return &(*agents)[i]
			}
		}
		*agents = append(*agents, crawlers.Crawler{Token: name})
		return &(*agents)[len(*agents)-1]
	}
	words := []string{"agent", "ranges", "rdns", "directories", "resolver"}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		if !slices.Contains(words, word) {
			return unknownWord(d, "crawlers", words...)
		}
		args := d.RemainingArgs()
		if slices.Contains(args, "") {
			return d.Errf("%s: an empty word; an unset {$VARIABLE} counts as nothing", word)
		}
		switch word {
		case "agent":
			if len(args) < 2 || len(args) > 3 {
				return d.Err("agent: want `agent <name> <kind> [<operator>]`; quote a name of several words")
			}
			a := row(args[0])
			if a.Kind != "" {
				return d.Errf("agent %s is given twice", args[0])
			}
			a.Kind = crawlers.Kind(args[1])
			if len(args) == 3 {
				a.Operator = args[2]
			}
		case "ranges", "rdns", "directories":
			if len(args) < 2 {
				return d.Errf("%s: want `%s <name>` and then one or more of them; quote a name of several words", word, word)
			}
			a := row(args[0])
			into := map[string]*[]string{"ranges": &a.Ranges, "rdns": &a.RDNS, "directories": &a.Directories}[word]
			if len(*into) > 0 {
				return d.Errf("%s of %s are given twice; put all into one line", word, args[0])
			}
			*into = args[1:]
		case "resolver":
			if len(args) != 1 || app.Crawlers.Resolver != "" {
				return d.Err("resolver: want the address of one DNS server")
			}
			app.Crawlers.Resolver = args[0]
		}
		if d.NextBlock(d.Nesting()) {
			return d.Errf("%s: it has no block", word)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner                 = (*MatchCrawler)(nil)
	_ caddyfile.Unmarshaler             = (*MatchCrawler)(nil)
	_ caddyhttp.RequestMatcherWithError = (*MatchCrawler)(nil)
)
