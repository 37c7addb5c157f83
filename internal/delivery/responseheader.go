package delivery

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/internal/headers"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// receiptHeaders are what an upstream must not say to a payer in our place.
var receiptHeaders = slices.Concat(answerHeaders, []string{x402.HeaderSettlementOverrides})

// RemoveReceipts removes receipts and challenges that are not ours, and that
// they will come as trailers.
func RemoveReceipts(header http.Header) {
	for _, name := range receiptHeaders {
		delete(header, name)
	}
	var kept []string
	for name := range headers.Members(header["Trailer"]) {
		if name != "" && !isReceiptHeader(name) {
			kept = append(kept, name)
		}
	}
	delete(header, "Trailer")
	if len(kept) > 0 {
		header["Trailer"] = []string{strings.Join(kept, ", ")}
	}
}

func isReceiptHeader(name string) bool {
	return slices.ContainsFunc(receiptHeaders, func(ours string) bool { return strings.EqualFold(ours, name) })
}

// RemoveReceiptTrailers removes what the upstream has added to its answer since
// its status line.
func RemoveReceiptTrailers(header http.Header) {
	for _, name := range receiptHeaders {
		delete(header, http.TrailerPrefix+name)
	}
}

// ForPayerOnly keeps caches from handing the answer to a payment to others. What
// the upstream allows shared caches is taken back; what it allows the payer's own
// stays.
func ForPayerOnly(header http.Header) {
	keepPrivate(header)
	header["Vary"] = slices.Concat(header["Vary"], []string{variesBy})
}

// keepPrivate takes back what an upstream allows shared caches.
func keepPrivate(header http.Header) {
	for name := range header {
		// RFC 9213 and its forerunners: Cdn-Cache-Control, Vercel-Cdn-Cache-Control, …
		if strings.HasSuffix(name, "-Cache-Control") {
			delete(header, name)
		}
	}
	for _, name := range []string{"Surrogate-Control", "X-Accel-Expires", "Edge-Control"} {
		delete(header, name)
	}
	kept := []string{"private"}
	for directive := range headers.Members(header["Cache-Control"]) {
		name, _, _ := strings.Cut(strings.ToLower(directive), "=")
		switch strings.TrimSpace(name) {
		case "", "public", "private", "s-maxage", "proxy-revalidate", "must-understand":
		default:
			kept = append(kept, directive)
		}
	}
	header["Cache-Control"] = []string{strings.Join(kept, ", ")}
}

// variesBy is what makes two answers of one URL differ.
var variesBy = strings.ToUpper(strings.Join(paymentHeaders, ", "))
