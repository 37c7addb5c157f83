package paywall

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/matcher"
)

// warnAboutPrice tells the operator at load what payers will stumble over.
func (h *Handler) warnAboutPrice(p Price, pr *price) {
	line := zap.String("line", p.String())
	if len(p.Description) > 500 {
		h.logger.Warn("description is longer than 500 characters; some facilitators refuse such payments", line)
	}
	test, real := 0, 0
	for _, o := range pr.options() {
		if o.Network.Test {
			test++
		} else {
			real++
		}
		token := zap.String("token", strings.Trim(o.Symbol+" "+o.Requirement.Asset, " "))
		if !o.Stock {
			h.logger.Warn("stock clients refuse this token unless told otherwise; check its decimals, name and version", line, token)
		}
		if o.PegUSD && moreThanOne(o.Requirement.Amount, o.Decimals) {
			h.logger.Warn("price is above 1 USD; stock clients refuse it unless told otherwise", line, token)
		}
	}
	if test > 0 && real > 0 {
		h.logger.Warn("real and test money are accepted for one price; whoever has test money pays nothing", line)
	}
	if n := pr.offers[0].Size(); n > 7<<10 {
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

// warnAboutQueryPath tells the operator when a query has a price at the front page only.
// That some software serves by the same query everywhere, nobody can tell from here.
func (h *Handler) warnAboutQueryPath(p *Price) {
	if slices.Contains(p.Paths, "/") && slices.ContainsFunc(p.MatcherSetsRaw, func(set caddy.ModuleMap) bool { _, ok := set["query"]; return ok }) {
		h.logger.Warn("a price by a query for `/` alone: what serves pages by a query often does so at any path (`/any/thing?p=1`); write `/*` instead",
			zap.Stringer("line", p))
	}
}

// moreThanOne says whether an atomic amount is more than one whole token.
func moreThanOne(atomic string, decimals int) bool {
	one := "1" + strings.Repeat("0", decimals)
	return len(atomic) > len(one) || len(atomic) == len(one) && atomic > one
}
