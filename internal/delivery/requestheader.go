package delivery

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/internal/dialect"
	"github.com/caddy-paywall/caddy-paywall/internal/headers"
	"github.com/caddy-paywall/caddy-paywall/ledger"
)

// Headers that hand the upstream what it was paid.
var upstreamHeaders = []string{
	"Paywall-Payment", "Paywall-Payer", "Paywall-Amount", "Paywall-Asset", "Paywall-Network", "Paywall-Transaction",
}

// upstreamPrefix begins all of them.
const upstreamPrefix = "Paywall-"

// RemoveUpstreamHeaders removes what a client sends under our names, so that
// nobody can claim to have paid.
func RemoveUpstreamHeaders(header http.Header) {
	for name := range header {
		if IsUpstreamHeader(name) {
			delete(header, name)
		}
	}
}

// IsUpstreamHeader says whether a header is one of those that only the gate may send.
func IsUpstreamHeader(name string) bool { return headers.HasPrefix(name, upstreamPrefix) }

// paymentHeaders are those in which one pays, and answerHeaders those in which the gate
// answers, in every dialect.
var paymentHeaders, answerHeaders = dialect.Names()

// RemovePayments removes the payment, which is money until it is settled, in
// every spelling that an upstream may take for it.
func RemovePayments(header http.Header) {
	for name := range header {
		if IsPayment(name) {
			delete(header, name)
		}
	}
}

// IsPayment says whether a header is one in which a payment comes.
func IsPayment(name string) bool { return headers.Is(name, paymentHeaders) }

// WithoutPayment takes the payment out of a request, whose header becomes a copy.
func WithoutPayment(r *http.Request) {
	r.Header = r.Header.Clone()
	RemovePayments(r.Header)
	RemoveTrailers(r, IsPayment)
}

// TellUpstream hands the upstream what it was paid.
func TellUpstream(header http.Header, row ledger.Payment, secret []byte) {
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
		if headers.Is(name, idempotencyHeaders) {
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
	for name := range headers.Members(values) {
		if !IsUpstreamHeader(name) && !strings.EqualFold(name, "Idempotency-Key") {
			kept = append(kept, name)
		}
	}
	header["Connection"] = []string{strings.Join(kept, ", ")}
}
