package paywall

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

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
	tokens      []string // the whole line behind its first word, as written
}

// parseScope reads [<METHOD>...] [@matcher] <path>... and returns what is left
// of the line.
func parseScope(d httpcaddyfile.Helper) (s scope, rest []string, err error) {
	word := d.Val()
	for d.NextArg() {
		token := d.Val()
		s.tokens = append(s.tokens, token)
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
		if why, line := meant(word, s.tokens); why != "" {
			return s, nil, d.Errf("%s: %s: `%s`", word, why, line)
		}
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

// meant puts the words of a line that cannot be read into their order, and says what was
// wrong with them; why is "" if that is not known.
func meant(word string, tokens []string) (why, line string) {
	var methods, matchers, paths, upto, amount, rest []string
	for len(tokens) > 0 {
		token, left := tokens[0], tokens[1:]
		scheme, address, isURL := strings.Cut(token, "://")
		late := len(paths)+len(upto)+len(amount)+len(rest) > 0 // for what comes before the paths
		found, after := takeAmount(tokens)
		switch {
		case isURL && (scheme == "http" || scheme == "https"):
			_, path, _ := strings.Cut(address, "/")
			if path == "" {
				path = "*" // all of the site
			}
			paths = append(paths, "/"+path)
			why = "a line has paths and no URLs; the host stands before the site's block"
		case areMethods(strings.Split(token, ",")):
			methods = append(methods, strings.Split(strings.ToUpper(token), ",")...)
			why = cmp.Or(why, "methods are separated by spaces")
		case slices.Contains(wellKnownMethods, strings.ToUpper(token)):
			methods = append(methods, strings.ToUpper(token))
			if !isMethod(token) {
				why = cmp.Or(why, "methods are written in capitals")
			} else if late {
				why = cmp.Or(why, "methods come before the paths")
			}
		case strings.HasPrefix(token, "@"):
			matchers = append(matchers, token)
			if late {
				why = cmp.Or(why, "a matcher comes before the paths")
			}
		case strings.HasPrefix(token, "/"), strings.HasPrefix(token, "*"):
			paths = append(paths, token)
			if len(upto)+len(amount)+len(rest) > 0 {
				why = cmp.Or(why, "all paths come before the amount")
			}
		case token == "upto":
			upto = append(upto, token)
		case found != "" && len(amount) == 0:
			amount, left = strings.Fields(found), after
			if len(rest) > 0 {
				why = cmp.Or(why, "the description comes last")
			}
		default:
			if strings.ContainsAny(token, " \t") {
				token = `"` + token + `"`
			}
			rest = append(rest, token)
		}
		tokens = left
	}
	if len(paths) == 0 {
		why = ""
	}
	if word == "price" && len(amount) == 0 {
		amount = []string{"<amount>"}
	}
	return why, strings.Join(slices.Concat([]string{word}, methods, matchers, paths, upto, amount, rest), " ")
}

// wellKnownMethods are those that a word in small letters is taken for.
var wellKnownMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"}

// areMethods says whether several words are methods, whatever their letters.
func areMethods(words []string) bool {
	return len(words) > 1 && !slices.ContainsFunc(words, func(word string) bool { return !slices.Contains(wellKnownMethods, strings.ToUpper(word)) })
}

// wordsOfPrice are those of the block of a price line.
var wordsOfPrice = []string{"accept", "facilitator", "settle", "charge", "mime", "observe"}

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
		if why, line := meant("price", s.tokens); why != "" {
			return d.Errf("price: %s: `%s`", why, line)
		}
		return d.Err("price: no amount after the paths; want $0.01, or 0.02 eurc for one token; an unset {$VARIABLE} counts as nothing")
	}
	p := Price{Methods: s.methods, MatcherSetsRaw: s.matcher, MatcherName: s.matcherName, Paths: s.paths, Amount: amount, Upto: upto}
	switch len(rest) {
	case 0:
	case 1:
		if rest[0] == "upto" {
			return d.Err("price: upto comes before the amount, such as upto $0.50")
		}
		if strings.ContainsAny(rest[0][:min(1, len(rest[0]))], "/*@$") || slices.Contains(wellKnownMethods, rest[0]) {
			_, line := meant("price", s.tokens)
			return d.Errf("price: %q comes too late; methods, matcher and paths come before the amount, and a description begins with a letter: `%s`", rest[0], line)
		}
		if slices.Contains(wordsOfPrice, rest[0]) {
			return d.Errf("price: %s is no description; it stands in a block of the line, on a line of its own", rest[0])
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
		case "observe":
			err = parseFlag(d.Dispenser, &p.Observe)
		default:
			err = unknownWord(d.Dispenser, "price", wordsOfPrice...)
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
	h.Free = append(h.Free, Free{Methods: s.methods, MatcherSetsRaw: s.matcher, MatcherName: s.matcherName, Paths: s.paths, Where: standsAt(d.Dispenser)})
	return nil
}
