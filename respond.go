package paywall

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/dialect"
	"github.com/caddy-paywall/caddy-paywall/internal/metrics"
	"github.com/caddy-paywall/caddy-paywall/internal/purchase"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
	"github.com/caddy-paywall/caddy-paywall/pricing"
	"github.com/caddy-paywall/caddy-paywall/x402"
)

// challenge answers 402: what the request costs, and why what came does not
// pay for it. It is written directly, so that no error route can make it a 200.
func (h *Handler) challenge(w http.ResponseWriter, r *http.Request, asked *x402.Template, code x402.Code, receipt *x402.Receipt) error {
	url := h.resourceURL(r)
	header := w.Header()
	h.ownAnswer(header, r)
	var body []byte
	for _, d := range dialect.All() {
		if said := d.Challenge(header, asked, url, code); body == nil {
			body = said
		}
	}
	setReceipts(header, receipt)
	as := languageFor(r)
	switch {
	case as == asHTML && code == x402.CodePaymentRequired:
		body = h.page
	case as == asHTML:
		as = asJSON // a program of the page has paid
	case as != asJSON:
		body = challengeIn(as, asked, code)
	}
	header["Content-Type"] = []string{mediaTypes[as]}
	return h.send(w, r, http.StatusPaymentRequired, body)
}

// send sends an answer of the gate's own, and sees to it that who uploads can read it.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, status int, body []byte) error {
	w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body)
	if uploads(r) {
		delivery.EndRefused(w, r, h.desk.UploadGrace)
	}
	return nil
}

// refuse answers with a status, a code for the payer's software and words for the payer.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, f purchase.Refusal) error {
	header := w.Header()
	h.ownAnswer(header, r)
	setReceipts(header, f.Receipt)
	if f.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	if len(f.Allow) > 0 {
		header.Set("Allow", strings.Join(f.Allow, ", "))
	}
	as := languageFor(r)
	if as == asHTML && len(r.Header[x402.HeaderPaymentSignature]) > 0 {
		as = asJSON // a program of the page has paid
	}
	header["Content-Type"] = []string{mediaTypes[as]}
	return h.send(w, r, f.Status, h.refusalIn(as, &f))
}

// refuseSale answers a request that came with a payment.
func (h *Handler) refuseSale(w http.ResponseWriter, r *http.Request, p *purchase.Purchase, f purchase.Refusal) error {
	f, asked := p.Refuse(f)
	if asked != nil {
		return h.challenge(w, r, asked, f.Code, f.Receipt)
	}
	return h.refuse(w, r, f)
}

// ownAnswer prepares the header of an answer that is the gate's own.
func (h *Handler) ownAnswer(header http.Header, r *http.Request) {
	header.Set("Cache-Control", "no-store")
	for _, name := range []string{"Etag", "Last-Modified", "Expires"} {
		delete(header, name) // a `header` directive's, about the page
	}
	h.addCORS(header, r)
	if uploads(r) {
		header.Set("Connection", "close")
	}
}

// uploads says whether the body of a refused request must not be waited for, so that its
// connection ends after the answer: its client waits for us (Expect), has more to send than
// a new connection costs, or nobody knows how much. Else net/http reads it before it
// answers, since it does not know the body by which Caddy has replaced its own: unless the
// connection ends anyway, as those of nginx do. HTTP/2 and 3 can end one stream alone.
func uploads(r *http.Request) bool {
	if r.ProtoMajor != 1 || r.ContentLength == 0 {
		return false
	}
	return r.Header.Get("Expect") != "" || r.ContentLength > delivery.MaxRefused || r.ContentLength < 0 || r.Close
}

// isBrowser says whether a person is looking: the rule of the official servers.
func isBrowser(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html") && strings.Contains(r.Header.Get("User-Agent"), "Mozilla")
}

// setReceipts says what became of a payment in every dialect; which of them a failed
// payer reads is not always known.
func setReceipts(header http.Header, receipt *x402.Receipt) {
	if receipt == nil {
		return
	}
	for _, d := range dialect.All() {
		d.Receipt(header, receipt)
	}
}

// noteClosed counts a request that found nothing offered, and tells the log, but
// not for each of them.
func (h *Handler) noteClosed(err error, now time.Time) {
	metrics.CountClosed()
	last := h.complained.Load()
	if now.Unix()-last < 60 || !h.complained.CompareAndSwap(last, now.Unix()) {
		h.logger.Debug("nothing is offered", zap.Error(err))
		return
	}
	h.logger.Error("nothing is offered, so priced paths answer 503; said once a minute", zap.Error(err))
}

// resourceURL is the URL of the goods as the payer knows it.
func (h *Handler) resourceURL(r *http.Request) string {
	if h.publicURL != "" {
		return asUTF8(h.publicURL + request.URI(r))
	}
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if request.IsTrusted(r) {
		if proto := strings.ToLower(r.Header.Get("X-Forwarded-Proto")); proto == "http" || proto == "https" {
			scheme = proto
		}
		if forwarded := r.Header.Get("X-Forwarded-Host"); forwarded != "" {
			host = forwarded
		}
	}
	return asUTF8(scheme + "://" + host + request.URI(r))
}

// asUTF8 escapes the bytes of a URL that are not UTF-8, as browsers do: a client may send
// such, and neither JSON nor a facilitator takes them.
func asUTF8(url string) string {
	if utf8.ValidString(url) {
		return url
	}
	var b strings.Builder
	for len(url) > 0 {
		r, size := utf8.DecodeRuneInString(url)
		if r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, "%%%02X", url[0])
		} else {
			b.WriteString(url[:size])
		}
		url = url[size:]
	}
	return b.String()
}

// sharedCachesAllow leaves what a matcher set free to shared caches.
const sharedCachesAllow = "allow"

func checkSharedCaches(s string) error {
	if s != "" && s != sharedCachesAllow {
		return fmt.Errorf("shared_caches: want allow, not %q", s)
	}
	return nil
}

// serveFree lets a request through that costs nothing. Where a matcher said so, a
// cache in front of us must not hand the answer to others: what is free for a
// person may cost a crawler, at the same URL.
func (h *Handler) serveFree(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, d pricing.Decision) error {
	if !d.Depends || h.SharedCaches == sharedCachesAllow {
		return next.ServeHTTP(w, r)
	}
	return servePrivately(w, r, next, h.varies)
}

// varyPriced says on the answer to a priced request what its price depended on.
// It is kept from shared caches anyway.
func (h *Handler) varyPriced(header http.Header, d pricing.Decision) {
	if (d.Depends || len(h.exempt) > 0) && h.SharedCaches != sharedCachesAllow && h.varies != "" {
		header["Vary"] = slices.Concat(header["Vary"], []string{h.varies})
	}
}
