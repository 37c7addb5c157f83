package paywall

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/dialect"
	"github.com/caddy-paywall/caddy-paywall/internal/matcher"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/purchase"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
	"github.com/caddy-paywall/caddy-paywall/page"
	"github.com/caddy-paywall/caddy-paywall/pricing"
	"github.com/caddy-paywall/caddy-paywall/traffic"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler puts prices on paths. Software that wants a priced path pays per
// request with the x402 protocol, versions 1 and 2; the handlers behind it
// need not know.
//
// A request without a payment is answered with 402 and a challenge: the
// version 2 object in the PAYMENT-REQUIRED header, the version 1 object in the
// JSON body. A request with a payment is verified and settled through a
// facilitator, and its answer carries the receipt in PAYMENT-RESPONSE (or
// X-PAYMENT-RESPONSE for version 1).
//
// Whatever cannot be decided is refused: with 402 only when signing another
// payment is safe, because nothing has moved; otherwise with 409, 502 or 503.
type Handler struct {
	// Only counts what is asked for and what it would be worth; everything passes
	// untouched, and nothing is accepted. See `caddy paywall report`. Price lines can do
	// so one by one.
	Observe bool `json:"observe,omitempty"`

	// What is accepted, in the order of preference that payers see. Default: what the
	// `paywall` app accepts.
	Accept []Accept `json:"accept,omitempty"`

	// The facilitators by their names in the `paywall` app, tried in order, each
	// for what it supports. Default: the only one there is; and x402.org's, if there is
	// none and all that is accepted is test money.
	Facilitators []string `json:"facilitators,omitempty"`

	// The priced paths. Of all lines, priced or free, the most specific one
	// decides, whatever their order.
	Prices []Price `json:"prices,omitempty"`

	// The free paths.
	Free []Free `json:"free,omitempty"`

	// Who pays nothing, whatever the price list says: a matcher of the client for each
	// line. Nothing of it is counted.
	Exempt []Exempt `json:"exempt,omitempty"`

	// What happens to requests that no line names: `refuse` answers 403, an
	// amount is their price. Default: they are free.
	Otherwise string `json:"otherwise,omitempty"`

	// When the money moves: `first` or `on_success`; see the price lines.
	Settle string `json:"settle,omitempty"`

	// The site's public origin, such as `https://shop.example`, for the URLs in
	// challenges. Default: what the request says, which trusts the Host header
	// and, from trusted proxies, X-Forwarded-Proto and X-Forwarded-Host.
	PublicURL string `json:"public_url,omitempty"`

	// `off` leaves CORS to the upstream alone. Default: the gate answers
	// preflights of priced paths itself, without payment, and browsers may read
	// our headers. `upstream` asks the upstream what to answer preflights: only
	// for one that does nothing else on OPTIONS, because nobody has paid.
	CORS string `json:"cors,omitempty"`

	// `allow` lets caches in front of the server keep and hand out what a matcher
	// has set free. Default: such answers are `private`, because the same URL can
	// cost another client money.
	SharedCaches string `json:"shared_caches,omitempty"`

	// An HTML file that people see instead of the built-in page.
	Page string `json:"page,omitempty"`

	// Where a payer can ask: an `https` or `mailto` URL, which every answer of the gate's
	// own names.
	Contact string `json:"contact,omitempty"`

	// How long a purchase that was paid for and not delivered can be fetched
	// with the same payment. Default: `24h`.
	RetryWindow caddy.Duration `json:"retry_window,omitempty"`

	// Hands the upstream what it was paid, in the request headers
	// Paywall-Payment, Paywall-Payer, Paywall-Amount, Paywall-Asset,
	// Paywall-Network and Paywall-Transaction, and an
	// Idempotency-Key that is the same for every run for one payment; the client's
	// own passes as Paywall-Client-Idempotency-Key. What a client sends under names
	// that begin with Paywall- is removed, paid or not, with or without this.
	UpstreamHeaders bool `json:"upstream_headers,omitempty"`

	// Where the block stands, such as `Caddyfile:12`. It is written by the Caddyfile
	// adapter, which has warned of the matcher before the block.
	Where string `json:"where,omitempty"`

	app        *App
	crawlers   *Crawlers
	live       []Price  // that make the list
	observes   bool     // and nothing else
	observer   *Handler // counts what lines would cost that are only observed; or nil
	exempt     []exempt
	list       *pricing.List
	prices     []price
	listed     []int // for each line with a price, its number in prices
	otherwise  int   // the number of that of `otherwise`, if it is one
	desk       *purchase.Desk
	lines      []line // of the list that have a price, after one for `otherwise`
	at         *place // filled in by tellPlaces
	varies     string // the request headers that matchers look at
	host       matcher.HostReading
	page       []byte
	publicURL  string
	logger     *zap.Logger
	sampled    *zap.Logger   // for what a stranger can cause for nothing
	complained *atomic.Int64 // when the log was last told that nothing is offered, in Unix seconds
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.paywall", New: func() caddy.Module { return new(Handler) }}
}

// Provision makes the price list. It asks nobody anything.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	h.sampled = h.logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Minute, 20, 1000)
	}))
	h.complained, h.at = new(atomic.Int64), new(place)
	if h.RetryWindow == 0 {
		h.RetryWindow = caddy.Duration(defaultRetryWindow)
	}
	if err := h.checkOptions(); err != nil {
		return err
	}
	h.divide()
	app, err := ctx.App("paywall") // which needs no global options
	if err != nil {
		return err
	}
	h.app = app.(*App)
	if h.observes {
		h.app.observes = true
	} else {
		h.app.sells = true
	}
	if h.crawlers, err = crawlersOf(ctx); err != nil {
		return err
	}
	h.openDesk()
	if err := metrics.Register(ctx.GetMetricsRegistry(), gauges); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if err := h.provisionObserver(ctx); err != nil {
		return err
	}
	if err := h.provisionExempt(ctx); err != nil {
		return err
	}
	return h.provisionPrices(ctx)
}

// openDesk makes the desk of this gate.
func (h *Handler) openDesk() {
	h.desk = purchase.NewDesk(h.app.desk, h.app.shared.purchases, h.app.shared.offered, h.app.quotes, h.logger)
	h.desk.Sampled, h.desk.RetryWindow, h.desk.UpstreamHeaders = h.sampled, time.Duration(h.RetryWindow), h.UpstreamHeaders
	h.desk.Leaves, h.desk.Secret, h.desk.Refuse, h.desk.Decorate = h.leaves, h.app.secretFor, h.refuseSale, h.addCORS
}

// ForTest returns the gate's desk, whose bounds and clock tests may change; it panics
// elsewhere.
func (h *Handler) ForTest() *purchase.Desk {
	if !testing.Testing() {
		panic("paywall: ForTest outside a test")
	}
	return h.desk
}

func (h *Handler) checkOptions() error {
	if err := checkSettle(h.Settle); err != nil {
		return err
	}
	if err := checkCORS(h.CORS); err != nil {
		return err
	}
	if err := checkSharedCaches(h.SharedCaches); err != nil {
		return err
	}
	if h.RetryWindow < 0 {
		return fmt.Errorf("retry_window: %s is negative", time.Duration(h.RetryWindow))
	}
	if h.PublicURL != "" {
		origin, err := parseOrigin(h.PublicURL)
		if err != nil {
			return err
		}
		h.publicURL = origin
	}
	if err := checkContact(h.Contact); err != nil {
		return err
	}
	h.page = page.Default
	if h.Page != "" {
		content, err := os.ReadFile(h.Page)
		if err != nil {
			return fmt.Errorf("page: %w", err)
		}
		h.page = content
	}
	return nil
}

// parseOrigin reads the value of public_url.
func parseOrigin(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil ||
		(u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("public_url: want an origin such as https://shop.example, not %q", s)
	}
	return u.Scheme + "://" + u.Host, nil
}

// ServeHTTP is the life of a request at the gate: what it costs, what is asked for it now,
// and the purchase.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.observes {
		h.observe(r)
		return next.ServeHTTP(w, r)
	}
	removeForeign(r)
	if exempt, err := h.isExempt(r); err != nil {
		return h.refuse(w, r, *h.notForSale(pricing.Decision{}, err))
	} else if exempt {
		return h.serveExempt(w, r, next)
	}

	// Price.
	if !h.host.CanBeRead(r.Host) {
		return h.refuse(w, r, purchase.Refusal{Status: http.StatusBadRequest, Code: purchase.CodeAmbiguousPath})
	}
	override := h.overridesOf(r)
	decision, err := request.Decide(h.list, r, request.PriceMethod(r), override)
	if err == nil && h.asksToPay(r, override, decision) {
		return h.preflight(w, r, next, override)
	}
	if refused := h.notForSale(decision, err); refused != nil {
		return h.refuse(w, r, *refused)
	}
	if decision.Kind == pricing.Free {
		h.observer.observe(r)
		return h.serveFree(w, r, next, decision)
	}
	seen := h.see(r, decision)
	h.varyPriced(w.Header(), decision)
	line, refused := h.lineOf(r, decision)
	if refused != nil {
		return h.refuse(w, r, *refused)
	}

	// Offer.
	now := h.desk.Now()
	asked := purchase.Offered{Price: h.prices[decision.Price].Price, Line: &line.Line}
	asked.First = settlesFirst(asked.Price, r, override)
	asked.Price.Offers(asked.First).Await(r.Context())
	if asked.Current, err = asked.Price.Offers(asked.First).Current(); err != nil {
		h.noteClosed(err, now)
		return h.refuse(w, r, purchase.Refusal{Status: http.StatusServiceUnavailable, Code: purchase.CodeNoFacilitator, RetryAfter: 30})
	}
	asked.Resource = h.desk.History.ResourceOf(r.Host, request.URI(r), line.ID, asked.First)

	// Payment, if there is one.
	payment, said, err := dialect.Read(r.Header)
	if payment == nil {
		seen.count(traffic.Sums{Worth: seen.worth})
		shown, closed := h.desk.Shown(asked, now)
		if closed != nil {
			h.noteClosed(closed.Cause(), now)
			return h.refuse(w, r, *closed)
		}
		challenge := h.desk.Challenge(asked, shown, now)
		if err != nil {
			metrics.CountPayment(metrics.Malformed)
			return h.challenge(w, r, challenge, purchase.CodeOf(err), nil)
		}
		metrics.CountChallenge()
		seen.count(traffic.Sums{Challenged: 1})
		return h.challenge(w, r, challenge, x402.CodePaymentRequired, nil)
	}
	if r.TLS != nil && !r.TLS.HandshakeComplete || len(r.Header["Early-Data"]) > 0 {
		// Early data can be replayed by whoever saw it (RFC 8470).
		return h.refuse(w, r, purchase.Refusal{Status: http.StatusTooEarly, Code: purchase.CodeTooEarly})
	}

	// Purchase: match, check, claim, verify, settle, deliver, record.
	upload := delivery.BoundUpload(w, r, h.desk.UploadGrace)
	r, body := delivery.WrapBody(r, upload)
	p := h.desk.Open(purchase.Ask{
		Method: request.Method(r, override), Acts: request.MayAct(r, override), Client: request.ClientNetwork(r), Site: request.ClientSite(r),
		ResourceURL: h.resourceURL(r), Body: body, Upload: upload, Payer: r.Context(), Started: now,
	}, asked, payment, said)
	defer upload.End()
	defer func() {
		p.Close()
		seen.bought(p)
	}()
	if refused := p.Claim(r); refused != nil {
		return h.refuseSale(w, r, p, *refused)
	}
	if refused := p.Prepare(r); refused != nil {
		return h.refuseSale(w, r, p, *refused)
	}
	return p.Deliver(w, r, next)
}

// overridesOf is what a request says beside its line, as far as the lines look at it.
func (h *Handler) overridesOf(r *http.Request) request.Overrides {
	override := request.ReadOverrides(r)
	if h.host.Looks() {
		override.ReadHosts(r, h.host.CanBeAnother)
	}
	return override
}

// removeForeign takes out of a request what only the gate may say to an upstream, and what
// would lead around the gate.
func removeForeign(r *http.Request) {
	if !purchase.IsPaidFor(r.Context()) { // else a block that has sold this request has set these itself
		delivery.RemoveUpstreamHeaders(r.Header)
		delivery.RemoveTrailers(r, func(name string) bool { return delivery.IsUpstreamHeader(name) || request.IsOverride(name) })
	}
	if len(r.Header["Upgrade"]) > 0 {
		delivery.RemoveHTTPUpgrades(r.Header)
	}
}

// asksToPay says whether a request is the preflight of one that costs something. It carries
// none of its goods.
func (h *Handler) asksToPay(r *http.Request, override request.Overrides, decision pricing.Decision) bool {
	if h.CORS == corsOff || !isPreflight(r) {
		return false
	}
	asked, err := request.Decide(h.list, r, r.Header.Get("Access-Control-Request-Method"), override)
	return err == nil && (asked.Kind == pricing.Priced || asked.Kind == pricing.Free && decision.Kind == pricing.MethodNotAllowed)
}

// notForSale refuses a request that is neither free nor has a price.
func (h *Handler) notForSale(decision pricing.Decision, err error) *purchase.Refusal {
	if err != nil {
		h.logger.Error("the price of a request cannot be decided; refusing it", zap.Error(err))
		return &purchase.Refusal{Status: http.StatusInternalServerError, Code: purchase.CodeUndecided}
	}
	switch decision.Kind {
	case pricing.Free, pricing.Priced:
		return nil
	case pricing.Refused:
		return &purchase.Refusal{Status: http.StatusForbidden, Code: purchase.CodeRefused}
	case pricing.MethodNotAllowed:
		return &purchase.Refusal{Status: http.StatusMethodNotAllowed, Code: purchase.CodeMethodNotAllowed, Allow: decision.Allow}
	case pricing.Ambiguous:
		return &purchase.Refusal{Status: http.StatusBadRequest, Code: purchase.CodeAmbiguousPath}
	}
	return &purchase.Refusal{Status: http.StatusInternalServerError, Code: purchase.CodeUndecided}
}

// lineOf is the line that prices a request which no other block has sold.
func (h *Handler) lineOf(r *http.Request, decision pricing.Decision) (*line, *purchase.Refusal) {
	if purchase.IsPaidFor(r.Context()) {
		h.logger.Error("a request that was charged by one paywall block has met another that prices it; put all prices into one block")
		return nil, &purchase.Refusal{Status: http.StatusInternalServerError, Code: purchase.CodeChargedTwice}
	}
	line := &h.lines[decision.Line+1]
	if err := h.app.tellPlaces(); err != nil || line.ID == "" {
		h.logger.Error("a paywall block does not know where it stands; refusing what it prices", zap.Error(err))
		return nil, &purchase.Refusal{Status: http.StatusInternalServerError, Code: purchase.CodeUndecided}
	}
	return line, nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
