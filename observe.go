package paywall

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/purchase"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
	"github.com/caddy-paywall/caddy-paywall/pricing"
	"github.com/caddy-paywall/caddy-paywall/traffic"
)

// sold are the price lines that do more than to observe.
func (h *Handler) sold() []Price {
	if h.Observe {
		return nil
	}
	sold := make([]Price, 0, len(h.Prices))
	for _, p := range h.Prices {
		if !p.Observe {
			sold = append(sold, p)
		}
	}
	return sold
}

// observe counts a request that passes, whatever it would cost.
func (h *Handler) observe(r *http.Request) {
	if exempt, err := h.isExempt(r); exempt || err != nil {
		return
	}
	decision, err := request.Decide(h.list, r, request.PriceMethod(r), request.ReadOverrides(r))
	if err == nil && decision.Kind == pricing.Priced {
		h.see(r, decision).count(traffic.Sums{Observed: 1})
	}
}

// sighting is a request for something that has a price, as it is counted.
type sighting struct {
	counter          *traffic.Counter
	site, line, unit string
	who              traffic.Client
}

// see counts that something with a price was asked for.
func (h *Handler) see(r *http.Request, decision pricing.Decision) sighting {
	_ = h.app.tellPlaces() // else the site has no name
	price := h.prices[decision.Price]
	s := sighting{&h.app.shared.traffic, h.at.name(), h.lines[decision.Line+1].name, price.unit, h.who(r)}
	s.count(traffic.Sums{Asked: 1, Worth: price.worth})
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

// keepTraffic moves counts into the store until the app stops, and what is left then.
func (a *App) keepTraffic() {
	ticks := time.NewTicker(traffic.FlushEvery)
	defer ticks.Stop()
	told := false
	for {
		select {
		case <-a.watching.Done():
			return
		case <-ticks.C:
		}
		err := a.flushTraffic()
		if err != nil && !told {
			a.logger.Warn("counts of requests cannot be kept now; they are tried again", zap.Error(err))
		}
		told = err != nil
	}
}

// flushWithin is how long a store may take for counts.
const flushWithin = 5 * time.Second

func (a *App) flushTraffic() error {
	ctx, cancel := context.WithTimeout(context.Background(), flushWithin)
	defer cancel()
	return a.shared.traffic.Flush(ctx, a.traffic)
}
