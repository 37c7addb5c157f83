package paywall

import (
	"net/http"
	"strings"

	"github.com/caddy-paywall/caddy-paywall/internal/request"
)

// resourceURL is the URL of the goods as the payer knows it.
func (h *Handler) resourceURL(r *http.Request) string {
	if h.publicURL != "" {
		return h.publicURL + request.URI(r)
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
	return scheme + "://" + host + request.URI(r)
}
