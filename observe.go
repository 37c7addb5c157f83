package paywall

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/shopspring/decimal"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/purchase"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
	"github.com/caddy-paywall/caddy-paywall/pricing"
	"github.com/caddy-paywall/caddy-paywall/traffic"
)

// divide tells the lines that sell from those that are only observed. A block in which all
// are observed needs no more than one that says so.
func (h *Handler) divide() {
	h.live = slices.DeleteFunc(slices.Clone(h.Prices), func(p Price) bool { return p.Observe })
	if h.Observe || len(h.live) == 0 && len(h.Prices) > 0 && h.Otherwise == "" {
		h.live, h.observes = h.Prices, true
	}
}

// sold are the price lines that do more than to observe.
func (h *Handler) sold() []Price {
	if h.observes {
		return nil
	}
	return h.live
}

// provisionObserver makes the list of all lines, for what is only observed. What a request
// costs is decided without it: an observed line opens nothing and refuses nothing.
func (h *Handler) provisionObserver(ctx caddy.Context) error {
	if h.observes || len(h.live) == len(h.Prices) {
		return nil
	}
	o := &Handler{app: h.app, crawlers: h.crawlers, desk: h.desk, at: h.at, logger: zap.NewNop(), observes: true}
	for _, p := range h.Prices {
		p.MatcherSetsRaw = cloneSets(p.MatcherSetsRaw)
		o.live = append(o.live, p)
	}
	for _, f := range h.Free {
		f.MatcherSetsRaw = cloneSets(f.MatcherSetsRaw)
		o.Free = append(o.Free, f)
	}
	h.observer = o
	return o.provisionPrices(ctx)
}

// cloneSets copies matchers, which loading takes away.
func cloneSets(sets caddyhttp.RawMatcherSets) (copies caddyhttp.RawMatcherSets) {
	for _, set := range sets {
		copies = append(copies, maps.Clone(set))
	}
	return copies
}

// observe counts a request that passes, if it would cost something by what is only observed.
// A preflight carries none of its goods.
func (h *Handler) observe(r *http.Request) {
	if h == nil || isPreflight(r) {
		return
	}
	if exempt, err := h.isExempt(r); exempt || err != nil {
		return
	}
	decision, ok := h.decideObserved(r)
	if !ok {
		return
	}
	seen := h.see(r, decision)
	seen.count(traffic.Sums{Observed: 1, Worth: seen.worth})
}

// decideObserved finds the line by which a request is counted, if there is one.
func (h *Handler) decideObserved(r *http.Request) (decision pricing.Decision, ok bool) {
	decision, err := request.Decide(h.list, r, request.PriceMethod(r), request.ReadOverrides(r))
	return decision, err == nil && decision.Kind == pricing.Priced && (h.Observe || h.lines[decision.Line+1].observed)
}

// sighting is a request for something that has a price, as it is counted.
type sighting struct {
	counter          *traffic.Counter
	site, line, unit string
	worth            decimal.Decimal
	who              traffic.Client
}

// see counts that something with a price was asked for. Who pays for it asks once more: that
// is worth nothing anew.
func (h *Handler) see(r *http.Request, decision pricing.Decision) sighting {
	_ = h.app.tellPlaces() // else the site has no name
	price := h.prices[decision.Price]
	s := sighting{&h.app.shared.traffic, h.at.name(), h.lines[decision.Line+1].name, price.unit, price.worth, h.who(r)}
	s.count(traffic.Sums{Asked: 1})
	return s
}

func (s sighting) count(sums traffic.Sums) { s.counter.Count(s.site, s.line, s.who, s.unit, sums) }

// bought counts what a purchase has come to.
func (s sighting) bought(p *purchase.Purchase) {
	if p.Arrived() {
		s.count(traffic.Sums{Delivered: 1})
	}
	amount, symbol, paid := p.Earned()
	if !paid {
		return
	}
	earned, err := decimal.NewFromString(amount)
	if err != nil {
		return
	}
	s.unit = unitOf(symbol)
	s.count(traffic.Sums{Paid: 1, Earned: earned})
}

// who is the client of a request. It waits for nobody.
func (h *Handler) who(r *http.Request) traffic.Client {
	who := h.crawlers.Glance(r)
	return traffic.Client{Kind: string(who.Kind), Name: who.Name, Proof: string(who.Proof)}
}

// unitOf is what amounts are counted in: dollars where there is no symbol.
func unitOf(symbol string) string {
	if symbol == "" {
		return "USD"
	}
	return strings.ToUpper(symbol)
}

// name is what people call the site: its first name, or where it listens.
func (p *place) name() string {
	switch {
	case len(p.hosts) > 0:
		return p.hosts[0]
	case len(p.ports) > 0:
		return ":" + strconv.FormatUint(uint64(p.ports[0]), 10)
	}
	return "(all)"
}

// keepTraffic moves counts into the store until the app stops. Stop moves what is left.
func (a *App) keepTraffic() {
	ticks := time.NewTicker(traffic.FlushEvery)
	defer ticks.Stop()
	told := false
	tell := func(err error) {
		if err != nil && !told {
			a.logger.Warn("counts of requests cannot be kept now; they are tried again", zap.Error(err))
		}
		told = err != nil
	}
	tell(a.traffic.Open(a.watching))
	for {
		select {
		case <-a.watching.Done():
			return
		case <-ticks.C:
		}
		if a.watching.Err() != nil {
			return
		}
		tell(a.flushTraffic())
	}
}

// flushWithin is how long a store may take for counts.
const flushWithin = 5 * time.Second

func (a *App) flushTraffic() error {
	ctx, cancel := context.WithTimeout(context.Background(), flushWithin)
	defer cancel()
	return a.shared.traffic.Flush(ctx, a.traffic)
}
