package paywall

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/shopspring/decimal"

	"github.com/caddy-paywall/caddy-paywall/facilitator"
	"github.com/caddy-paywall/caddy-paywall/internal/matcher"
	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/internal/purchase"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
	"github.com/caddy-paywall/caddy-paywall/pricing"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// settlesFirst says when the money of a request moves.
func settlesFirst(p *offer.Price, r *http.Request, o request.Overrides) bool {
	if p.Upto {
		return false
	}
	if request.Tunnels(r) {
		return true // 101 is goods
	}
	switch p.Settle {
	case settleFirst:
		return true
	case settleOnSuccess:
		return false
	}
	// An upstream that acted cannot be un-acted.
	return !request.Safe(r.Method) || o.Act()
}

// provisionPrices turns the config's lines into the price list.
func (h *Handler) provisionPrices(ctx caddy.Context) error {
	var lines []pricing.Line
	var said []string
	known := map[string]int{} // prices that lines have, by what they say
	for i := range h.live {
		p := &h.live[i]
		p.matchers = matcher.Raw(p.MatcherSetsRaw) // which loading takes away
		said = append(said, p.words())
		h.warnAboutQueryPath(p)
		l, err := h.matched(ctx, p, p.MatcherSetsRaw, &p.MatcherName)
		if err != nil {
			return err
		}
		if l.Price, err = h.price(*p, known); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		l.Kind, l.Methods, l.Patterns = pricing.Priced, p.Methods, p.Paths
		h.listed = append(h.listed, l.Price)
		lines = append(lines, l)
	}
	for i := range h.Free {
		f := &h.Free[i]
		f.matchers = matcher.Raw(f.MatcherSetsRaw)
		h.warnAboutFree(f)
		l, err := h.matched(ctx, f, f.MatcherSetsRaw, &f.MatcherName)
		if err != nil {
			return err
		}
		l.Kind, l.Methods, l.Patterns = pricing.Free, f.Methods, f.Paths
		lines = append(lines, l)
	}

	otherwise := pricing.Decision{Kind: pricing.Free, Line: -1}
	switch h.Otherwise {
	case "":
		if len(h.live) == 0 {
			return errNoLines
		}
	case "refuse":
		otherwise.Kind = pricing.Refused
	default:
		index, err := h.price(Price{Amount: h.Otherwise}, known)
		if err != nil {
			return fmt.Errorf("otherwise: %w", err)
		}
		otherwise.Kind, otherwise.Price, h.otherwise = pricing.Priced, index, index
	}

	list, err := pricing.NewList(lines, otherwise)
	if err != nil {
		return err
	}
	for _, text := range list.Warnings() {
		h.logger.Warn(text)
	}
	h.warnAboutMethods(list)
	h.list, h.lines = list.WithDearer(h.dearer), make([]line, len(h.live)+1)
	h.lines[0].words, h.lines[0].name = "otherwise", "otherwise"
	for i, words := range said {
		h.lines[i+1].words, h.lines[i+1].name, h.lines[i+1].observed = words, h.live[i].name(), h.live[i].Observe
	}
	return nil
}

// matched loads the matcher of a line, and returns what the price list needs of it.
func (h *Handler) matched(ctx caddy.Context, line fmt.Stringer, sets caddyhttp.RawMatcherSets, name *string) (pricing.Line, error) {
	h.noteMatcher(line, sets)
	byURL := matcher.ReadsQueryOnly(sets)
	matches, surely, err := matcher.Load(ctx, line, sets)
	if err != nil {
		return pricing.Line{}, fmt.Errorf("%s: %w", line, err)
	}
	if matches != nil && *name == "" {
		*name = "match"
	}
	return pricing.Line{Matcher: matches, Surely: surely, ByURL: byURL, MatcherName: *name, Where: strings.Trim(line.String(), "`")}, nil
}

// noteMatcher remembers which request headers a line's matcher looks at, and
// tells the operator what it reads in one way only.
func (h *Handler) noteMatcher(line fmt.Stringer, sets caddyhttp.RawMatcherSets) {
	names := strings.FieldsFunc(h.varies, func(c rune) bool { return c == ',' || c == ' ' })
	for _, set := range sets {
		names = append(names, matcher.Headers(set)...)
		h.warnAboutQuery(line, set)
	}
	h.host = max(h.host, matcher.Host(sets))
	slices.Sort(names)
	h.varies = strings.Join(slices.Compact(names), ", ")
}

// line is what the gate knows of a line of the price list, and of `otherwise`,
// which comes first.
type line struct {
	purchase.Line
	words string // what it says apart from its price, which a reload may change
	name  string // the same, for people

	observed bool // by a word of its own
}

// price is what lines that say the same ask for.
type price struct {
	*offer.Price // nil where lines are only observed
	worth        decimal.Decimal
	unit         string   // of worth, see traffic.Key
	facilitators []string // their names, in the order in which they are tried
}

// String writes down what a request is counted as.
func (p price) String() string { return p.worth.String() + " " + p.unit }

// price makes the price of a line, or finds one that says the same.
func (h *Handler) price(p Price, known map[string]int) (int, error) {
	if err := checkSettle(p.Settle); err != nil {
		return 0, err
	}
	if err := checkCharge(p.Charge); err != nil {
		return 0, err
	}
	settle := p.Settle
	if settle == "" {
		settle = h.Settle
	}
	scheme := x402.SchemeExact
	if p.Upto {
		scheme = x402.SchemeUpto
		if settle == settleFirst {
			return 0, errUptoFirst
		}
	}
	if settle == settleFirst && len(p.Charge) > 0 {
		return 0, errors.New("charge: with `settle first` every request is charged before the upstream runs; leave one of the two out")
	}
	accept, names := p.Accept, p.Facilitators
	if len(accept) == 0 {
		accept = h.Accept
	}
	if len(accept) == 0 {
		accept = h.app.Accept
	}
	if len(names) == 0 {
		names = h.Facilitators
	}
	amountText, err := resolve("amount", p.Amount)
	if err != nil {
		return 0, err
	}
	amount, err := money.ParseMoney(amountText)
	if err != nil {
		return 0, err
	}
	key := fmt.Sprintf("%s|%v|%v|%v|%q|%q|%v|%v", scheme, amount, accept, names, p.Description, p.MimeType, settle, p.Charge)
	if i, ok := known[key]; ok {
		return i, nil
	}
	known[key] = len(h.prices)
	made := price{unit: unitOf(amount.Symbol)}
	if made.worth, err = decimal.NewFromString(amount.Decimal); err != nil {
		return 0, err
	}
	if h.observes {
		h.prices = append(h.prices, made)
		return known[key], nil
	}

	options, err := h.options(accept, amount, scheme)
	if err != nil {
		return 0, err
	}
	if len(names) == 0 {
		name, err := h.app.unnamed(options)
		if err != nil {
			return 0, err
		}
		names = []string{name}
	}
	backends, err := h.backends(names)
	if err != nil {
		return 0, err
	}
	for _, o := range options {
		if !x402.TellsApart(o.Network.CAIP2) && settle != settleFirst {
			return 0, fmt.Errorf("accept %s: what is signed on this chain cannot be recognised before it is settled; add `settle first`", o.Network.Name)
		}
	}
	pr := offer.NewPrice(options, backends, h.app.settlers, offer.About{Description: p.Description, MimeType: p.MimeType, Help: h.Contact})
	pr.Settle, pr.Upto, pr.Charge = settle, p.Upto, p.Charge
	h.warnAboutPrice(p, pr)
	h.noteLimits(p, options, names)
	for _, b := range backends {
		for _, o := range options {
			if micros := o.Micros(); micros != nil {
				b.Sells(o.Network.CAIP2, facilitator.Sale{Line: p.String(), Micros: micros})
			}
		}
	}
	h.desk.Candidates.Add(options)
	made.Price, made.facilitators = pr, names
	h.prices = append(h.prices, made)
	return known[key], nil
}

func (h *Handler) options(accept []Accept, amount money.Money, scheme string) ([]*offer.Option, error) {
	if len(accept) == 0 {
		return nil, errors.New("nothing is accepted; add `accept <network> <asset> <pay_to>` to the site, or to the `paywall` block of the global options")
	}
	var options []*offer.Option
	type entry struct {
		option int  // in options
		says   bool // the entry names its way to move the token
	}
	seen := map[string]entry{}
	for _, a := range accept {
		a, err := resolveAccept(a)
		if err != nil {
			return nil, err
		}
		o, err := offer.NewOption(a, amount, scheme)
		if err != nil {
			return nil, err
		}
		if o == nil {
			continue
		}
		if err := h.app.accepts(o.Network); err != nil {
			return nil, err
		}
		here := entry{len(options), a.Transfer != ""}
		switch twin, found := seen[o.ID()]; {
		case !found:
			options = append(options, o)
		case scheme != x402.SchemeUpto || twin.says == here.says:
			return nil, fmt.Errorf("accept %s %s: listed twice", a.Network, a.Asset)
		case here.says:
			// The other entry is for the lines that are not upto: there it is paid by EIP-3009.
			here.option = twin.option
			options[here.option] = o
		default:
			here = twin
		}
		seen[o.ID()] = here
	}
	if len(options) == 0 {
		if scheme == x402.SchemeUpto && slices.ContainsFunc(accept, func(a Accept) bool { return canBePaidExactly(a, amount) }) {
			return nil, errors.New("upto needs an accepted token on an EVM chain that moves with Permit2; add one, without `transfer eip3009`")
		}
		if amount.Symbol == "" {
			return nil, errors.New("no accepted token is pegged to the dollar; name the token in the price (`0.02 eurc`), or add `peg usd` or `amount` to an accept entry")
		}
		return nil, fmt.Errorf("no accepted token is called %q", amount.Symbol)
	}
	return options, nil
}

// resolveAccept returns an entry with the values of its placeholders.
func resolveAccept(a Accept) (Accept, error) {
	var err error
	if a.PayTo, err = resolve("accept: pay_to", a.PayTo); err == nil {
		a.Amount, err = resolve("accept: amount", a.Amount)
	}
	return a, err
}

func canBePaidExactly(a Accept, amount money.Money) bool {
	a, err := resolveAccept(a)
	if err != nil {
		return false
	}
	o, err := offer.NewOption(a, amount, x402.SchemeExact)
	return err == nil && o != nil
}

// errUptoFirst is for a price that would be settled before it is known.
var errUptoFirst = errors.New("upto: what is charged is known only when the upstream has answered, so it cannot be settled first; leave `settle first` out, or write `settle on_success` in the block of this line")

func (h *Handler) backends(names []string) ([]*facilitator.Member, error) {
	backends := make([]*facilitator.Member, 0, len(names))
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("facilitator %q is named twice", name)
		}
		b, err := h.app.facilitator(name)
		if err != nil {
			return nil, err
		}
		backends = append(backends, b)
	}
	return backends, nil
}

// dearer says which of two prices costs more, whichever token it is paid in:
// every way to pay it is one to pay the other too, for no more. It says nothing
// of prices that are not alike otherwise.
func (h *Handler) dearer(a, b int) (int, bool) {
	p, q := h.prices[a], h.prices[b]
	switch {
	case h.observes && p.unit != q.unit:
		return 0, false
	case h.observes && p.worth.LessThan(q.worth):
		return b, true
	case h.observes:
		return a, true
	case p.Settle != q.Settle || !slices.Equal(p.Charge, q.Charge):
		return 0, false
	case offer.CostNoLess(p.Options(), q.Options()):
		return a, true
	case offer.CostNoLess(q.Options(), p.Options()):
		return b, true
	}
	return 0, false
}

// String names the line in messages, as it would stand in a Caddyfile.
func (p *Price) String() string {
	if p.Upto {
		return joinLine("price", p.Methods, p.MatcherName, p.Paths, "upto", p.Amount)
	}
	return joinLine("price", p.Methods, p.MatcherName, p.Paths, p.Amount)
}

// String names the line in messages, as it would stand in a Caddyfile.
func (f *Free) String() string {
	return joinLine("free", f.Methods, f.MatcherName, f.Paths)
}

// name is what the line says apart from its price, for people.
func (p *Price) name() string {
	return strings.TrimPrefix(strings.Trim(joinLine("price", p.Methods, p.MatcherName, p.Paths), "`"), "price ")
}

// words are what makes the line another one: methods, paths, and what its matcher
// says.
func (p *Price) words() string {
	matchers := p.matchers
	if matchers == nil {
		matchers = json.RawMessage("null")
	}
	return fmt.Sprintf("%q %q %s", p.Methods, p.Paths, matchers)
}

func joinLine(word string, methods []string, matcher string, paths []string, more ...string) string {
	words := append([]string{word}, methods...)
	if matcher != "" {
		words = append(words, matcher)
	}
	return "`" + strings.Join(append(append(words, paths...), more...), " ") + "`"
}
