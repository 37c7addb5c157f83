package paywall

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/matcher"
	"github.com/caddy-paywall/caddy-paywall/pricing"
	"github.com/caddy-paywall/caddy-paywall/pricing/money"
)

// scope is what price and free lines have in common: which requests they are
// for.
type scope struct {
	methods     []string
	matcher     caddyhttp.RawMatcherSets
	matcherName string
	paths       []string
}

// parseScope reads [<METHOD>...] [@matcher] <path>... and returns what is left
// of the line.
func parseScope(d httpcaddyfile.Helper) (s scope, rest []string, err error) {
	word := d.Val()
	for d.NextArg() {
		token := d.Val()
		switch {
		case len(rest) == 0 && len(s.paths) == 0 && isMethod(token):
			if s.matcherName != "" {
				return s, nil, d.Errf("%s: the method %s comes before the matcher", word, token)
			}
			s.methods = append(s.methods, token)
		case len(rest) == 0 && len(s.paths) == 0 && strings.HasPrefix(token, "@"):
			if s.matcherName != "" {
				return s, nil, d.Errf("%s: two matchers, %s and %s; a line has one", word, s.matcherName, token)
			}
			d.Prev() // MatcherToken takes the next token
			set, _, err := d.MatcherToken()
			if err != nil {
				return s, nil, d.WrapErr(err)
			}
			s.matcherName = token
			s.matcher = caddyhttp.RawMatcherSets{set}
			if err := matcher.Check(set); err != nil {
				return s, nil, d.Errf("%s: the matcher %s contains %v", word, token, err)
			}
		case len(rest) == 0 && (strings.HasPrefix(token, "/") || strings.HasPrefix(token, "*")):
			if err := pricing.CheckPattern(token); err != nil {
				return s, nil, d.Errf("%s: %v", word, err)
			}
			s.paths = append(s.paths, token)
		default:
			rest = append(rest, token)
		}
	}
	if len(s.paths) == 0 {
		return s, nil, d.Errf("%s: no path; a path begins with / or *, and an unset {$VARIABLE} counts as nothing", word)
	}
	return s, rest, nil
}

// isMethod says whether a token is a method: all capitals.
func isMethod(token string) bool {
	for _, c := range token {
		if (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return token != "" && token[0] != '-'
}

// takeAmount reads an amount off the front of a line: `$0.01` or `0.02 eurc`,
// or one placeholder.
func takeAmount(tokens []string) (amount string, rest []string) {
	switch {
	case len(tokens) == 0:
		return "", nil
	case strings.HasPrefix(tokens[0], "$"), strings.HasPrefix(tokens[0], "{"):
		return tokens[0], tokens[1:]
	case tokens[0] != "" && tokens[0][0] >= '0' && tokens[0][0] <= '9':
		n := min(2, len(tokens)) // without a symbol the error says so
		return strings.Join(tokens[:n], " "), tokens[n:]
	}
	return "", tokens
}

// checkAmount finds what is wrong with an amount while its line is known. What a
// placeholder stands for is known only when the config loads.
func checkAmount(amount string) error {
	if amount == "" || strings.ContainsAny(amount, "{}") {
		return nil
	}
	_, err := money.ParseMoney(amount)
	return err
}

func (h *Handler) parsePrice(d httpcaddyfile.Helper) error {
	s, rest, err := parseScope(d)
	if err != nil {
		return err
	}
	upto := len(rest) > 0 && rest[0] == "upto"
	if upto {
		rest = rest[1:]
	}
	amount, rest := takeAmount(rest)
	if err := checkAmount(amount); err != nil {
		return d.Errf("price: %v", err)
	}
	if amount == "" {
		return d.Err("price: no amount after the paths; want $0.01, or 0.02 eurc for one token; an unset {$VARIABLE} counts as nothing")
	}
	p := Price{Methods: s.methods, MatcherSetsRaw: s.matcher, MatcherName: s.matcherName, Paths: s.paths, Amount: amount, Upto: upto}
	switch len(rest) {
	case 0:
	case 1:
		if rest[0] == "upto" {
			return d.Err("price: upto comes before the amount, such as upto $0.50")
		}
		if strings.ContainsAny(rest[0][:min(1, len(rest[0]))], "/*@$") {
			return d.Errf("price: %q comes too late; all paths come before the amount, and a description begins with a letter", rest[0])
		}
		p.Description = rest[0]
	default:
		return d.Errf("price: %q is too much; quote a description of several words", strings.Join(rest[1:], " "))
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch d.Val() {
		case "accept":
			err = parseAccept(d.Dispenser, &p.Accept)
		case "facilitator":
			err = parseNames(d.Dispenser, &p.Facilitators)
		case "settle":
			if err = parseOnce(d.Dispenser, &p.Settle, "first", "on_success"); err == nil && p.Upto && p.Settle == settleFirst {
				err = d.WrapErr(errUptoFirst)
			}
		case "charge":
			err = parseCharge(d.Dispenser, &p)
		case "mime":
			err = parseOnce(d.Dispenser, &p.MimeType)
		default:
			err = unknownWord(d.Dispenser, "price", "accept", "facilitator", "settle", "charge", "mime")
		}
		if err != nil {
			return err
		}
	}
	h.Prices = append(h.Prices, p)
	return nil
}

func parseCharge(d *caddyfile.Dispenser, p *Price) error {
	if len(p.Charge) > 0 {
		return d.Err("charge given twice; name all statuses in one line")
	}
	for d.NextArg() {
		status, err := strconv.Atoi(d.Val())
		if err != nil {
			return d.Errf("charge: want statuses such as 200 404, not %q", d.Val())
		}
		p.Charge = append(p.Charge, status)
	}
	if len(p.Charge) == 0 {
		return d.Err("charge: which statuses?")
	}
	if err := checkCharge(p.Charge); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

func (h *Handler) parseFree(d httpcaddyfile.Helper) error {
	s, rest, err := parseScope(d)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return d.Errf("free: %q is too much; want `free [<METHOD>...] [@matcher] <path>...`", strings.Join(rest, " "))
	}
	if s.matcherName != "" && payerControls(s.matcher[0]) {
		caddy.Log().Named("http.handlers.paywall").Warn("a payer can choose what this matcher looks at, and so what is free: " + d.File() + ":" + strconv.Itoa(d.Line()))
	}
	h.Free = append(h.Free, Free{Methods: s.methods, MatcherSetsRaw: s.matcher, MatcherName: s.matcherName, Paths: s.paths})
	return nil
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
	return matcher.LeavesCrawlersOut(set)
}
