package paywall

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
	"github.com/caddy-paywall/caddy-paywall/internal/headers"
	"github.com/caddy-paywall/caddy-paywall/internal/request"
)

// What browsers may read of our answers, and send with their requests. The
// official clients send Access-Control-Expose-Headers as a request header.
const (
	exposedHeaders = "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE"
	allowedHeaders = "PAYMENT-SIGNATURE, X-PAYMENT, SIGN-IN-WITH-X, Access-Control-Expose-Headers, Content-Type, Authorization"
)

// Who speaks of CORS on priced paths; nobody else than the gate by default.
const (
	corsOff      = "off"      // the upstream alone, and preflights cost what the list says
	corsUpstream = "upstream" // the upstream answers preflights, for the gate to pass on
)

func checkCORS(s string) error {
	switch s {
	case "", corsOff, corsUpstream:
		return nil
	}
	return fmt.Errorf("cors: want off or upstream, not %q", s)
}

// maxMethod is longer than every method that is registered, in bytes.
const maxMethod = 40

// isPreflight says whether a browser asks for permission (Fetch standard,
// 3.2.2): such a request carries no payment and gets no content.
func isPreflight(r *http.Request) bool {
	method := r.Header.Get("Access-Control-Request-Method")
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && method != "" && len(method) <= maxMethod && !strings.ContainsAny(method, ", ")
}

// addCORS lets browsers read an answer of a priced path: what the upstream
// allows plus our headers, or anybody without credentials where it says nothing.
func (h *Handler) addCORS(header http.Header, r *http.Request) {
	if h.CORS == corsOff || r.Header.Get("Origin") == "" {
		return
	}
	if header.Get("Access-Control-Allow-Origin") == "" {
		header.Set("Access-Control-Allow-Origin", "*")
	}
	mergeList(header, "Access-Control-Expose-Headers", exposedHeaders)
}

// mergeList adds the names that a comma-separated header does not have yet.
func mergeList(header http.Header, name, add string) {
	var list []string
	have := map[string]bool{}
	for item := range strings.SplitSeq(strings.Join(append(header.Values(name), add), ","), ",") {
		item = strings.TrimSpace(item)
		if key := strings.ToLower(item); item != "" && !have[key] {
			have[key] = true
			list = append(list, item)
		}
	}
	header.Set(name, strings.Join(list, ", "))
}

// firstNames are so many of a list of names as we read, and what stands between
// their commas. A browser that asks for more headers than that is told of the first.
func firstNames(values []string) string {
	var b strings.Builder
	left := headers.MaxNames
	for _, value := range values {
		for name := range strings.SplitSeq(value, ",") {
			if left--; left < 0 {
				return b.String()
			}
			b.WriteString(name)
			b.WriteByte(',')
		}
	}
	return b.String()
}

// preflight tells browsers that they may ask for what is priced. The upstream
// is not asked, because one that does not look at the method would act, and
// nobody has paid. Only the operator can know that his does look; then it says
// what its CORS policy is, and nothing else: a priced path's content must not
// leave on a request that pays nothing.
func (h *Handler) preflight(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, o request.Overrides) error {
	header := w.Header()
	// What could act is not asked.
	if h.CORS == corsUpstream && !o.Act() && !request.Tunnels(r) {
		if status, ok := askUpstream(header, r, next); ok {
			mergeList(header, "Access-Control-Allow-Headers", allowedHeaders)
			w.WriteHeader(status)
			return nil
		}
	}
	// What a `header` directive says holds, and else everybody may ask, without
	// credentials.
	if header.Get("Access-Control-Allow-Origin") == "" {
		header.Set("Access-Control-Allow-Origin", "*")
	}
	mergeList(header, "Access-Control-Allow-Methods", r.Header.Get("Access-Control-Request-Method"))
	if header.Get("Access-Control-Max-Age") == "" {
		header.Set("Access-Control-Max-Age", "600")
	}
	mergeList(header, "Access-Control-Allow-Headers", allowedHeaders+","+firstNames(r.Header.Values("Access-Control-Request-Headers")))
	header.Add("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// askUpstream asks the upstream for its CORS policy, and adds what it says to
// the header. False: it has none.
func askUpstream(header http.Header, r *http.Request, next caddyhttp.Handler) (status int, ok bool) {
	ask := &headerOnly{header: make(http.Header)}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ask.done = cancel
	asked := r.Clone(ctx)
	asked.Body, asked.ContentLength = http.NoBody, 0
	delivery.RemovePayments(asked.Header)
	if !answered(next, ask, asked) || ask.header.Get("Access-Control-Allow-Origin") == "" {
		return 0, false
	}
	for name, values := range ask.header {
		switch {
		case name == "Vary":
			header[name] = slices.Concat(header[name], values) // encode has its own
		case name == "Allow", strings.HasPrefix(name, "Access-Control-"):
			header[name] = values // not beside those of a `header` directive
		}
	}
	if ask.status < 200 || ask.status > 599 || ask.status == http.StatusPaymentRequired {
		return http.StatusNoContent, true
	}
	return ask.status, true
}

// answered runs the upstream for its header. Once that is there the rest is cut
// off, which reverse_proxy answers with a panic.
func answered(next caddyhttp.Handler, ask *headerOnly, r *http.Request) (ok bool) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // a panic value, not an error
			panic(p)
		}
		ok = ask.status != 0
	}()
	_ = next.ServeHTTP(ask, r) // an error is no status
	return true
}

// headerOnly is a response writer that keeps the header and drops the body.
type headerOnly struct {
	header http.Header
	status int
	done   func() // called at the first byte of a body
}

func (h *headerOnly) Header() http.Header { return h.header }

func (h *headerOnly) WriteHeader(status int) {
	if h.status == 0 && status >= 200 {
		h.status = status
	}
}

func (h *headerOnly) Write(p []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	h.done()
	return len(p), nil
}
