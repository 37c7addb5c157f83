package paywall

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/matcher"
	"github.com/caddy-paywall/caddy-paywall/pricing"
)

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
	f := delivery.NewPrivateWriter(w, h.varies)
	err := next.ServeHTTP(f, r)
	f.Mark() // an empty answer is one too, and so is an error route's
	return err
}

// varyPriced says on the answer to a priced request what its price depended on.
// It is kept from shared caches anyway.
func (h *Handler) varyPriced(header http.Header, d pricing.Decision) {
	if d.Depends && h.SharedCaches != sharedCachesAllow && h.varies != "" {
		header["Vary"] = slices.Concat(header["Vary"], []string{h.varies})
	}
}

// noteMatcher remembers which request headers a line's matcher looks at, and
// tells the operator what it reads in one way only.
func (h *Handler) noteMatcher(line fmt.Stringer, sets caddyhttp.RawMatcherSets) {
	names := strings.FieldsFunc(h.varies, func(c rune) bool { return c == ',' || c == ' ' })
	for _, set := range sets {
		names = append(names, matcher.Headers(set)...)
		h.warnAboutQuery(line, set)
	}
	h.host = max(h.host, matcher.Host(sets))
	slices.Sort(names)
	h.varies = strings.Join(slices.Compact(names), ", ")
}
