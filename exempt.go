package paywall

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/matcher"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
	"github.com/caddy-paywall/caddy-paywall/pricing"
)

// Exempt is a line for clients who pay nothing, whatever they ask for: those with a key of
// the site's own, subscribers, the operator's monitors.
type Exempt struct {
	// Who is exempt. A matcher of the client: it may not contain `path`, `path_regexp`,
	// `method` or `host`, of which a `free` line or a site of its own sees every spelling.
	MatcherSetsRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`

	// The name of the matcher in messages. Default: `match`.
	MatcherName string `json:"matcher_name,omitempty"`

	// Where the line stands, such as `Caddyfile:12`, for messages.
	Where string `json:"where,omitempty"`
}

func (h *Handler) parseExempt(d httpcaddyfile.Helper) error {
	e := Exempt{Where: standsAt(d.Dispenser)}
	args := d.RemainingArgs()
	if len(args) != 1 || len(args[0]) < 2 || args[0][0] != '@' {
		return d.Err("exempt: want one matcher, `exempt @matcher`, and a line for each; what everybody may have for nothing is `free <path>...`")
	}
	d.Prev() // MatcherToken takes the next token
	set, _, err := d.MatcherToken()
	if err != nil {
		return d.WrapErr(err)
	}
	e.MatcherName, e.MatcherSetsRaw = args[0], caddyhttp.RawMatcherSets{set}
	if err := e.check(); err != nil {
		return d.WrapErr(err)
	}
	h.Exempt = append(h.Exempt, e)
	return nil
}

// String names the line in messages, as it would stand in a Caddyfile.
func (e *Exempt) String() string { return joinLine("exempt", nil, e.MatcherName, nil) }

// check refuses what would exempt everybody, or by another reading than the upstream's.
func (e *Exempt) check() error {
	if len(e.MatcherSetsRaw) == 0 || slices.ContainsFunc(e.MatcherSetsRaw, func(set caddy.ModuleMap) bool { return len(set) == 0 }) {
		return errors.New("exempt: a matcher that asks for nothing would let everybody in for nothing")
	}
	for _, set := range e.MatcherSetsRaw {
		if err := matcher.CheckClient(set); err != nil {
			return fmt.Errorf("exempt: the matcher %s contains %w", e.MatcherName, err)
		}
	}
	return nil
}

// checkSecrets refuses a matcher with a secret that is not there: as an empty text it would
// exempt whoever sends nothing.
func (e *Exempt) checkSecrets() error {
	for _, placeholder := range secretPlaceholder.FindAllString(string(matcher.Raw(e.MatcherSetsRaw)), -1) {
		if _, err := resolve(e.String(), placeholder); err != nil {
			return err
		}
	}
	return nil
}

var secretPlaceholder = regexp.MustCompile(`\{(env|file)\.[^{}]*\}`)

// provisionExempt loads the matchers of those who pay nothing.
func (h *Handler) provisionExempt(ctx caddy.Context) error {
	for i := range h.Exempt {
		e := &h.Exempt[i]
		if e.MatcherName == "" {
			e.MatcherName = "match"
		}
		if err := e.check(); err != nil {
			return err
		}
		e.warn(h.logger)
		h.noteMatcher(e, e.MatcherSetsRaw)
		if err := e.checkSecrets(); err != nil {
			return err
		}
		described := matcher.Raw(e.MatcherSetsRaw) // which loading takes away
		matches, surely, err := matcher.Load(ctx, e, e.MatcherSetsRaw)
		if err != nil {
			return fmt.Errorf("%s: %w", e, err)
		}
		if surely != nil {
			matches = surely // a query that a server might not see exempts nobody
		}
		h.exempt = append(h.exempt, exempt{matches, described})
	}
	return nil
}

// exempt is a line for clients who pay nothing, once it is loaded.
type exempt struct {
	matches  func(*http.Request) (bool, error)
	matchers []byte // as the config has them
}

// warn tells the operator when who is exempt hangs on what any client can send.
func (e *Exempt) warn(logger *zap.Logger) {
	if !slices.ContainsFunc(e.MatcherSetsRaw, payerControls) {
		return
	}
	fields := []zap.Field{zap.Stringer("line", e)}
	if e.Where != "" {
		fields = append(fields, zap.String("where", e.Where))
	}
	logger.Warn("a payer can choose what this matcher looks at, and so whether he pays; it is right only if he would have to know a secret, or if what is behind the paywall turns away those whom it does not know", fields...)
}

// isExempt says whether a request is from somebody who pays nothing.
func (h *Handler) isExempt(r *http.Request) (bool, error) {
	for i := range h.exempt {
		if ok, err := h.exempt[i].matches(r); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// serveExempt lets a request through whose client pays nothing. What it would cost others
// decides only who may keep the answer: no cache hands it on, whatever `shared_caches` says,
// unless everybody has it for nothing.
func (h *Handler) serveExempt(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.host.CanBeRead(r.Host) {
		if decision, err := request.Decide(h.list, r, request.PriceMethod(r), h.overridesOf(r)); err == nil && decision.Kind == pricing.Free {
			return h.serveFree(w, r, next, decision)
		}
	}
	return servePrivately(w, r, next, h.varies)
}

// servePrivately lets a request through whose answer no shared cache may keep.
func servePrivately(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, varies string) error {
	f := delivery.NewPrivateWriter(w, varies)
	err := next.ServeHTTP(f, r)
	f.Mark() // an empty answer is one too, and so is an error route's
	return err
}
