package paywall

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/matcher"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// warnAboutPrice tells the operator at load what payers will stumble over.
func (h *Handler) warnAboutPrice(p Price, pr *offer.Price) {
	line := zap.String("line", p.String())
	if len(p.Description) > 500 {
		h.logger.Warn("description is longer than 500 characters; some facilitators refuse such payments", line)
	}
	test, real := 0, 0
	for _, o := range pr.Options() {
		if o.Network.Test {
			test++
		} else {
			real++
		}
		token := zap.String("token", strings.Trim(o.Symbol+" "+o.Requirement.Asset, " "))
		if !o.Stock {
			h.logger.Warn("stock clients refuse this token unless told otherwise; check its decimals, name and version", line, token)
		}
	}
	if test > 0 && real > 0 {
		h.logger.Warn("real and test money are accepted for one price; whoever has test money pays nothing", line)
	}
	if n := pr.Offers(false).Size(); n > 7<<10 {
		h.logger.Warn("challenge is near 8 kB; some clients and proxies refuse such headers: accept fewer tokens", line, zap.Int("bytes", n))
	}
}

// warnAboutQuery tells the operator when a matcher sees one reading of the query
// only: software behind it may see another.
func (h *Handler) warnAboutQuery(line fmt.Stringer, set caddy.ModuleMap) {
	for _, name := range matcher.ReadingQueryOnce(set) {
		h.logger.Warn("this matcher reads the query in one way only, and what is behind the paywall may read it in another (`p[]=1`, `P=1`, two values); use the `query` matcher, which is read in every way",
			zap.Stringer("line", line), zap.String("matcher", name))
	}
}

// warnAboutFree tells the operator when what is free hangs on what any client can send.
func (h *Handler) warnAboutFree(f *Free) {
	if !slices.ContainsFunc(f.MatcherSetsRaw, payerControls) {
		return
	}
	fields := []zap.Field{zap.Stringer("line", f)}
	if f.Where != "" {
		fields = append(fields, zap.String("where", f.Where))
	}
	h.logger.Warn("a payer can choose what this matcher looks at, and so what is free", fields...)
}

// warnAboutMethods tells the operator, once for a block, which prices close their paths to
// people: one for POST answers GET with 405.
func (h *Handler) warnAboutMethods(list *pricing.List) {
	closed := list.ClosedTo(http.MethodGet)
	if len(closed) == 0 {
		return
	}
	first := &h.live[closed[0]]
	fields := []zap.Field{zap.Stringer("line", first), zap.Int("lines", len(closed))}
	if h.Where != "" {
		fields = append(fields, zap.String("block", h.Where))
	}
	h.logger.Warn("GET is answered with 405 where only other methods have a price; if it should pass, write `"+
		strings.Join(append([]string{"free GET"}, first.Paths...), " ")+"`, and if it should cost the same, GET into the line", fields...)
}

// payerControls says whether a matcher looks at what any client can send. That a client
// has to prove who it is leaves it the choice not to.
func payerControls(set caddy.ModuleMap) bool {
	for _, name := range []string{"header", "header_regexp", "query", "expression"} {
		if _, ok := set[name]; ok {
			return true
		}
	}
	if raw, ok := set["crawler"]; ok {
		var m MatchCrawler
		if json.Unmarshal(raw, &m) != nil || !m.Verified {
			return true
		}
	}
	if matcher.LeavesCrawlersOut(set) || chosenWithin.Match(set["not"]) || len(matcher.ReadingQueryOnce(set)) > 0 {
		return true
	}
	others := maps.Clone(set)
	delete(others, "crawler") // which looks at headers that it can prove
	return len(matcher.Headers(others)) > 0
}

// chosenWithin finds in a matcher with others inside what any client can send.
var chosenWithin = regexp.MustCompile(`"(header|header_regexp|query|expression)"\s*:`)

// clientMatcher finds matchers that tell clients apart that ask for one URL.
var clientMatcher = regexp.MustCompile(`"(header|header_regexp|remote_ip|client_ip|expression|vars|vars_regexp|crawler)"\s*:`)

// doubtsAboutBlock says what is probably not meant with a matcher before a block.
func doubtsAboutBlock(before caddy.ModuleMap) (doubts []string) {
	if _, ok := before["path"]; ok {
		doubts = append(doubts, "a path matcher before the block knows one spelling of a path only; put the paths inside the block")
	}
	if matcher.MethodMatcherIn(before) != "" {
		doubts = append(doubts, "a method matcher before the block does not see the method that an upstream may take from a header or a query; put the methods into the lines")
	}
	if clientMatcher.Match(caddyconfig.JSON(before, nil)) {
		doubts = append(doubts, "what this matcher lets past the paywall, caches in front of it may keep, and hand to those who should pay; put the matcher into the price lines")
	}
	return doubts
}

// warnAboutBlocks says of the blocks of a JSON config what a Caddyfile is told while it is
// adapted. A block sees its own matchers only from outside, when all routes are loaded.
func (a *App) warnAboutBlocks() {
	found, err := a.findPlaces()
	if err != nil {
		return // nothing is served without the places: see tellPlaces
	}
	for h, at := range found {
		if h.Where != "" {
			continue
		}
		first := "`otherwise " + h.Otherwise + "`"
		if len(h.Prices) > 0 {
			first = h.Prices[0].String()
		}
		for _, set := range at.matchers {
			for _, text := range doubtsAboutBlock(set) {
				a.logger.Warn(text, zap.Strings("hosts", at.hosts), zap.String("block_with", first))
			}
		}
	}
}

// warnAboutQueryPath tells the operator when a query has a price at the front page only.
// That some software serves by the same query everywhere, nobody can tell from here.
func (h *Handler) warnAboutQueryPath(p *Price) {
	if slices.Contains(p.Paths, "/") && slices.ContainsFunc(p.MatcherSetsRaw, func(set caddy.ModuleMap) bool { _, ok := set["query"]; return ok }) {
		h.logger.Warn("a price by a query for `/` alone: what serves pages by a query often does so at any path (`/any/thing?p=1`); write `/*` instead",
			zap.Stringer("line", p))
	}
}

// Limits of clients and facilitators, in millionths of a dollar, which they apply unless told
// otherwise. Who would meet them late is told once for a load, and not once for a line.
const (
	mostOfSmallClients = 100_000   // x402-fetch 1.2, agents 0.32
	mostOfClients      = 1_000_000 // @x402/fetch 2.27
)

// leastOf is the smallest amount that facilitators settle which say so nowhere in their
// answers, by host. Coinbase's refuses less as `invalid_payload`.
var leastOf = map[string]int64{"api.cdp.coinbase.com": 1000}

// priced is what prices of a load have in common that an operator should know.
type priced struct {
	prices int
	line   string // of the first
}

func (p *priced) add(line string) {
	if p.prices++; p.prices == 1 {
		p.line = line
	}
}

// priceNotes collects, over all sites, the prices that meet limits of others.
type priceNotes struct {
	aboveSmall, above priced
	below             map[string]*priced // by the name of the facilitator
	leastOf           map[string]int64   // of facilitators with a known limit, by name
}

// note takes a price in millionths of a dollar, and the names of its facilitators.
func (n *priceNotes) note(line string, micros *big.Int, facilitators []string) {
	if micros.Cmp(big.NewInt(mostOfSmallClients)) > 0 {
		n.aboveSmall.add(line)
	}
	if micros.Cmp(big.NewInt(mostOfClients)) > 0 {
		n.above.add(line)
	}
	for _, name := range facilitators {
		least, known := n.leastOf[name]
		if !known || micros.Cmp(big.NewInt(least)) >= 0 {
			continue
		}
		if n.below == nil {
			n.below = make(map[string]*priced)
		}
		if n.below[name] == nil {
			n.below[name] = new(priced)
		}
		n.below[name].add(line)
	}
}

// noteLimits takes note of a price that is in dollars, in whichever token that is the most.
func (h *Handler) noteLimits(p Price, options []*offer.Option, facilitators []string) {
	var most *big.Int
	for _, o := range options {
		if micros := o.Micros(); micros != nil && (most == nil || micros.Cmp(most) > 0) {
			most = micros
		}
	}
	if most != nil {
		h.app.notes.note(p.String(), most, facilitators)
	}
}

// warnAboutLimits tells the operator, once all sites are loaded, of the prices that some
// clients and facilitators refuse.
func (a *App) warnAboutLimits() {
	n := &a.notes
	if n.aboveSmall.prices > 0 {
		a.logger.Warn("prices above 0.10 USD: x402-fetch (version 1) and Cloudflare's agents pay no more unless told otherwise",
			zap.Int("prices", n.aboveSmall.prices), zap.String("first", n.aboveSmall.line))
	}
	if n.above.prices > 0 {
		a.logger.Warn("prices above 1 USD: @x402/fetch pays no more unless told otherwise",
			zap.Int("prices", n.above.prices), zap.String("first", n.above.line))
	}
	for _, name := range slices.Sorted(maps.Keys(n.below)) {
		a.logger.Warn("prices below the least that this facilitator is known to settle: it refuses their payments as invalid",
			zap.String("facilitator", name), zap.Int64("least_micros", n.leastOf[name]), zap.Int("prices", n.below[name].prices), zap.String("first", n.below[name].line))
	}
}

// warnAboutConfig tells the operator at load what the app's own config shows to
// others, and what it lacks.
func (a *App) warnAboutConfig() {
	raws := map[string]json.RawMessage{"ledger": a.LedgerRaw}
	for name, raw := range a.FacilitatorsRaw {
		raws["facilitator "+name] = raw
		var f struct {
			Type string              `json:"type"`
			URL  string              `json:"url"`
			RPC  map[string][]string `json:"rpc"`
		}
		if json.Unmarshal(raw, &f) != nil || f.Type != "remote" {
			continue
		}
		if u, err := url.Parse(f.URL); err == nil {
			if least, known := leastOf[strings.ToLower(u.Hostname())]; known {
				if a.notes.leastOf == nil {
					a.notes.leastOf = make(map[string]int64)
				}
				a.notes.leastOf[name] = least
			}
		}
		if len(f.RPC) == 0 {
			a.logger.Warn("a remote facilitator without `rpc`: when it does not answer a settlement, nobody can look whether the money has moved, and the payment can stay in doubt",
				zap.String("facilitator", name))
		}
	}
	for _, where := range slices.Sorted(maps.Keys(raws)) {
		var config any
		if json.Unmarshal(raws[where], &config) != nil {
			continue // its module says so
		}
		for _, member := range secretsIn("", config) {
			a.logger.Warn("this looks like a secret in the clear: the config shows in the admin API, in `caddy adapt` and in the autosave file; give it as {env.NAME} or {file./path}, never as {$NAME}",
				zap.String("in", where), zap.String("member", member))
		}
	}
}

// secretsIn names the members of a config that look like secrets. What they are
// it does not say.
func secretsIn(member string, config any) []string {
	var found []string
	switch v := config.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			found = append(found, secretsIn(strings.Trim(member+"."+name, "."), v[name])...)
		}
	case []any:
		for i := range v {
			found = append(found, secretsIn(fmt.Sprintf("%s[%d]", member, i), v[i])...)
		}
	case string:
		if looksSecret(v) {
			found = append(found, member)
		}
	}
	return found
}

var (
	privateKey = regexp.MustCompile(`^(0[xX])?[0-9a-fA-F]{64}$`)
	// apiKey is what nodes and services put into their URLs: long, and no word.
	apiKey = regexp.MustCompile(`^[0-9A-Za-z_-]{20,}$`)
)

// looksSecret reports whether a text of the config is a key, or a URL with one.
// The tokens of remote facilitators and the passwords of databases are known by
// their members, and their modules warn of these.
func looksSecret(s string) bool {
	if strings.Contains(s, "{env.") || strings.Contains(s, "{file.") {
		return false
	}
	if privateKey.MatchString(s) {
		return true
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || strings.HasPrefix(u.Scheme, "postgres") {
		return false
	}
	if _, ok := u.User.Password(); ok {
		return true
	}
	parts := strings.Split(u.Path, "/")
	for _, values := range u.Query() {
		parts = append(parts, values...)
	}
	return slices.ContainsFunc(parts, func(part string) bool {
		return apiKey.MatchString(part) && strings.ContainsAny(part, "0123456789") && strings.ToUpper(part) != strings.ToLower(part)
	})
}

// warnAboutMoney tells the operator, once all sites are loaded, when play money
// buys in one and real money in another.
func (a *App) warnAboutMoney() {
	if a.realNetwork != "" && a.testNetwork != "" {
		a.logger.Warn("real and test money are accepted by one server; make sure that nothing real is sold for test money",
			zap.String("real", a.realNetwork), zap.String("test", a.testNetwork))
	}
}
