package paywall

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/ledger"
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

// withoutPayment takes the payment out of a request, whose header becomes a copy.
func withoutPayment(r *http.Request) {
	r.Header = r.Header.Clone()
	removePayments(r.Header)
	removeTrailers(r, isPayment)
}

// tellUpstream hands the upstream what it was paid.
func tellUpstream(header http.Header, row ledger.Payment, secret []byte) {
	keepForUpstream(header)
	for i, value := range []string{row.ID, row.Payer, row.Amount, row.Asset, row.Network, row.Transaction} {
		if value != "" { // the transaction is not known before it is settled
			header.Set(upstreamHeaders[i], value)
		}
	}
	setIdempotencyKey(header, row.Key, secret)
}

// clientIdempotencyKey is the request header under which the upstream sees the
// Idempotency-Key that the client sent.
const clientIdempotencyKey = "Paywall-Client-Idempotency-Key"

// setIdempotencyKey gives every run for one payment the same key, so that an upstream
// which knows the header does not act twice. Nobody else can compute it, or send it:
// an upstream hands out the answer that it has kept under a key.
func setIdempotencyKey(header http.Header, key ledger.Key, secret []byte) {
	if values := header["Idempotency-Key"]; len(values) > 0 {
		header[clientIdempotencyKey] = values
	}
	for name := range header {
		if spells(name, idempotencyHeaders) {
			delete(header, name)
		}
	}
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte(key))
	header["Idempotency-Key"] = []string{hex.EncodeToString(mac.Sum(nil)[:16])}
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
