package paywall

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/offer"
)

// Accept is one way in which the operator is willing to be paid.
type Accept = offer.Accept

// Price is one line of the price list: which requests cost what.
type Price struct {
	// The methods that the line is for. Default: all. `GET` includes `HEAD`.
	Methods []string `json:"methods,omitempty"`

	// A matcher that narrows the paths. It may not contain `path`, `path_regexp` or
	// `method`: the paths belong into `paths`, where every spelling of them is
	// understood, and the methods into `methods`, where overrides are seen. A `query` matcher is read as every server could read it.
	MatcherSetsRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`

	// The name of the matcher in messages. Default: `match`.
	MatcherName string `json:"matcher_name,omitempty"`

	// The paths: exact (`/a`), a prefix (`/a/*`), a suffix (`*.pdf`), or a glob.
	// Letter case is ignored.
	Paths []string `json:"paths,omitempty"`

	// What a request costs: `$0.01` for any token pegged to the dollar, or an
	// amount of one token, such as `0.02 eurc`. Placeholders `{env.*}` and
	// `{file.*}` are resolved once, when the config loads.
	Amount string `json:"amount,omitempty"`

	// Charges what the upstream says in its Settlement-Overrides header, with the
	// amount as the maximum (scheme `upto`). Settled on_success.
	Upto bool `json:"upto,omitempty"`

	// What the payer reads about the goods.
	Description string `json:"description,omitempty"`

	// The media type of the goods, for the payer.
	MimeType string `json:"mime_type,omitempty"`

	// Only counts what is asked for and what it would be worth, and lets it pass as if
	// the line were free; see `caddy paywall report`.
	Observe bool `json:"observe,omitempty"`

	// Replaces the site's list of accepted tokens for this line.
	Accept []Accept `json:"accept,omitempty"`

	// Replaces the site's facilitators for this line.
	Facilitators []string `json:"facilitators,omitempty"`

	// When the money moves: `first` (before the upstream runs) or `on_success`
	// (when its answer is there, before the first byte of it goes out).
	// Default: the site's, else `on_success` for GET, HEAD, OPTIONS and QUERY
	// and `first` for all other methods.
	Settle string `json:"settle,omitempty"`

	// Which statuses of the upstream are charged with `on_success`. Default:
	// 2xx, and 3xx with a Location that leaves the site.
	Charge []int `json:"charge,omitempty"`

	matchers json.RawMessage // what MatcherSetsRaw was before it was loaded
}

// Free is one line of the price list that costs nothing.
type Free struct {
	// The methods that the line is for. Default: all. `GET` includes `HEAD`.
	Methods []string `json:"methods,omitempty"`

	// A matcher that narrows the paths; see the price lines.
	MatcherSetsRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`

	// The name of the matcher in messages. Default: `match`.
	MatcherName string `json:"matcher_name,omitempty"`

	// The paths; see the price lines.
	Paths []string `json:"paths,omitempty"`

	// Where the line stands, such as `Caddyfile:12`, for messages.
	Where string `json:"where,omitempty"`

	matchers json.RawMessage // what MatcherSetsRaw was before it was loaded
}

// When the money moves.
const (
	settleFirst     = "first"
	settleOnSuccess = "on_success"
)

// defaultRetryWindow is how long an undelivered purchase can be fetched.
const defaultRetryWindow = 24 * time.Hour

// resolve replaces {env.*} and {file.*} in a value of the config. Any other
// placeholder would let a request choose its own price or payee.
func resolve(what, s string) (string, error) {
	if !strings.ContainsAny(s, "{}") {
		return s, nil
	}
	for rest := s; ; {
		_, after, found := strings.Cut(rest, "{")
		if !found {
			break
		}
		if !strings.HasPrefix(after, "env.") && !strings.HasPrefix(after, "file.") {
			return "", fmt.Errorf("%s: only {env.*} and {file.*} placeholders are possible here, not %q", what, s)
		}
		rest = after
	}
	v, err := caddy.NewReplacer().ReplaceOrErr(s, true, true)
	if err != nil {
		// The error of the replacer names the placeholder, not its value.
		return "", fmt.Errorf("%s: %w", what, err)
	}
	v = strings.TrimSpace(v)
	if v == "" {
		return "", fmt.Errorf("%s: %q is empty", what, s)
	}
	return v, nil
}

// checkSettle refuses words that are not a settlement time.
func checkSettle(s string) error {
	switch s {
	case "", settleFirst, settleOnSuccess:
		return nil
	}
	return fmt.Errorf("settle: want first or on_success, not %q", s)
}

var errNoLines = errors.New("no price line: a paywall without a price would let everything through; add `price <path> <amount>` or `otherwise`")

// checkCharge refuses statuses that no upstream can answer.
func checkCharge(statuses []int) error {
	for _, s := range statuses {
		if s < 200 || s > 599 || s == 304 || s == 402 {
			return fmt.Errorf("charge: %d is not a final status with goods (200 to 599, except 304 and 402)", s)
		}
	}
	return nil
}
