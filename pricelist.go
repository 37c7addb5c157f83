package paywall

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/commands"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// PriceLists are the price lists of all blocks, for `caddy paywall prices`.
func (a *App) PriceLists() ([]commands.PriceList, error) {
	found, err := a.findPlaces()
	if err != nil {
		return nil, err
	}
	lists := make([]commands.PriceList, 0, len(found))
	for h, at := range found {
		lists = append(lists, h.priceList(&at))
	}
	slices.SortFunc(lists, func(a, b commands.PriceList) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Where, b.Where))
	})
	return lists, nil
}

func (h *Handler) priceList(at *place) commands.PriceList {
	list := commands.PriceList{Site: at.name(), Hosts: at.hosts, Where: h.Where, Observes: h.observes, Judge: h.judge}
	add := func(line string) { list.Lines = append(list.Lines, commands.PriceLine{Line: strings.Trim(line, "`")}) }
	for i := range h.Exempt {
		add(h.Exempt[i].String())
		list.ByClient = true
	}
	for i := range h.live {
		p := &h.live[i]
		add(p.String())
		l := &list.Lines[len(list.Lines)-1]
		l.Description, l.Observed = p.Description, p.Observe
		h.addCosts(l, h.listed[i])
		list.ByClient = list.ByClient || p.matchers != nil
	}
	for i := range h.Prices {
		if p := &h.Prices[i]; p.Observe && !h.observes {
			add(p.String())
			list.Lines[len(list.Lines)-1].Observed = true
		}
	}
	for i := range h.Free {
		add(h.Free[i].String())
		list.ByClient = list.ByClient || h.Free[i].matchers != nil
	}
	add("otherwise " + cmp.Or(h.Otherwise, "free"))
	if h.Otherwise != "" && h.Otherwise != "refuse" {
		h.addCosts(&list.Lines[len(list.Lines)-1], h.otherwise)
	}
	return list
}

// addCosts says of a line what it costs in each token, and who settles it.
func (h *Handler) addCosts(l *commands.PriceLine, price int) {
	made := h.prices[price]
	if h.observes {
		return
	}
	for _, o := range made.Options() {
		l.Costs = append(l.Costs, o.Amount()+" on "+o.Network.Name+" to "+o.Requirement.PayTo)
	}
	l.Facilitators = slices.Clone(made.facilitators)
}

// judge says what a request would get here, and which lines lose.
func (h *Handler) judge(r *http.Request) (commands.Verdict, error) {
	for i := range h.exempt {
		if ok, err := h.exempt[i].matches(r); err != nil || ok {
			return commands.Verdict{Status: http.StatusOK, Says: "passes, whatever it would cost", Line: h.Exempt[i].String()}, err
		}
	}
	if !h.host.CanBeRead(r.Host) {
		return commands.Verdict{Status: http.StatusBadRequest, Says: "its host can be read in more ways than one"}, nil
	}
	override := h.overridesOf(r)
	decision, standings, err := h.list.Explain(func(list *pricing.List) (pricing.Decision, error) {
		return request.Decide(list, r, request.PriceMethod(r), override)
	})
	if err != nil {
		return commands.Verdict{}, fmt.Errorf("the price cannot be decided, so the answer would be 500: %w", err)
	}
	verdict := h.verdict(decision)
	if line, worth := h.observer.observed(r); worth != "" && decision.Kind == pricing.Free {
		verdict.Says, verdict.Line = "passes, and is counted as worth "+worth, line
	}
	for _, s := range standings {
		if !s.Decides {
			verdict.Beside = append(verdict.Beside, commands.Loser{Line: h.lineNumber(s.Line), Why: s.Why})
		}
	}
	return verdict, nil
}

// observed is the line that counts a request which passes, and what it would cost by that; ""
// if none does.
func (h *Handler) observed(r *http.Request) (line, worth string) {
	if h == nil {
		return "", ""
	}
	decision, ok := h.decideObserved(r)
	if !ok {
		return "", ""
	}
	return h.lineNumber(decision.Line), h.prices[decision.Price].String()
}

// verdict says a decision in words.
func (h *Handler) verdict(d pricing.Decision) commands.Verdict {
	v := commands.Verdict{Status: http.StatusOK, Says: "passes, free"}
	if d.Line >= 0 {
		v.Line = h.lineNumber(d.Line)
	}
	if refused := h.notForSale(d, nil); refused != nil {
		v.Status = refused.Status
		switch d.Kind {
		case pricing.Refused:
			v.Says, v.Line = "is not for sale", "`otherwise refuse`"
		case pricing.MethodNotAllowed:
			v.Says = "there are lines for other methods only (" + strings.Join(d.Allow, ", ") + ")"
		default:
			v.Says = "it can be read in more ways than one, which cost different things"
		}
		return v
	}
	if d.Kind == pricing.Free {
		return v
	}
	made := h.prices[d.Price]
	if d.Line < 0 {
		v.Line = "`otherwise " + h.Otherwise + "`"
	}
	if h.observes {
		v.Says = "passes, and is counted as worth " + made.String()
		return v
	}
	var costs []string
	for _, o := range made.Options() {
		costs = append(costs, o.Amount()+" on "+o.Network.Name)
	}
	v.Status, v.Says = http.StatusPaymentRequired, "costs "+strings.Join(costs, ", or ")
	return v
}

// lineNumber is the line of the list with a number, as it would be written.
func (h *Handler) lineNumber(i int) string {
	if i < len(h.live) {
		return h.live[i].String()
	}
	return h.Free[i-len(h.live)].String()
}
