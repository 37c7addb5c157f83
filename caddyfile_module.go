package paywall

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/offer"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("paywall", parseGlobalOption)
	httpcaddyfile.RegisterDirective("paywall", parseDirective)
	// Inside encode, so that we judge what the upstream said; outside of
	// everything that answers.
	httpcaddyfile.RegisterDirectiveOrder("paywall", httpcaddyfile.After, "encode")
}

// parseDirective parses the paywall directive. Syntax:
//
//	paywall [<matcher>] {
//		accept <network> <asset> <pay_to> {
//			decimals <n>
//			name     <text>
//			version  <text>
//			transfer eip3009|permit2
//			peg      usd
//			amount   <decimal>
//		}
//		facilitator <name>...
//		price [<METHOD>...] [@matcher] <path>... [upto] <amount> [<description>] {
//			accept ...
//			facilitator <name>...
//			settle first|on_success
//			charge <status>...
//			mime <type>
//			observe
//		}
//		free [<METHOD>...] [@matcher] <path>...
//		exempt @matcher
//		otherwise refuse|<amount>
//		settle first|on_success
//		public_url <origin>
//		cors off|upstream
//		shared_caches allow
//		page <file>
//		contact <url>
//		retry_window <duration>
//		upstream_headers
//		observe
//	}
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // consume directive name
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}
	h.Next() // ExtractMatcherSet went back to the start
	if err := checkBlocks(h, matcher); err != nil {
		return nil, err
	}
	if h.NextArg() {
		return nil, h.Errf("unexpected %q; the paywall directive has at most a matcher, and a block", h.Val())
	}
	handler := &Handler{Where: standsAt(h.Dispenser)}
	for h.NextBlock(0) {
		if err := handler.parseOption(h); err != nil {
			return nil, err
		}
	}
	return h.NewRoute(matcher, handler), nil
}

// standsAt is where the word stands that was read last.
func standsAt(d *caddyfile.Dispenser) string { return d.File() + ":" + strconv.Itoa(d.Line()) }

// checkBlocks refuses two blocks of one scope with the same matcher, where the
// second would never sell anything.
func checkBlocks(h httpcaddyfile.Helper, before caddy.ModuleMap) error {
	for _, text := range doubtsAboutBlock(before) {
		caddy.Log().Named("http.handlers.paywall").Warn(text, zap.String("file", h.File()), zap.Int("line", h.Line()))
	}
	if h.BlockState == nil || reflect.ValueOf(h.BlockState).Pointer() == reflect.ValueOf(h.State).Pointer() {
		// At the top of a site Caddy hands out one state for all sites, and two
		// sites may well have a block each. There the walk through the routes
		// finds it; see routes.Check.
		return nil
	}
	key := "paywall " + string(caddyconfig.JSON(before, nil))
	if first, ok := h.BlockState[key]; ok {
		return h.Errf("a second paywall block with the same matcher (the first is in line %v); put all prices into one block", first)
	}
	h.BlockState[key] = h.Line()
	return nil
}

func (h *Handler) parseOption(d httpcaddyfile.Helper) error {
	switch word := d.Val(); word {
	case "accept":
		return parseAccept(d.Dispenser, &h.Accept)
	case "facilitator":
		return parseNames(d.Dispenser, &h.Facilitators)
	case "price":
		return h.parsePrice(d)
	case "free":
		return h.parseFree(d)
	case "exempt":
		return h.parseExempt(d)
	case "otherwise":
		return parseOtherwise(d.Dispenser, &h.Otherwise)
	case "settle":
		return parseOnce(d.Dispenser, &h.Settle, "first", "on_success")
	case "public_url":
		return parseOnce(d.Dispenser, &h.PublicURL)
	case "cors":
		return parseOnce(d.Dispenser, &h.CORS, corsOff, corsUpstream)
	case "shared_caches":
		return parseOnce(d.Dispenser, &h.SharedCaches, sharedCachesAllow)
	case "page":
		return parseOnce(d.Dispenser, &h.Page)
	case "contact":
		return parseOnce(d.Dispenser, &h.Contact)
	case "retry_window":
		return parseDuration(d.Dispenser, &h.RetryWindow)
	case "upstream_headers":
		return parseFlag(d.Dispenser, &h.UpstreamHeaders)
	case "observe":
		return parseFlag(d.Dispenser, &h.Observe)
	default:
		return unknownWord(d.Dispenser, "paywall", "accept", "facilitator", "price", "free", "exempt", "otherwise", "settle",
			"public_url", "cors", "shared_caches", "page", "contact", "retry_window", "upstream_headers", "observe")
	}
}

func parseAccept(d *caddyfile.Dispenser, list *[]Accept) error {
	var a Accept
	if !d.AllArgs(&a.Network, &a.Asset, &a.PayTo) {
		return d.Errf("accept: want `accept <network> <asset> <pay_to>`; an unset {$VARIABLE} counts as nothing")
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch d.Val() {
		case "decimals":
			err = parseDecimals(d, &a)
		case "name":
			err = parseOnce(d, &a.Name)
		case "version":
			err = parseOnce(d, &a.Version)
		case "transfer":
			err = parseOnce(d, &a.Transfer, "eip3009", "permit2")
		case "peg":
			err = parseOnce(d, &a.Peg, "usd")
		case "amount":
			err = parseOnce(d, &a.Amount)
		default:
			err = unknownWord(d, "accept", "decimals", "name", "version", "transfer", "peg", "amount")
		}
		if err != nil {
			return err
		}
	}
	if err := checkAccept(a); err != nil {
		return d.WrapErr(err)
	}
	*list = append(*list, a)
	return nil
}

// checkAccept finds what is wrong with an entry whatever the price, while its
// line is known.
func checkAccept(a Accept) error {
	if strings.ContainsAny(a.PayTo+a.Amount, "{}") {
		return nil // known when the config loads
	}
	_, err := offer.NewOption(a, money.Money{Decimal: "1", Symbol: "of another currency"}, x402.SchemeExact)
	return err
}

func parseDecimals(d *caddyfile.Dispenser, a *Accept) error {
	var text string
	if a.Decimals != nil {
		text = "set"
	}
	if err := parseOnce(d, &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return d.Errf("decimals: want a number, not %q", text)
	}
	a.Decimals = &n
	return nil
}

func parseNames(d *caddyfile.Dispenser, names *[]string) error {
	if len(*names) > 0 {
		return d.Err("facilitator given twice; name all in one line, in the order in which to try them")
	}
	if *names = d.RemainingArgs(); len(*names) == 0 {
		return d.Err("facilitator: which one? name a facilitator of the global paywall block")
	}
	return nil
}

func parseOtherwise(d *caddyfile.Dispenser, otherwise *string) error {
	if *otherwise != "" {
		return d.Err("otherwise given twice")
	}
	args := d.RemainingArgs()
	amount, rest := takeAmount(args)
	switch {
	case len(args) == 1 && args[0] == "refuse":
		*otherwise = "refuse"
	case amount != "" && len(rest) == 0:
		if err := checkAmount(amount); err != nil {
			return d.Errf("otherwise: %v", err)
		}
		*otherwise = amount
	default:
		return d.Err("otherwise: want `refuse` or an amount such as $0.01")
	}
	return nil
}

// parseFlag parses a word without arguments, which may come once.
func parseFlag(d *caddyfile.Dispenser, target *bool) error {
	word := d.Val()
	if *target {
		return d.Errf("%s given twice", word)
	}
	if d.NextArg() {
		return d.Errf("%s: it stands alone, without %q", word, d.Val())
	}
	*target = true
	return nil
}

// parseOnce parses a word with exactly one argument, which may come once.
func parseOnce(d *caddyfile.Dispenser, target *string, values ...string) error {
	word := d.Val()
	if *target != "" {
		return d.Errf("%s given twice", word)
	}
	if !d.AllArgs(target) || *target == "" {
		return d.Errf("%s: want exactly one argument; an unset {$VARIABLE} counts as nothing", word)
	}
	if slices.Contains(values, *target) {
		return nil
	}
	if len(values) > 0 {
		return d.Errf("%s: want %s, not %q", word, strings.Join(values, " or "), *target)
	}
	if word == "contact" {
		if err := checkContact(*target); err != nil {
			return d.WrapErr(err)
		}
	}
	if word == "public_url" {
		if _, err := parseOrigin(*target); err != nil {
			return d.WrapErr(err)
		}
	}
	return nil
}

func parseDuration(d *caddyfile.Dispenser, target *caddy.Duration) error {
	word := d.Val()
	var text string
	if *target != 0 {
		text = "set"
	}
	if err := parseOnce(d, &text); err != nil {
		return err
	}
	duration, err := caddy.ParseDuration(text)
	if err != nil || duration <= 0 {
		return d.Errf("%s: want a duration such as 24h, not %q", word, text)
	}
	*target = caddy.Duration(duration)
	return nil
}

func unknownWord(d *caddyfile.Dispenser, where string, words ...string) error {
	return d.Errf("unknown word %q in %s; there are: %s", d.Val(), where, strings.Join(words, ", "))
}
