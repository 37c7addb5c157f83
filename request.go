package paywall

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
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
func (p *purchase) upstreamRequest(r *http.Request) *http.Request {
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
		if r.Header.Get("Idempotency-Key") == "" {
			// Every run for one payment carries the same one, so that an upstream
			// which knows the header does not act twice.
			r.Header.Set("Idempotency-Key", row.ID)
		}
	}
	return r
}

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
func (p *price) chargeable(status int, header http.Header, r *http.Request) bool {
	if len(p.charge) > 0 {
		// A range of the goods is goods.
		return slices.Contains(p.charge, status) || status == http.StatusPartialContent && slices.Contains(p.charge, http.StatusOK)
	}
	switch {
	case status == http.StatusSwitchingProtocols, status >= 200 && status < 300:
		return true
	case status == http.StatusNotModified:
		return false
	case status >= 300 && status < 400:
		return leavesHost(header.Get("Location"), r.Host)
	}
	return false
}

// leavesHost says whether a redirect goes to another host: downloads hand out
// signed URLs that way, and those are goods.
func leavesHost(location, host string) bool {
	if location == "" {
		return false
	}
	u, err := url.Parse(location)
	if err != nil {
		return true // whoever follows it may understand it
	}
	ours := (&url.URL{Host: host}).Hostname()
	return u.Host != "" && !strings.EqualFold(u.Hostname(), ours) || u.Host == "" && u.Scheme != ""
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
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if proto := strings.ToLower(r.Header.Get("X-Forwarded-Proto")); proto == "http" || proto == "https" {
			scheme = proto
		}
		if forwarded := r.Header.Get("X-Forwarded-Host"); forwarded != "" {
			host = forwarded
		}
	}
	return scheme + "://" + host + requestURI(r)
}

// declaredBody is what a request says of its body: length and type, or "" if
// not even the length.
func declaredBody(r *http.Request) string {
	if r.ContentLength < 0 {
		return ""
	}
	return strconv.FormatInt(r.ContentLength, 10) + " " + r.Header.Get("Content-Type")
}

// clientNetwork is the network a request comes from: /24 or /48, since clients
// move within these between two tries.
func clientNetwork(r *http.Request) string {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if text == "" {
		text = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		ap, err := netip.ParseAddrPort(text)
		if err != nil {
			return text
		}
		addr = ap.Addr()
	}
	addr = addr.Unmap().WithZone("")
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return addr.String()
	}
	return prefix.String()
}
