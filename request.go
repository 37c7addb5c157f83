package paywall

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/x402"
)

// Headers that hand the upstream what it was paid.
var upstreamHeaders = []string{
	"Paywall-Payment", "Paywall-Payer", "Paywall-Amount", "Paywall-Asset", "Paywall-Network", "Paywall-Transaction",
}

// upstreamPrefix begins all of them.
const upstreamPrefix = "Paywall-"

// removeUpstreamHeaders removes what a client sends under our names, so that
// nobody can claim to have paid.
func removeUpstreamHeaders(header http.Header) {
	for name := range header {
		if isUpstreamHeader(name) {
			delete(header, name)
		}
	}
}

func isUpstreamHeader(name string) bool { return hasSpelledPrefix(name, upstreamPrefix) }

var paymentHeaders = []string{x402.HeaderPaymentSignature, x402.HeaderXPayment}

// removePayments removes the payment, which is money until it is settled, in
// every spelling that an upstream may take for it.
func removePayments(header http.Header) {
	for name := range header {
		if isPayment(name) {
			delete(header, name)
		}
	}
}

func isPayment(name string) bool { return spells(name, paymentHeaders) }

// upstreamRequest is the request as the upstream may see it: without the
// payment.
func (p *purchase) upstreamRequest(r *http.Request) (*http.Request, error) {
	r.Header = r.Header.Clone()
	removePayments(r.Header)
	removeTrailers(r, isPayment)
	if p.h.UpstreamHeaders {
		keepForUpstream(r.Header)
		row := p.held.Payment
		for i, value := range []string{row.ID, row.Payer, row.Amount, row.Asset, row.Network, row.Transaction} {
			if value != "" { // the transaction is not known before it is settled
				r.Header.Set(upstreamHeaders[i], value)
			}
		}
		if err := p.setIdempotencyKey(r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// clientIdempotencyKey is the request header under which the upstream sees the
// Idempotency-Key that the client sent.
const clientIdempotencyKey = "Paywall-Client-Idempotency-Key"

// setIdempotencyKey gives every run for one payment the same key, so that an upstream
// which knows the header does not act twice. Nobody else can compute it, or send it:
// an upstream hands out the answer that it has kept under a key.
func (p *purchase) setIdempotencyKey(r *http.Request) error {
	secret, err := p.h.app.secret(r.Context())
	if err != nil {
		return err
	}
	header := r.Header
	if values := header["Idempotency-Key"]; len(values) > 0 {
		header[clientIdempotencyKey] = values
	}
	for name := range header {
		if spells(name, idempotencyHeaders) {
			delete(header, name)
		}
	}
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte(p.held.Payment.Key))
	header["Idempotency-Key"] = []string{hex.EncodeToString(mac.Sum(nil)[:16])}
	return nil
}

var idempotencyHeaders = []string{"Idempotency-Key", "X-Idempotency-Key"}

// keepForUpstream takes our names out of Connection: what a client names there,
// proxies remove.
func keepForUpstream(header http.Header) {
	values := header["Connection"]
	if len(values) == 0 {
		return
	}
	var kept []string
	for name := range directives(values) {
		if !isUpstreamHeader(name) && !strings.EqualFold(name, "Idempotency-Key") {
			kept = append(kept, name)
		}
	}
	header["Connection"] = []string{strings.Join(kept, ", ")}
}

// chargeable says whether an upstream's answer is goods.
func (p *purchase) chargeable(status int, header http.Header) bool {
	if charge := p.price.charge; len(charge) > 0 && status != http.StatusSwitchingProtocols {
		// A range of the goods is goods.
		return slices.Contains(charge, status) || status == http.StatusPartialContent && slices.Contains(charge, http.StatusOK)
	}
	switch {
	case status == http.StatusSwitchingProtocols, status >= 200 && status < 300:
		return true
	case status == http.StatusNotModified:
		return false
	case status >= 300 && status < 400:
		return p.h.leaves(header.Get("Location"))
	}
	return false
}

// usesUp says whether an upstream's answer uses up what is owed: what a first payer
// would be charged for, or, where he pays first, everything that is goods.
func (p *purchase) usesUp(status int, header http.Header) bool {
	if p.first {
		return p.isGoods(status)
	}
	return p.chargeable(status, header)
}

// isGoods says whether a status stands for something that was done or given: one that
// usually does, or that the line charges for.
func (p *purchase) isGoods(status int) bool {
	return status == http.StatusSwitchingProtocols || status >= 200 && status < 400 && status != http.StatusNotModified ||
		slices.Contains(p.price.charge, status)
}

// methodOf is the method of a request, with those and the paths that it names
// elsewhere: to some upstreams they make it another request.
func methodOf(r *http.Request, o overrides) string {
	method := strings.Join(append([]string{r.Method}, o.methods...), ",")
	if len(o.paths) > 0 {
		method += " " + fingerprint(o.paths...)
	}
	return method
}

// mayAct says whether a request may have effects, by its method or by one that it
// names elsewhere. A tunnel is no effect, but a POST that asks for one is a POST.
func mayAct(r *http.Request, o overrides) bool {
	return !safeMethod(r.Method) && r.Method != http.MethodConnect || o.act()
}

// requestURI is the path and query as the client sent them.
func requestURI(r *http.Request) string {
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && o.URL != nil {
		return o.URL.RequestURI()
	}
	return r.URL.RequestURI()
}

// resourceURL is the URL of the goods as the payer knows it.
func (h *Handler) resourceURL(r *http.Request) string {
	if h.publicURL != "" {
		return h.publicURL + requestURI(r)
	}
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if isTrusted(r) {
		if proto := strings.ToLower(r.Header.Get("X-Forwarded-Proto")); proto == "http" || proto == "https" {
			scheme = proto
		}
		if forwarded := r.Header.Get("X-Forwarded-Host"); forwarded != "" {
			host = forwarded
		}
	}
	return scheme + "://" + host + requestURI(r)
}
