package paywall

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"

	"github.com/caddy-paywall/caddy-paywall/internal/delivery"
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
	f := &freeForSome{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, varies: h.varies}
	err := next.ServeHTTP(f, r)
	f.mark() // an empty answer is one too, and so is an error route's
	return err
}

// varyPriced says on the answer to a priced request what its price depended on.
// It is kept from shared caches anyway.
func (h *Handler) varyPriced(header http.Header, d pricing.Decision) {
	if d.Depends && h.SharedCaches != sharedCachesAllow && h.varies != "" {
		header["Vary"] = slices.Concat(header["Vary"], []string{h.varies})
	}
}

// freeForSome is the response writer of an answer that is free because a matcher
// said so. It edits the header at the status line and lets everything else pass.
type freeForSome struct {
	*caddyhttp.ResponseWriterWrapper
	varies string
	marked bool
}

func (f *freeForSome) mark() {
	if f.marked {
		return
	}
	f.marked = true
	header := f.Header()
	delivery.KeepPrivate(header)
	if f.varies != "" {
		header["Vary"] = slices.Concat(header["Vary"], []string{f.varies})
	}
}

// WriteHeader implements http.ResponseWriter.
func (f *freeForSome) WriteHeader(status int) {
	if status >= 200 {
		f.mark()
	}
	f.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (f *freeForSome) Write(p []byte) (int, error) {
	f.mark()
	return f.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom, so that sendfile keeps working.
func (f *freeForSome) ReadFrom(r io.Reader) (int64, error) {
	f.mark()
	return f.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError implements what http.ResponseController looks for.
func (f *freeForSome) FlushError() error {
	f.mark()
	//nolint:bodyclose // a controller is no response
	return http.NewResponseController(f.ResponseWriterWrapper.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (f *freeForSome) Flush() { _ = f.FlushError() }

// Hijack implements what http.ResponseController looks for. What is said on the
// connection is no answer that a cache keeps.
func (f *freeForSome) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	//nolint:bodyclose // a controller is no response
	conn, brw, err := http.NewResponseController(f.ResponseWriterWrapper.ResponseWriter).Hijack()
	f.marked = f.marked || err == nil
	return conn, brw, err
}

// noteMatcher remembers which request headers a line's matcher looks at, and
// tells the operator what it reads in one way only.
func (h *Handler) noteMatcher(line fmt.Stringer, sets caddyhttp.RawMatcherSets) {
	names := strings.FieldsFunc(h.varies, func(c rune) bool { return c == ',' || c == ' ' })
	for _, set := range sets {
		names = append(names, headersIn(set)...)
		h.warnAboutQuery(line, set)
	}
	h.host = max(h.host, hostIn(sets))
	slices.Sort(names)
	h.varies = strings.Join(slices.Compact(names), ", ")
}

// headersIn names the request headers that a matcher set looks at, as far as its
// config says so.
func headersIn(set caddy.ModuleMap) (names []string) {
	add := func(name string) {
		if name = textproto.CanonicalMIMEHeaderKey(strings.TrimPrefix(name, "!")); httpguts.ValidHeaderFieldName(name) && name != "Host" {
			names = append(names, name)
		}
	}
	for module, raw := range set {
		switch module {
		case "header", "header_regexp":
			var fields map[string]json.RawMessage
			if json.Unmarshal(raw, &fields) == nil {
				for name := range fields {
					add(name)
				}
			}
		case "not":
			var nested caddyhttp.RawMatcherSets
			if json.Unmarshal(raw, &nested) == nil {
				for _, set := range nested {
					names = append(names, headersIn(set)...)
				}
			}
		}
		var text any
		if json.Unmarshal(raw, &text) != nil {
			continue
		}
		for _, s := range textsIn(text) {
			for _, m := range headerPlaceholder.FindAllStringSubmatch(s, -1) {
				add(m[1])
			}
			if cookiePlaceholder.MatchString(s) {
				add("Cookie")
			}
			if module == "expression" {
				for _, call := range headerFunction.FindAllString(s, -1) {
					for _, m := range headerKey.FindAllStringSubmatch(call, -1) {
						add(m[1])
					}
				}
				for _, call := range headerRegexp.FindAllString(s, -1) {
					for _, m := range quotedWord.FindAllStringSubmatch(call, -1) {
						add(m[1])
					}
				}
			}
		}
	}
	return names
}

var (
	headerPlaceholder = regexp.MustCompile(`(?:http\.request\.header|\{header)\.([\w-]+)`)
	cookiePlaceholder = regexp.MustCompile(`http\.request\.cookie\.|\{cookie\.`)
	headerFunction    = regexp.MustCompile(`\bheader\s*\([^)]*`)
	headerKey         = regexp.MustCompile(`['"]!?([\w-]+)['"]\s*:`)
	headerRegexp      = regexp.MustCompile(`\bheader_regexp\s*\([^)]*`)
	quotedWord        = regexp.MustCompile(`['"]([\w-]+)['"]`) // a word too many varies too much, which harms nobody
)

// textsIn are all texts of a config.
func textsIn(config any) (texts []string) {
	switch v := config.(type) {
	case string:
		return []string{v}
	case []any:
		for i := range v {
			texts = append(texts, textsIn(v[i])...)
		}
	case map[string]any:
		for name := range v {
			texts = append(append(texts, name), textsIn(v[name])...)
		}
	}
	return texts
}

// Interface guards
var (
	_ http.ResponseWriter = (*freeForSome)(nil)
	_ http.Flusher        = (*freeForSome)(nil)
	_ http.Hijacker       = (*freeForSome)(nil)
	_ http.Pusher         = (*freeForSome)(nil)
	_ io.ReaderFrom       = (*freeForSome)(nil)
)
